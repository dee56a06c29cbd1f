"""Requests with other than plain fields beyond their limits: the error names the field, the limit and the value."""

import pytest
from interface_values import params, results

from queueber import api
from queueber.api import control
from queueber.api import control_types as types
from queueber.capnp import reader
from queueber.capnp.builder import Body, data_body, pointers_body, segment, struct_body, structs_body
from queueber.capnp.layout import layout
from queueber.errors import InvalidRequest, RemoteProtocolError
from queueber.limits import Limits
from queueber.rpc.messages import NO_CONTENT

LIMITS = Limits(lease_ms=1_000, delay_ms=500, items_per_add=3, contents_bytes=8, add_bytes=20)
ID = b"i" * 16
LEASE = b"l" * 16


def add(**fields):
    return api.read_add_request(params(layout("Queue.add$Params").build(req=fields)), LIMITS)


def options(*each):
    return add(items=[{}] * max(1, len(each)), options=each)


def poll(**fields):
    return api.read_poll_request(params(layout("Queue.poll$Params").build(req=fields)), LIMITS)


def settle(**fields):
    return api.read_settle_request(params(layout("Queue.settle$Params").build(req=fields)), LIMITS)


def entry(**fields):
    return settle(entries=[{"lease": LEASE}, {"lease": LEASE, **fields}])


def adds(*each):
    return settle(adds=each)


def poll_any(**fields):
    return api.read_poll_any_request(params(layout("Broker.pollAny$Params").build(req=fields)), LIMITS)


def attach(**fields):
    return api.read_attach_request(params(layout("Broker.attach$Params").build(**fields)))


def queues(**fields):
    return control.read_queues_request(params(layout("Broker.queues$Params").build(**fields)))


def controlled(method, **fields):
    name = f"QueueControl.{method}$Params"
    number = getattr(types, {"endLease": "END_LEASE"}.get(method, method.upper()))
    return control.read_control_request(number, params(layout(name).build(**fields)))


def header(name="n", value=b""):
    return {"name": name, "value": value}


REFUSED = {
    "requestId is 15 bytes; it must be 16": lambda: add(requestId=bytes(15)),
    "options is 2 elements; the limit is 1": lambda: add(items=[{}], options=[{}, {}]),
    "options[1].headers is 65 elements; the limit is 64": lambda: options({}, {"headers": [header()] * 65}),
    "options[0].headers[1].name is empty": lambda: options({"headers": [header(), header("")]}),
    "options[0].headers[0].name is 256 bytes; the limit is 255": lambda: options({"headers": [header("x" * 256)]}),
    "options[0].headers[0].value is 4,097 bytes; the limit is 4,096": lambda: options(
        {"headers": [header("x", bytes(4_097))]}
    ),
    "headers up to options[0].headers[1] is 4,097 bytes; the limit is 4,096": lambda: options(
        {"headers": [header("ü", bytes(2_000)), header("xyz", bytes(2_092))]}
    ),
    "options[0].dedupKey is 256 bytes; the limit is 255": lambda: options({"dedupKey": bytes(256)}),
    "session is 17 bytes; it must be 16": lambda: poll(session=bytes(17)),
    "entries is 1,001 elements; the limit is 1,000": lambda: settle(entries=[{}] * 1_001),
    "entries[0].lease is 0 bytes; it must be 16": lambda: settle(entries=[{}]),
    "entries[1].id is 1 byte; it must be 16": lambda: entry(id=b"?"),
    "entries[1].action is 5; the last that this server knows is 4 (EXTEND)": lambda: entry(action=5),
    "entries[1].delayMs is 501 ms; the limit is 500": lambda: entry(
        action=api.Action.DEFER, hasDelay=True, delayMs=501
    ),
    "entries[1].delayMs is 1,001 ms; the limit is 1,000": lambda: entry(action=4, hasDelay=True, delayMs=1_001),
    "entries[1].error is 4,097 bytes; the limit is 4,096": lambda: entry(error="x" * 4_097),
    "adds[1].queue is 256 bytes; the limit is 255": lambda: adds({}, {"queue": "x" * 256}),
    "adds is 4 elements; the limit is 3": lambda: adds({}, {}, {}, {}),
    "adds[1].items is 4 items; the limit is 3": lambda: adds({}, {"items": [{}] * 4}),
    "items up to adds[1] is 4 items; the limit is 3": lambda: adds({"items": [{}] * 2}, {"items": [{}] * 2}),
    "items up to adds[1] is 24 bytes; the limit is 20": lambda: adds(
        {"items": [{"contents": bytes(8)}] * 2}, {"items": [{"contents": bytes(8)}]}
    ),
    "adds[0].items[0].contents is 9 bytes; the limit is 8": lambda: adds({"items": [{"contents": bytes(9)}]}),
    "adds[0].items[1].visibilityTimeoutMs is 501 ms": lambda: adds({"items": [{}, {"visibilityTimeoutMs": 501}]}),
    "adds[0].options[0].dedupKey is set": lambda: adds({"items": [{}], "options": [{"dedupKey": b"k"}]}),
    "queues is empty; it must be 1 to 64 queues": poll_any,
    "queues is 65 elements; the limit is 64": lambda: poll_any(queues=[{}] * 65),
    "queues[1].weight is 0; it must be 1 to 1,000": lambda: poll_any(queues=[{}, {"weight": 0}]),
    "queues[0].weight is 1,001; it must be 1 to 1,000": lambda: poll_any(queues=[{"weight": 1_001}]),
    "queues[0].queue is 256 bytes": lambda: poll_any(queues=[{"queue": "x" * 256}]),
    "leaseValidityMs is 1,001 ms": lambda: poll_any(queues=[{}], poll={"leaseValidityMs": 1_001}),
    "session is 15 bytes; it must be 16": lambda: attach(session=bytes(15)),
    "prefix is 256 bytes; the limit is 255": lambda: queues(prefix="x" * 256),
    "after is 256 bytes; the limit is 255": lambda: queues(after="x" * 256),
    "label.name is 64 bytes; the limit is 63": lambda: queues(label={"name": "x" * 64}),
    "label.value is 64 bytes; the limit is 63": lambda: queues(label={"name": "x", "value": "x" * 64}),
    "fields is 18 elements; the limit is 17": lambda: controlled("configure", fields=["leaseMs"] * 18),
    "fields[1] is 'LeaseMs'; a setting that can be changed is one of backoffBaseMs, ": lambda: controlled(
        "configure", fields=["leaseMs", "LeaseMs"]
    ),
    "fields[0] is 'addsPaused'": lambda: controlled("configure", fields=["addsPaused"]),
    "reset[1] is 'pollsPaused'": lambda: controlled("configure", reset=["leaseMs", "pollsPaused"]),
    "reset is 18 elements; the limit is 17": lambda: controlled("configure", reset=["leaseMs"] * 18),
    "fields[0] is 14 bytes; the limit is 13": lambda: controlled("configure", fields=["x" * 14]),
    "settings.labels is 17 elements; the limit is 16": lambda: controlled(
        "configure", settings={"labels": [{"name": "x"}] * 17}
    ),
    "settings.labels[0].name is 64 bytes; the limit is 63": lambda: controlled(
        "configure", settings={"labels": [{"name": "x" * 64}]}
    ),
    "states is 2 elements; the limit is 1": lambda: controlled("peek", req={"states": [0, 1]}),
    "states[0] is leased; only ready, delayed and dead items have an order": lambda: controlled(
        "peek", req={"states": [2]}
    ),
    "states[0] is 4; the last that this server knows is 3 (DEAD)": lambda: controlled("peek", req={"states": [4]}),
    "after is 65 bytes; the limit is 64": lambda: controlled("peek", req={"after": bytes(65)}),
    "id is 3 bytes; it must be 16": lambda: controlled("get", id=b"abc"),
    "id is 0 bytes; it must be 16": lambda: controlled("reschedule"),
    "ids is 1,001 elements; the limit is 1,000": lambda: controlled("redrive", req={"ids": [ID] * 1_001}),
    "ids[1] is 2 bytes; it must be 16": lambda: controlled("redrive", req={"ids": [ID, b"ab"]}),
    "reason is 5; the last that this server knows is 4 (EXPIRED)": lambda: controlled("redrive", req={"reason": 5}),
    "to is 256 bytes": lambda: controlled("redrive", req={"to": "x" * 256}),
    "after is 33 bytes; the limit is 32": lambda: controlled("leases", after=bytes(33)),
    "lease is 33 bytes; the limit is 32": lambda: controlled("endLease", lease=bytes(33)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_the_error_names_the_field_the_value_and_the_limit(reason):
    with pytest.raises(InvalidRequest) as refused:
        REFUSED[reason]()
    assert str(refused.value).startswith(reason)


def test_values_at_their_limits_are_taken():
    headers = [header("ü", bytes(2_000)), header("xy", bytes(2_092))]
    (item,) = options({"headers": headers, "dedupKey": bytes(255)}).items
    assert sum(len(name.encode()) + len(value) for name, value in item.options.headers) == 4_096
    assert len(settle(entries=[{"lease": LEASE, "error": "x" * 4_096}] * 1_000).entries) == 1_000
    assert poll_any(queues=[{"queue": "x" * 255, "weight": 1_000}] * 64).queues[-1] == ("x" * 255, 1_000)
    assert queues(label={"name": "x" * 63, "value": "y" * 63}).label == ("x" * 63, "y" * 63)
    assert len(controlled("redrive", req={"ids": [ID] * 1_000}).ids) == 1_000


def test_limits_of_lists_are_clamped_and_have_defaults():
    assert [queues(limit=limit).limit for limit in (0, 1, 1_000, 5_000)] == [1_000, 1, 1_000, 1_000]
    assert [controlled("peek", req={"limit": limit}).limit for limit in (0, 5_000)] == [10, 1_000]
    assert [controlled("leases", limit=limit).limit for limit in (0, 5_000)] == [1_000, 1_000]
    assert [controlled("redrive", req={"limit": limit}).limit for limit in (0, 5_000)] == [1_000, 1_000]


def test_null_is_the_default_everywhere():
    assert api.read_settle_request(NO_CONTENT, LIMITS) == api.SettleRequest([], [], all_or_nothing=False)
    assert control.read_queues_request(NO_CONTENT) == types.QueuesRequest()
    assert controlled("peek") == types.PeekRequest()
    assert controlled("redrive") == types.RedriveRequest(ids=[])
    assert controlled("configure") == types.ConfigureRequest(names=[], settings=types.QueueSettings(), reset=[])
    assert controlled("stats") is False
    for read in (api.read_attach_request, lambda content: control.read_control_request(types.GET, content)):
        with pytest.raises(InvalidRequest, match="is 0 bytes; it must be 16"):
            read(NO_CONTENT)


def test_items_beyond_the_options_have_none_and_empty_options_are_none():
    assert [item.options for item in add(items=[{}] * 3, options=[{}, {"dueMs": 5}]).items] == [
        None,
        api.ItemOptions(due=5),
        None,
    ]


def test_a_session_replaces_the_spans_of_the_lease():
    """They are there for servers that do not know sessions, and may be too long for this one."""
    request = poll(session=ID, leaseValidityMs=1_001, numItems=3)
    assert request == api.PollRequest(0, 3, None, no_wait=False, session=ID)


def test_a_text_that_is_not_utf_8_is_refused():
    name = struct_body([], [data_body(b"\xff\0")])
    with pytest.raises(InvalidRequest, match="prefix is not UTF-8"):
        control.read_queues_request(params(segment(name)))
    for broken in (data_body(b"x"), struct_body([1], [])):
        with pytest.raises(RemoteProtocolError):
            control.read_queues_request(params(segment(struct_body([], [broken]))))


def test_lists_are_counted_before_they_are_walked(monkeypatch):
    """A million entries without a size fit in 32 bytes, and four million numbers in a frame."""
    nothing = Body(1 | 7 << 32, [(1_000_000 << 2).to_bytes(8, "little")], 1)
    with pytest.raises(InvalidRequest, match="entries is 1,000,000 elements; the limit is 1,000"):
        api.read_settle_request(params(segment(struct_body([], [struct_body([], [nothing])]))), LIMITS)
    monkeypatch.setattr(reader, "_widened", lambda *_: pytest.fail("widened"))
    numbers = Body(1 | 3 << 32 | 8_000 << 35, [bytes(16_000)], 2_000)
    with pytest.raises(InvalidRequest, match="states is 8,000 elements; the limit is 1"):
        control.read_control_request(types.PEEK, params(segment(struct_body([], [struct_body([0, 0], [numbers])]))))


def test_nothing_beyond_a_limit_is_copied():
    """The message is not even long enough for what its pointer says."""
    huge = Body(1 | 2 << 32 | 5_000 << 35, [bytes(5_000)], 625)
    for slot, said in ((0, "lease is 5,000 bytes"), (2, "error is 4,999 bytes; the limit is 4,096")):
        pointers = [data_body(LEASE), None, None]
        pointers[slot] = huge
        entries = structs_body(2, 3, [((0, 0), pointers)])
        with pytest.raises(InvalidRequest, match=said):
            api.read_settle_request(params(segment(struct_body([], [struct_body([0], [entries])]))), LIMITS)


def test_ids_may_have_become_structs():
    upgraded = structs_body(1, 1, [((7,), [data_body(ID)])])
    request = struct_body([0], [upgraded])
    found = control.read_control_request(types.REDRIVE, params(segment(struct_body([], [request]))))
    assert found.ids == [ID]
    assert (
        control.read_control_request(
            types.REDRIVE, params(segment(struct_body([], [struct_body([0], [pointers_body([])])])))
        ).ids
        == []
    )


def test_results_of_a_shorter_schema_have_defaults():
    nothing = results(segment(struct_body([], [None])))
    assert api.read_settle_response(nothing) == api.SettleResponse([], [], changed=False)
    assert api.read_attach_response(nothing) == api.AttachResponse([], 0, 0)
    assert api.read_poll_any_response(nothing) == api.PollAnyResponse("", api.PollResponse([], b"", 0))
    assert control.read_control_response(types.STATS, nothing) == types.QueueCounts()
    assert control.read_control_response(types.SETTINGS, nothing) == types.SettingsInForce(
        settings=types.QueueSettings(), defaults=[]
    )
    assert control.read_control_response(types.GET, nothing) is None
    content = layout("QueueControl.get$Results").build(found=True, item={"state": 1})
    item = control.read_control_response(types.GET, results(content))
    assert (item.state, item.facts, item.waits) == (types.ItemState.DELAYED, api.DeliveryFacts(), None)


@pytest.mark.parametrize("added", [[], [api.AddResponse([ID])]])
def test_a_settle_says_what_it_added(added):
    response = api.SettleResponse([], added, changed=True)
    assert api.read_settle_response(results(api.write_settle_response(response))) == response
