"""Every message with other than plain fields: there and back, and to and from pycapnp, field by field."""

import copy

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from interface_values import (
    CONTROL,
    add_requests,
    add_responses,
    any_requests,
    any_responses,
    attach_requests,
    attach_responses,
    id_lists,
    named,
    params,
    plain,
    poll_responses,
    queues_requests,
    results,
    session_polls,
    settle_requests,
    settle_responses,
    settlements,
    some,
    summaries,
)

from queueber import api
from queueber.api import control, settle
from queueber.api import control_types as types
from queueber.api.fields import request_of
from queueber.capnp.layout import field_name
from queueber.capnp.reader import single_segment
from queueber.capnp.schema import schema
from queueber.errors import InvalidRequest, RemoteProtocolError
from queueber.limits import Limits
from queueber.values import ControlOutcome, ItemState
from tests.support.examples import examples

LIMITS = Limits(lease_ms=1 << 29, delay_ms=1 << 40)
CONTROLS = schema().interfaces["QueueControl"]


def within(name, struct):
    """Fields of parameters or results that have only the struct *name*."""
    return lambda value: {name: named(value, struct)}


MESSAGES = {
    "Queue.add$Params": (
        add_requests,
        api.write_add_request,
        lambda content: api.read_add_request(params(content), LIMITS),
        within("req", "AddRequest"),
    ),
    "Queue.add$Results": (
        add_responses,
        api.write_add_response,
        lambda content: api.read_add_response(results(content)),
        within("resp", "AddResponse"),
    ),
    "Queue.poll$Params": (
        session_polls,
        api.write_poll_request,
        lambda content: api.read_poll_request(params(content), LIMITS),
        within("req", "PollRequest"),
    ),
    "Queue.poll$Results": (
        poll_responses,
        lambda response: api.write_poll_responses([response])[0],
        lambda content: api.read_poll_response(results(content)),
        within("resp", "PollResponse"),
    ),
    "Queue.settle$Params": (
        settle_requests,
        api.write_settle_request,
        lambda content: api.read_settle_request(params(content), LIMITS),
        within("req", "SettleRequest"),
    ),
    "Queue.settle$Results": (
        settle_responses,
        api.write_settle_response,
        lambda content: api.read_settle_response(results(content)),
        within("resp", "SettleResponse"),
    ),
    "Broker.attach$Params": (
        attach_requests,
        api.write_attach_request,
        lambda content: api.read_attach_request(params(content)),
        lambda value: named(value, "Broker.attach$Params"),
    ),
    "Broker.attach$Results": (
        attach_responses,
        api.write_attach_response,
        lambda content: api.read_attach_response(results(content)),
        within("resp", "AttachResponse"),
    ),
    "Broker.ping$Results": (
        id_lists,
        api.write_ping_response,
        lambda content: api.read_ping_response(results(content)),
        lambda value: {"ended": [each.hex() for each in value]},
    ),
    "Broker.pollAny$Params": (
        any_requests,
        api.write_poll_any_request,
        lambda content: api.read_poll_any_request(params(content), LIMITS),
        within("req", "PollAnyRequest"),
    ),
    "Broker.pollAny$Results": (
        any_responses,
        api.write_poll_any_response,
        lambda content: api.read_poll_any_response(results(content)),
        within("resp", "PollAnyResponse"),
    ),
    "Broker.queues$Params": (
        queues_requests,
        control.write_queues_request,
        lambda content: control.read_queues_request(params(content)),
        lambda value: named(value, "Broker.queues$Params"),
    ),
    "Broker.queues$Results": (
        some(summaries),
        control.write_queues_response,
        lambda content: control.read_queues_response(results(content)),
        lambda value: {"queues": [named(each, "QueueSummary") for each in value.found], "more": value.more},
    ),
}


messages = st.sampled_from(sorted(MESSAGES)).flatmap(lambda name: st.tuples(st.just(name), MESSAGES[name][0]))


# As a worker sends them by the hundred.
PLAIN_ENTRIES = [
    api.Settlement(b"l" * 16, bytes(16), api.Action.REMOVE),
    api.Settlement(b"l" * 16, b"i" * 16, api.Action.FAIL, 5),
]


@pytest.mark.traced
@settings(derandomize=True, max_examples=examples(250))
@example(message=("Queue.settle$Params", api.SettleRequest(PLAIN_ENTRIES, [])))
@given(message=messages)
def test_a_message_there_and_back(pycapnp, message):
    name, value = message
    _, write, read, expected = MESSAGES[name]
    content = write(value)
    assert read(content) == value
    fields = pycapnp.read(name, [content])
    assert fields == expected(value)
    assert read(*pycapnp.build(name, fields)) == value


@settings(max_examples=examples(300))
@given(
    entries=st.lists(settlements, min_size=1, max_size=6),
    changes=st.lists(st.tuples(st.integers(0, 90), st.integers(-70, 63)), max_size=2),
    factor=st.sampled_from([2, 2, 1]),
)
def test_entries_read_together_are_those_read_one_by_one(entries, changes, factor):
    """With any change of a word: a bit flipped, or another offset."""
    words = list(single_segment(api.write_settle_request(api.SettleRequest(entries))).words)
    for place, change in changes:
        at = place % len(words)
        words[at] = (words[at] ^ 1 << change if change >= 0 else words[at] + (change + 35 << 2)) & (1 << 64) - 1
    content = b"".join(word.to_bytes(8, "little") for word in words)

    def outcome(read):
        given_params = params(content)
        given_params.frame.budget = factor * len(words) // 2
        try:
            return read(request_of(given_params, "Queue.settle", "SettleRequest")), given_params.frame.budget
        except (InvalidRequest, RemoteProtocolError) as why:
            return str(why)

    def one_by_one(request):
        found = request.structs("entries", "Settlement", 1_000)
        return [settle.read_settlement(each, LIMITS) for each in found]

    assert outcome(lambda request: settle.read_entries(request, LIMITS)) == outcome(one_by_one)


def control_fields(method, value):
    """The parameters, for the methods whose request is not a struct of ours with the same fields."""
    match method:
        case types.STATS | types.PURGE | types.DELETE | types.GET | types.CANCEL | types.KICK | types.END_LEASE:
            (field,) = schema().structs[CONTROLS.params[method]].fields
            return {field.name: plain(value, field)}
        case types.SETTINGS:
            return {}
        case types.CONFIGURE:
            names, reset = ([field_name(name) for name in each] for each in (value.names, value.reset))
            return {"fields": names, "settings": named(value.settings, "Settings"), "reset": reset}
        case types.PEEK:
            return {"req": named(value, "PeekRequest")}
        case types.REDRIVE:
            return {"req": named(value, "RedriveRequest")}
    return named(value, CONTROLS.params[method])


def reply_fields(method, value):  # noqa: PLR0911
    """The results, likewise."""
    match method:
        case types.STATS:
            return {"stats": named(value, "QueueStats")}
        case types.SETTINGS:
            return {
                "settings": named(value.settings, "Settings"),
                "defaults": [field_name(name) for name in value.defaults],
            }
        case types.CONFIGURE:
            return {"settings": named(value, "Settings")}
        case types.PEEK:
            return {"items": [named(each, "ItemView") for each in value.found], "more": value.more}
        case types.GET:
            return {"found": value is not None, "item": value and named(value, "ItemView")}
        case types.PAUSE | types.RESUME:
            return {}
        case types.REDRIVE:
            return named(value, "QueueControl.redrive$Results")
        case types.LEASES:
            return {"leases": [named(each, "LeaseView") for each in value.found], "more": value.more}
    (field,) = schema().structs[CONTROLS.results[method]].fields
    return {field.name: plain(value, field)}


calls = st.sampled_from(sorted(CONTROL)).flatmap(lambda method: st.tuples(st.just(method), *CONTROL[method]))


def item_view(**waits):
    """An item that waits, or is leased."""
    state = types.ItemState.READY
    waits = types.Waits(**waits)
    return types.ItemView(
        id=bytes(16), state=state, contents=b"x", contents_bytes=1, added_at_ms=1, due_ms=2, waits=waits
    )


@pytest.mark.traced
@settings(derandomize=True, max_examples=examples(250))
@example(call=(types.GET, bytes(16), item_view(ahead=3, queue_paused=True)))
@example(call=(types.GET, bytes(16), item_view(lease=types.LeaseView(handle=b"h" * 8, items=1, ids=[bytes(16)]))))
@given(call=calls)
def test_a_method_of_control_there_and_back(pycapnp, call):
    method, request, response = call

    content = control.write_control_request(method, request)
    assert control.read_control_request(method, params(content)) == request
    fields = pycapnp.read(CONTROLS.params[method], [content])
    assert fields == control_fields(method, request)
    (again,) = pycapnp.build(CONTROLS.params[method], fields)
    assert control.read_control_request(method, params(again)) == request

    content = control.write_control_response(method, response)
    assert control.read_control_response(method, results(content)) == response
    fields = pycapnp.read(CONTROLS.results[method], [content])
    assert fields == reply_fields(method, response)
    (again,) = pycapnp.build(CONTROLS.results[method], fields)
    assert control.read_control_response(method, results(again)) == response


def test_an_enumerator_of_a_newer_server_is_a_placeholder():
    facts = api.DeliveryFacts(death=api.Death(7, 0, "mail"))
    item = api.PolledItem(bytes(1), bytes(16), 1, 0)
    (polled,) = api.write_poll_responses([api.PollResponse([item], bytes(16), 0, facts=(facts,))])
    written = api.write_settle_response(api.SettleResponse([api.Settled(7)]))
    (settled,) = api.read_settle_response(results(written)).settled
    listed = types.Listed(
        [types.ItemView(id=bytes(16), state=7, contents=b"", contents_bytes=0, added_at_ms=0, due_ms=0, facts=facts)],
        more=False,
    )
    (seen,) = read_again(types.PEEK, listed).found
    reason = api.read_poll_response(results(polled)).facts[0].death.reason
    for found, kind in (
        (reason, api.DeathReason),
        (settled.outcome, api.Outcome),
        (seen.state, ItemState),
        (seen.facts.death.reason, api.DeathReason),
        (read_again(types.CANCEL, 7), ControlOutcome),
    ):
        assert (type(found), found, found.name) == (kind, 7, "UNKNOWN_7")
        assert found not in list(kind)
        assert copy.deepcopy(found) == found


def read_again(method, response):
    return control.read_control_response(method, results(control.write_control_response(method, response)))


def test_the_parameters_of_other_methods_are_empty():
    for content in (api.write_ping_request(), api.write_dead_letters_request()):
        assert content == bytes(8)


def test_the_lease_of_a_poll_of_several_queues_is_read_alone():
    for lease in (b"", b"l" * 16):
        content = api.write_poll_any_response(api.PollAnyResponse("mail", api.PollResponse([], lease, 0)))
        assert api.read_poll_any_lease(results(content)) == lease
