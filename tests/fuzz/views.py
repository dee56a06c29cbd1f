"""
The contents of one message as plain values, by our own decoder, to compare them with others.

`pycapnp_views.py` returns the same from a foreign decoder.
"""

from contextlib import suppress
from enum import IntEnum
from functools import partial

import attrs

from queueber import api
from queueber.api import (
    BROKER_INTERFACE_ID,
    control,
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
from queueber.api import control_types as types
from queueber.capnp.framing import Framer
from queueber.errors import InvalidRequest, RemoteProtocolError
from queueber.limits import Limits
from queueber.rpc import Canceled, PromisedAnswer, RemoteException, Results
from queueber.rpc import messages as m
from queueber.rpc.decoder import decode
from queueber.units import SpanMs

# pycapnp knows of no longest delay.
LIMITS = Limits(frame_bytes=1 << 20, delay_ms=SpanMs(1 << 80))


def plain(value):
    """Return *value* as JSON has it: bytes as hexadecimal digits, objects and named tuples as lists of their fields."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, IntEnum):
        return int(value)
    if attrs.has(type(value)):
        value = [getattr(value, each.name) for each in attrs.fields(type(value))]
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def _add(params):
    request = read_add_request(params, LIMITS)
    return plain([request.items, request.request_id])


def _remove(params):
    request = read_remove_request(params)
    return [request.id.hex(), request.lease.hex()]


def _poll(params):
    return plain(read_poll_request(params))


def _extend(params):
    request = read_extend_request(params)
    return [request.lease.hex(), request.span]


def _polled(results):
    return plain(read_poll_response(results))


def _settle(params):
    return plain(api.read_settle_request(params, LIMITS))


def _attach(params):
    return plain(api.read_attach_request(params))


def _poll_any(params):
    return plain(api.read_poll_any_request(params, LIMITS))


def _control(method):
    return lambda params: plain(control.read_control_request(method, params))


REQUESTS = [
    _add,
    _remove,
    _poll,
    _extend,
    read_queue_request,
    _settle,
    _attach,
    _poll_any,
    _control(types.REDRIVE),
    # pycapnp has no reader for those that follow.
    lambda params: plain(control.read_queues_request(params)),
    *(_control(method) for method in range(types.DELETE + 1)),
]
RESPONSES = [
    lambda results: plain(read_add_response(results)),
    read_remove_response,
    _polled,
    read_extend_response,
    lambda results: plain(api.read_settle_response(results)),
    lambda results: plain(api.read_attach_response(results)),
    # pycapnp has no reader for those that follow.
    read_queue_response,
    lambda results: plain(api.read_ping_response(results)),
    lambda results: plain(api.read_poll_any_response(results)),
    lambda results: plain(control.read_queues_response(results)),
    *(
        partial(lambda method, results: plain(control.read_control_response(method, results)), method)
        for method in range(types.DELETE + 1)
    ),
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
    m.Release: lambda each, _: [each.id, each.references],
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


REQUESTS_COMPARED = 9
RESPONSES_COMPARED = 6
"""The readers that pycapnp has too, the first ones of `REQUESTS` and of `RESPONSES`."""

COMPARED = [
    reader
    for reader in range(READERS)
    if reader % len(REQUESTS) < REQUESTS_COMPARED and reader % len(RESPONSES) < RESPONSES_COMPARED
]

READER_OF = {
    (api.QUEUE_INTERFACE_ID, api.ADD): 0,
    (api.QUEUE_INTERFACE_ID, api.REMOVE): 1,
    (api.QUEUE_INTERFACE_ID, api.POLL): 2,
    (api.QUEUE_INTERFACE_ID, api.EXTEND): 3,
    (api.QUEUE_INTERFACE_ID, api.SETTLE): 5,
    (BROKER_INTERFACE_ID, api.QUEUE): 4,
    (BROKER_INTERFACE_ID, api.CONTROL): 4,
    (BROKER_INTERFACE_ID, api.ATTACH): 6,
    (BROKER_INTERFACE_ID, api.POLL_ANY): 7,
    (BROKER_INTERFACE_ID, api.QUEUES): 9,
    **{(types.CONTROL_INTERFACE_ID, method): 10 + method for method in range(types.DELETE + 1)},
    (types.CONTROL_INTERFACE_ID, types.REDRIVE): 8,
}
"""The place in `REQUESTS` of the reader of each method's parameters."""


def likely_reader(message, dice):
    """Return a reader that suits the apparent kind of the framed *message*, more often than not."""
    reader = dice.choice(COMPARED)
    # A decoder that breaks is for the codec's target to find.
    with suppress(Exception):
        for frame in Framer(LIMITS).feed(message):
            said = decode(frame)
            if isinstance(said, m.Call) and dice.random() < 0.8:
                place = READER_OF[said.interface_id, said.method_id]
                return next(each for each in COMPARED if each % len(REQUESTS) == place)
    return reader
