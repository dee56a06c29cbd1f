"""
The contents of one message as plain values, by our own decoder, to compare them with others.

`pycapnp_views.py` returns the same from a foreign decoder.
"""

from contextlib import suppress

from queueber.api import (
    BROKER_INTERFACE_ID,
    read_add_request,
    read_add_response,
    read_bootstrap,
    read_extend_request,
    read_extend_response,
    read_poll_request,
    read_poll_response,
    read_queue_request,
    read_queue_response,
    read_remove_request,
    read_remove_response,
)
from queueber.capnp.framing import Framer
from queueber.errors import InvalidRequest, RemoteProtocolError
from queueber.limits import Limits
from queueber.rpc import Canceled, PromisedAnswer, RemoteException, Results
from queueber.rpc import messages as m
from queueber.rpc.decoder import decode
from queueber.units import SpanMs

# pycapnp knows of no longest delay.
LIMITS = Limits(frame_bytes=1 << 20, delay_ms=SpanMs(1 << 80))


def _add(params):
    return [[item.contents.hex(), item.delay] for item in read_add_request(params, LIMITS).items]


def _remove(params):
    request = read_remove_request(params)
    return [request.id.hex(), request.lease.hex()]


def _poll(params):
    request = read_poll_request(params)
    return [request.lease, request.num_items, request.wait, request.no_wait]


def _extend(params):
    request = read_extend_request(params)
    return [request.lease.hex(), request.span]


def _polled(results):
    response = read_poll_response(results)
    items = [[item.contents.hex(), item.id.hex(), item.attempt, item.added_at] for item in response.items]
    return [items, response.lease.hex(), response.deadline]


REQUESTS = [_add, _remove, _poll, _extend, read_queue_request]
RESPONSES = [
    lambda results: [each.hex() for each in read_add_response(results).ids],
    read_remove_response,
    _polled,
    read_extend_response,
    read_queue_response,
    read_bootstrap,
]
READERS = len(REQUESTS) * len(RESPONSES)
"""Every pair of a reader for requests and one for responses."""


def _target(target):
    if isinstance(target, PromisedAnswer):
        return [target.question, None if target.path is None else list(target.path)]
    return target


def _call(call, reader):
    params = REQUESTS[reader % len(REQUESTS)](call.params)
    return [call.question, _target(call.target), call.interface_id, call.method_id, call.to_caller, params]


def _return(message, reader):
    outcome = message.outcome
    said = None
    if isinstance(outcome, Results):
        said = ["results", list(outcome.capabilities), RESPONSES[reader % len(RESPONSES)](outcome)]
    elif isinstance(outcome, RemoteException):
        said = ["exception", outcome.reason, outcome.kind]
    elif isinstance(outcome, Canceled):
        said = ["canceled"]
    return [message.answer, message.finish_needed, said]


VIEWS = {
    m.UnimplementedMessage: lambda each, _: [each.message],
    m.Abort: lambda each, _: [each.reason],
    m.Bootstrap: lambda each, _: [each.question, each.names_object],
    m.Call: _call,
    m.Return: _return,
    m.Finish: lambda each, _: [each.question, each.release_result_caps],
    m.Release: lambda each, _: [each.id, each.count],
    m.Resolve: lambda each, _: [each.promise, each.capability],
    m.Disembargo: lambda each, _: [_target(each.target), each.embargo],
    m.Unknown: lambda each, _: [each.which],
}


def view(frame, reader=0):
    """Return `[kind of message, its values]`, or `["refused", text]`; *reader* chooses how its content is read."""
    try:
        message = decode(frame)
        return [type(message).__name__.removesuffix("Message").lower(), VIEWS[type(message)](message, reader)]
    except (RemoteProtocolError, InvalidRequest) as why:
        return ["refused", str(why)]


COMPARED = [reader for reader in range(READERS) if reader % len(RESPONSES) < 4]
"""The readers that pycapnp has too: two of ours take capabilities out of untyped results."""


def likely_reader(message, dice):
    """Return a reader that suits the apparent kind of the framed *message*, more often than not."""
    reader = dice.choice(COMPARED)
    # A decoder that breaks is for the codec's target to find.
    with suppress(Exception):
        for frame in Framer(LIMITS).feed(message):
            said = decode(frame)
            if isinstance(said, m.Call) and dice.random() < 0.8:
                method = 4 if said.interface_id == BROKER_INTERFACE_ID else said.method_id % len(REQUESTS)
                return next(each for each in COMPARED if each % len(REQUESTS) == method)
    return reader
