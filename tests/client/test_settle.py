"""Items with options, settlements, dead items, sessions and polls of several queues: requests and results."""

import pytest

from queueber import api
from queueber.api import control
from queueber.api import control_types as types
from queueber.client import AddTo, Batch, DeathReason, DeliveryFacts, Outcome, Settled, Settlement, new_item
from queueber.errors import InvalidRequest, Kind, Unimplemented
from queueber.limits import DEFAULTS

ROOT = "the server's first object"
ID, LEASE, SESSION = bytes(range(16)), bytes(range(16, 32)), b"s" * 16
FACTS = DeliveryFacts(2, 1, 5, "no such file", (("trace", b"\0"),), None)


def exchanged(network, interface, method, content):
    """Answer the one call that is in flight with *content*; return it."""
    network.turn()
    (call,) = network.peer.calls()
    assert (call.interface_id, call.method_id) == (interface, method)
    network.peer.answer([content], call)
    return call


def test_items_are_added_with_their_options(network, client, success):
    adding = client.queue("mail").add_items(
        new_item(b"a", headers={"trace": bytearray(b"\1")}, dedup_key=b"k", until_removed=True, due_ms=9, expires_ms=8),
        new_item(b"b", delay_ms=5),
        request_id=ID,
    )
    duplicate = api.write_add_response(api.AddResponse([ID, LEASE], (1,)))
    call = exchanged(network, api.QUEUE_INTERFACE_ID, api.ADD, duplicate)
    assert api.read_add_request(call.params, DEFAULTS) == api.AddRequest(
        [
            api.NewItem(b"a", 0, api.ItemOptions((("trace", b"\1"),), b"k", True, 8, 9)),
            api.NewItem(b"b", 5),
        ],
        ID,
    )
    assert success(adding) == api.AddResponse([ID, LEASE], (1,))


def test_a_poll_with_a_session_gives_a_session_lease_and_facts(network, client, success):
    polling = client.default.poll(session=SESSION, lease_ms=7)
    items = [api.PolledItem(b"x", ID, 4, 1), api.PolledItem(b"y", ID, 1, 1)]
    response = api.PollResponse(items, LEASE, 0, True, (FACTS,))
    call = exchanged(network, api.QUEUE_INTERFACE_ID, api.POLL, api.write_poll_responses([response])[0])
    assert api.read_poll_request(call.params) == api.PollRequest(0, 1, None, False, SESSION)
    batch = success(polling)
    assert batch == Batch(batch.items, LEASE, 0, session=True, facts=(FACTS,))
    assert [(each.polled, each.lease, each.facts) for each in batch] == [
        (items[0], LEASE, FACTS),
        (items[1], LEASE, DeliveryFacts()),
    ]
    assert (batch.facts_of(0), batch.facts_of(1)) == (FACTS, DeliveryFacts())


def test_a_server_that_does_not_know_sessions_gives_a_lease_with_a_deadline(network, client, success):
    """The spans are sent with the session for such servers."""
    polling = client.default.poll(session=SESSION, lease_ms=1_500)
    response = api.PollResponse([api.PolledItem(b"x", ID, 1, 1)], LEASE, 9_000)
    call = exchanged(network, api.QUEUE_INTERFACE_ID, api.POLL, api.write_poll_responses([response])[0])
    _, request = api.requests.structs_of(call.params)
    poll = api.requests.layout("PollRequest").values(call.params.frame, request)
    assert (poll["leaseValidityMs"], poll["leaseValiditySecs"]) == (1_500, 2)
    batch = success(polling)
    assert batch == Batch(batch.items, LEASE, 9_000, session=False)


def test_entries_are_settled_in_order_with_adds(network, client, success):
    entries = [
        Settlement(LEASE, ID, api.Action.FAIL, 5, "broken"),
        Settlement(LEASE, b"", api.Action.REMOVE),
    ]
    adds = [AddTo("next", [new_item(b"z")])]
    settling = client.default.settle(*entries, adds=adds, all_or_nothing=True)
    response = api.SettleResponse(
        [Settled(Outcome.DONE, True, 0), Settled(Outcome.NOT_FOUND)], [api.AddResponse([ID])], changed=True
    )
    call = exchanged(network, api.QUEUE_INTERFACE_ID, api.SETTLE, api.write_settle_response(response))
    assert api.read_settle_request(call.params, DEFAULTS) == api.SettleRequest(entries, adds, all_or_nothing=True)
    assert success(settling) == response


@pytest.mark.parametrize(
    ("settle", "entry"),
    [
        (lambda queue: queue.fail(ID, LEASE), Settlement(LEASE, ID, api.Action.FAIL)),
        (lambda queue: queue.fail(ID, LEASE, "no", delay_ms=0), Settlement(LEASE, ID, api.Action.FAIL, 0, "no")),
        (lambda queue: queue.defer(ID, LEASE), Settlement(LEASE, ID, api.Action.DEFER)),
        (lambda queue: queue.defer(ID, LEASE, delay_ms=9), Settlement(LEASE, ID, api.Action.DEFER, 9)),
        (lambda queue: queue.reject(ID, LEASE, "bad"), Settlement(LEASE, ID, api.Action.REJECT, None, "bad")),
    ],
)
def test_one_item_is_settled(network, client, success, settle, entry):
    settling = settle(client.queue("mail"))
    response = api.write_settle_response(api.SettleResponse([Settled(Outcome.LEASE_LOST)], changed=False))
    call = exchanged(network, api.QUEUE_INTERFACE_ID, api.SETTLE, response)
    assert (call.target, api.read_settle_request(call.params, DEFAULTS)) == ("mail", api.SettleRequest([entry], []))
    assert success(settling) == Settled(Outcome.LEASE_LOST)


def test_a_server_without_an_outcome_for_the_entry_breaks_the_protocol(network, client, failure):
    settling = client.default.defer(ID, LEASE)
    exchanged(network, api.QUEUE_INTERFACE_ID, api.SETTLE, api.write_settle_response(api.SettleResponse([])))
    assert "a settle of one entry has 0 outcomes" in str(failure(settling))


def test_dead_items_are_a_queue(network, client, success):
    for queue, target in (
        (client.default, "dead of the server's first object"),
        (client.queue("mail"), "dead of mail"),
    ):
        dead = queue.dead_letters()
        polling = dead.poll()
        death = api.Death(DeathReason.REJECTED, 7, "mail")
        response = api.PollResponse([api.PolledItem(b"x", ID, 1, 1)], LEASE, 9, False, (FACTS._replace(death=death),))
        content = api.write_poll_responses([response])[0]
        assert exchanged(network, api.QUEUE_INTERFACE_ID, api.POLL, content).target == target
        assert success(polling).facts_of(0).death == death
        with pytest.raises(InvalidRequest, match="the queue of dead items has no dead items of its own"):
            dead.dead_letters()
    assert repr(client.default.dead_letters()) == "<Queue of the dead items of default>"
    assert repr(dead) == "<Queue of the dead items of mail>"
    network.turn()
    assert network.peer.connection.stats().answers == 0


def test_an_old_server_knows_no_dead_items(network, client, failure):
    network.peer.is_old = True
    polling = client.queue("mail").dead_letters().poll()
    network.turn()
    found = failure(polling)
    assert isinstance(found, Unimplemented)
    assert str(found) == ("the server does not know Queue.deadLetters, which is newer than the server: no method 5")


def test_dead_items_of_a_queue_that_is_refused_fail_for_its_reason(network, client, failure):
    polling = client.queue("forbidden").dead_letters().poll()
    network.turn()
    assert str(failure(polling)) == "no more queues"


@pytest.mark.parametrize(
    ("call", "method"),
    [
        (lambda client: client.default.settle(Settlement(LEASE, ID, api.Action.REMOVE)), "Queue.settle"),
        (lambda client: client.default.fail(ID, LEASE), "Queue.settle"),
        (lambda client: client.attach(SESSION), "Broker.attach"),
        (lambda client: client.ping(), "Broker.ping"),
        (lambda client: client.queues(), "Broker.queues"),
        (lambda client: client.poll_any(["mail"]), "Broker.pollAny"),
        (lambda client: client.control("mail").stats(), "QueueControl.stats"),
    ],
)
def test_the_error_of_an_old_server_names_the_method(network, client, failure, call, method):
    calling = call(client)
    network.turn()
    (called,) = network.peer.calls()
    network.peer.connection.return_exception(called.answer, Kind.UNIMPLEMENTED, "unknown")
    network.peer.send()
    found = failure(calling)
    assert isinstance(found, Unimplemented)
    assert str(found) == f"the server does not know {method}, which is newer than the server: unknown"


def test_a_session_is_attached_and_pinged(network, client, success):
    attaching = client.attach(SESSION, grace_ms=12_000)
    response = api.AttachResponse([api.SessionLease(LEASE, "mail", [ID])], 12_000, 30_000, more=True)
    call = exchanged(network, api.BROKER_INTERFACE_ID, api.ATTACH, api.write_attach_response(response))
    assert api.read_attach_request(call.params) == api.AttachRequest(SESSION, 12_000)
    assert success(attaching) == response
    attaching = client.attach(SESSION, more=True)
    call = exchanged(network, api.BROKER_INTERFACE_ID, api.ATTACH, api.write_attach_response(response))
    assert api.read_attach_request(call.params) == api.AttachRequest(SESSION, more=True)
    assert success(attaching) == response

    pinging = client.ping()
    exchanged(network, api.BROKER_INTERFACE_ID, api.PING, api.write_ping_response([LEASE]))
    assert success(pinging) == [LEASE]


@pytest.mark.parametrize(
    ("queues", "sent"),
    [(["mail", "jobs"], [("mail", 1), ("jobs", 1)]), ({"jobs": 5, "mail": 1}, [("jobs", 5), ("mail", 1)])],
)
def test_several_queues_are_polled(network, client, success, queues, sent):
    polling = client.poll_any(queues, 3, lease_ms=10, wait_ms=20, strict=True)
    poll = api.PollResponse([api.PolledItem(b"x", ID, 1, 1)], LEASE, 9)
    content = api.write_poll_any_response(api.PollAnyResponse("jobs", poll))
    call = exchanged(network, api.BROKER_INTERFACE_ID, api.POLL_ANY, content)
    assert api.read_poll_any_request(call.params, DEFAULTS) == api.PollAnyRequest(
        sent, True, api.PollRequest(10, 3, 20, False)
    )
    name, batch = success(polling)
    assert (name, batch) == ("jobs", Batch(batch.items, LEASE, 9))
    (item,) = batch
    assert item.polled == poll.items[0]
    removing = item.remove()
    network.turn()
    (call,) = network.peer.calls()
    assert (call.target, api.read_remove_request(call.params)) == ("jobs", api.RemoveRequest(ID, LEASE))
    assert item.settled
    assert not removing.called
    removing.addErrback(lambda _: None)


def test_queues_are_listed(network, client, success):
    listing = client.queues("ma", label=("team", "post"), after="mail", limit=2)
    summary = types.QueueSummary(name="mars", stats=types.QueueCounts(items=3), labels=(("team", "post"),))
    found = types.Listed([summary], more=True)
    call = exchanged(network, api.BROKER_INTERFACE_ID, api.QUEUES, control.write_queues_response(found))
    assert control.read_queues_request(call.params) == types.QueuesRequest(
        prefix="ma", label=("team", "post"), after="mail", limit=2
    )
    assert success(listing) == found
