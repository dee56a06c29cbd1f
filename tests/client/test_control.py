"""The control of a queue: the request of each method, and its result."""

import pytest
from interface_values import CONTROL

from queueber.api import control
from queueber.api import control_types as types
from queueber.errors import InvalidRequest
from queueber.values import ControlOutcome, DeathReason, ItemState

ID, LEASE = bytes(range(16)), bytes(range(16, 32))
ITEM = types.ItemView(
    id=ID, state=ItemState.READY, contents=b"x", contents_bytes=1, added_at_ms=1, due_ms=2, place=b"p"
)
LEASED = types.LeaseView(handle=LEASE, items=1, deadline_ms=9, ids=[ID])
SETTINGS = types.QueueSettings(max_attempts=5)

CALLS = {
    "stats": (lambda it: it.stats(exact=True), types.STATS, True, types.QueueCounts(items=1)),
    "settings": (
        lambda it: it.settings(),
        types.SETTINGS,
        None,
        types.SettingsInForce(settings=SETTINGS, defaults=["lease_ms"]),
    ),
    "configure": (
        lambda it: it.configure(max_attempts=5, drop_expired=True, labels={"team": "post"}),
        types.CONFIGURE,
        types.ConfigureRequest(
            names=["max_attempts", "drop_expired", "labels"],
            settings=types.QueueSettings(max_attempts=5, drop_expired=True, labels=(("team", "post"),)),
            reset=[],
        ),
        SETTINGS,
    ),
    "configure with resets": (
        lambda it: it.configure(reset=["ttl_ms", "labels"], max_attempts=5),
        types.CONFIGURE,
        types.ConfigureRequest(
            names=["max_attempts"], settings=types.QueueSettings(max_attempts=5), reset=["ttl_ms", "labels"]
        ),
        SETTINGS,
    ),
    "peek": (lambda it: it.peek(), types.PEEK, types.PeekRequest(), types.Listed([ITEM], True)),
    "peek at some": (
        lambda it: it.peek(ItemState.DEAD, after=b"p", limit=3, contents_bytes=7),
        types.PEEK,
        types.PeekRequest(state=ItemState.DEAD, after=b"p", limit=3, contents_bytes=7),
        types.Listed([], False),
    ),
    "get": (lambda it: it.get(ID), types.GET, ID, ITEM),
    "get nothing": (lambda it: it.get(ID), types.GET, ID, None),
    "cancel": (lambda it: it.cancel(ID), types.CANCEL, ID, ControlOutcome.LEASED),
    "kick": (lambda it: it.kick(ID), types.KICK, ID, ControlOutcome.DONE),
    "reschedule": (
        lambda it: it.reschedule(ID, 9),
        types.RESCHEDULE,
        types.RescheduleRequest(id=ID, due_ms=9),
        ControlOutcome.NOT_FOUND,
    ),
    "purge": (lambda it: it.purge(dead=True), types.PURGE, True, 12),
    "pause": (lambda it: it.pause(), types.PAUSE, types.PauseRequest(adds=False, polls=True), None),
    "resume": (lambda it: it.resume(), types.RESUME, types.PauseRequest(adds=True, polls=True), None),
    "redrive": (
        lambda it: it.redrive([bytearray(ID)], reason=DeathReason.LOST, limit=4, to="jobs"),
        types.REDRIVE,
        types.RedriveRequest(ids=[ID], reason=DeathReason.LOST, limit=4, to="jobs"),
        types.Redriven(moved=4, more=True),
    ),
    "leases": (
        lambda it: it.leases(after=LEASE, limit=5),
        types.LEASES,
        types.LeasesRequest(after=LEASE, limit=5),
        types.Listed([LEASED], False),
    ),
    "end_lease": (lambda it: it.end_lease(LEASE), types.END_LEASE, LEASE, True),
    "delete": (lambda it: it.delete(force=True), types.DELETE, True, ControlOutcome.NOT_EMPTY),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_of_control(network, client, success, name):
    call, method, request, response = CALLS[name]
    calling = call(client.control("mail"))
    network.turn()
    (called,) = network.peer.calls()
    assert (called.target, called.interface_id, called.method_id) == (
        "control of mail",
        types.CONTROL_INTERFACE_ID,
        method,
    )
    assert control.read_control_request(method, called.params) == request
    content = control.write_control_response(method, response)
    network.peer.answer([content], called)
    assert success(calling) == response
    network.turn()
    assert network.peer.connection.stats().answers == 0


def test_every_method_is_called():
    assert {method for _, method, _, _ in CALLS.values()} == CONTROL.keys()


def test_a_control_shows_its_queue(client):
    assert repr(client.control("mail")) == "<QueueControl mail>"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lease": 1}, "there is no setting lease; it must be one of lease_ms, max_lease_ms, "),
        ({"reset": ["lease"]}, "reset is ['lease'] (list); it must be a list of fields of QueueSettings"),
        ({"reset": "lease_ms"}, "reset is 'lease_ms' (str); it must be a list of names"),
        ({"lease_ms": -1}, "lease_ms is -1 ms; the least is 0"),
        ({"lease_ms": "1"}, "lease_ms is '1' (str); it must be a whole number of ms"),
        ({"max_attempts": 1 << 32}, "max_attempts is 4,294,967,296 attempts; the limit is 4,294,967,295"),
        ({"drop_expired": 1}, "drop_expired is 1 (int); it must be True or False"),
        ({"labels": "team"}, "labels is 'team' (str); it must be a mapping of names to values"),
        ({"labels": {"team": 5}}, "labels[0] is ('team', 5) (tuple); it must be a name and a value"),
        ({"labels": ["ab"]}, "labels[0] is 'ab' (str); it must be a name and a value"),
        ({"labels": [("a", "\ud800")]}, "labels[0] is not UTF-8: "),
    ],
)
def test_a_setting_that_cannot_be_had_is_refused(client, failure, changes, said):
    found = failure(client.control("mail").configure(**changes))
    assert isinstance(found, InvalidRequest)
    assert str(found).startswith(said)
