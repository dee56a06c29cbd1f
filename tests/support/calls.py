"""Calls of the queue's methods as peers encode them, and a connection that receives them."""

from struct import pack, unpack

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
    write_add_request,
    write_extend_request,
    write_poll_request,
    write_remove_request,
)
from queueber.api.templates import template_readers
from queueber.capnp import layout
from queueber.capnp.builder import Body
from queueber.capnp.framing import framed
from queueber.capnp.reader import WORD
from queueber.limits import Limits
from queueber.rpc import Connection, PromisedAnswer, encoder
from queueber.units import SpanMs

LIMITS = Limits(contents_bytes=64, add_bytes=100)
ROOT = object()
BOOTSTRAP = 1_000_000
"""The question of the bootstrap, whose answer stays open."""


def standard_call(question, method, content):
    """Return a call as other builders lay it out: a Payload with room for capabilities."""
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


def foreign_call(question, method, content, *, target=0, lists_capabilities=False):
    """
    Encode a call with its target after the contents, byte for byte as pycapnp 2.2.4 and Rust's capnp-rpc 0.20 send it.

    *target* is an import, or an answer and the pointer fields of its results.  Rust *lists_capabilities*, of which
    there are none.
    """
    words = list(unpack(f"<{len(content) // WORD}Q", content))
    request = [words[0] + (1 << 2), 0, *words[1:]]
    head = [1 << 32 | 1 << 48, 2, 3 << 32 | 3 << 48, question | method << 32, QUEUE_INTERFACE_ID, 0]
    if isinstance(target, int):
        named = [target, 0]
    else:
        answer, path = target
        ops = [len(path) << 2 | 1 << 32, *[1 | field << 32 for field in path]]
        named = [1 << 32, 1 << 32 | 1 << 48, answer, 1 | 7 << 32 | len(path) << 35, *ops]
    pointers = [len(request) + 2 << 2 | 1 << 32 | 1 << 48, 1 << 2 | 2 << 48, 0]
    if lists_capabilities:
        request[1] = len(request) - 2 + len(named) << 2 | 1 | 7 << 32
        named.append(1 << 32 | 1 << 48)
    segment = [*head, *pointers, *request, *named]
    return framed(pack(f"<{len(segment)}Q", *segment))


def cpp_call(question, method, content):
    return foreign_call(question, method, content)


def rust_call(question, method, content):
    return foreign_call(question, method, content, target=(BOOTSTRAP, ()), lists_capabilities=True)


def pipelined_call(question, method, content):
    return encoder.pipelined_call(question, PromisedAnswer(BOOTSTRAP), QUEUE_INTERFACE_ID, method, content)


LAYOUTS = [our_call, standard_call, cpp_call, rust_call, pipelined_call]
"""All layouts in which clients encode a call of the root object."""


def begun(limits=LIMITS, *, templates=True):
    """Return a connection whose peer holds the root object as import 0; with *templates*, it has a fast path."""
    readers = template_readers(limits) if templates else None
    connection = Connection(limits=limits, bootstrap=ROOT, templates=readers)
    list(connection.receive_data(encoder.bootstrap(BOOTSTRAP)))
    return connection


def add(*contents, delay=0):
    return ADD, write_add_request(AddRequest([NewItem(each, SpanMs(delay)) for each in contents]))


def remove(item, lease):
    return REMOVE, write_remove_request(RemoveRequest(item, lease))


def poll(count):
    return POLL, write_poll_request(PollRequest(SpanMs(1000), count, None, False))


def extend(lease, span=1000):
    return EXTEND, write_extend_request(ExtendRequest(lease, SpanMs(span)))
