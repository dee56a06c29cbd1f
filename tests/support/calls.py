"""Calls of the queue's methods as a peer sends them, and a connection that takes them."""

from queueber.api import (
    ADD,
    EXTEND,
    POLL,
    QUEUE_INTERFACE_ID,
    REMOVE,
    AddRequest,
    ExtendRequest,
    NewItem,
    PollRequest,
    RemoveRequest,
    template_readers,
    write_add_request,
    write_extend_request,
    write_poll_request,
    write_remove_request,
)
from queueber.capnp import layout
from queueber.capnp.builder import Body
from queueber.capnp.framing import framed
from queueber.capnp.reader import WORD
from queueber.limits import Limits
from queueber.rpc import Connection, encoder
from queueber.units import SpanMs

LIMITS = Limits(contents_bytes=64, add_bytes=100)
ROOT = object()


def standard_call(question, method, content):
    """As other people's builders lay it: a Payload with room for capabilities, and perhaps something before it."""
    payload = {"content": Body(int.from_bytes(content[:WORD], "little"), [content[WORD:]], len(content) // WORD - 1)}
    call = {
        "questionId": question,
        "interfaceId": QUEUE_INTERFACE_ID,
        "methodId": method,
        "target": {"importedCap": 0},
        "params": payload,
    }
    return framed(layout("Message").build(call=call))


def our_call(question, method, content):
    return encoder.call(question, 0, QUEUE_INTERFACE_ID, method, content) + content


def begun(limits=LIMITS, *, templates=True):
    """A connection whose peer holds the root object, as import 0; with *templates*, it has a fast path."""
    readers = template_readers(limits) if templates else None
    connection = Connection(limits=limits, bootstrap=ROOT, templates=readers)
    list(connection.receive_data(encoder.bootstrap(1_000_000)))
    return connection


def add(*contents, delay=0):
    return ADD, write_add_request(AddRequest([NewItem(each, SpanMs(delay)) for each in contents]))


def remove(item, lease):
    return REMOVE, write_remove_request(RemoveRequest(item, lease))


def poll(count):
    return POLL, write_poll_request(PollRequest(SpanMs(1000), count, None, False))


def extend(lease, span=1000):
    return EXTEND, write_extend_request(ExtendRequest(lease, SpanMs(span)))
