"""The Python client and a server, both real, joined in memory: every method that is newer than the original schema."""

import pytest
from joined import Joined
from twisted.internet.defer import CancelledError

from queueber.client import Action, AddTo, Batch, DeathReason, DeliveryFacts, Outcome, Settlement, new_item
from queueber.errors import InvalidRequest
from queueber.values import ControlOutcome, ItemState

SESSION, LEASE_MS = b"s" * 16, 1_000


@pytest.fixture
def joined():
    return Joined()


@pytest.fixture
def queue(joined):
    return joined.client().queue("mail")


def test_facts_of_an_item_that_was_lost(joined, queue):
    joined.result(queue.add(b"lost"))
    first = joined.result(queue.poll(lease_ms=LEASE_MS))
    assert (first.facts, first.facts_of(0)) == ((), DeliveryFacts())
    joined.pass_time(2)
    again = joined.result(queue.poll())
    assert (again.items[0].attempt, again.facts_of(0).losses, again.facts_of(0).failures) == (2, 1, 0)


def test_a_session_holds_its_lease_over_a_reconnection(joined):
    client = joined.client()
    queue = client.queue("mail")
    attached = joined.result(client.attach(SESSION, grace_ms=60_000))
    assert (attached.leases, attached.grace) == ([], 60_000)
    joined.result(queue.add(b"held"))
    batch = joined.result(queue.poll(session=SESSION, lease_ms=LEASE_MS))
    assert (batch.session, batch.deadline) == (True, 0)
    assert joined.result(client.ping()) == []
    other = joined.client()
    (held,) = joined.result(other.attach(SESSION, grace_ms=60_000)).leases
    assert (held.lease, held.queue, held.ids) == (batch.lease, "mail", [batch.items[0].id])
    joined.pass_time(2)
    assert joined.result(other.queue("mail").remove(batch.items[0].id, batch.lease)) is True


def test_items_with_options_are_added_and_polled(joined, queue):
    added = joined.result(queue.add_items(new_item(b"a", delay_ms=5), new_item(b"b")))
    assert (len(added.ids), added.duplicates) == (2, ())
    assert [item.contents for item in joined.result(queue.poll(2)).items] == [b"b"]


def test_headers_are_delivered_and_a_point_in_time_is_a_due(joined, queue):
    later = joined.server.clock.now() + 5_000
    joined.result(queue.add_items(new_item(b"later", due_ms=later), new_item(b"a", headers={"trace": b"\1"})))
    batch = joined.result(queue.poll(2))
    assert [item.contents for item in batch.items] == [b"a"]
    assert batch.facts_of(0).headers == (("trace", b"\1"),)
    assert joined.result(queue.poll(wait_ms=0)).items == ()
    joined.pass_time(6)
    assert [item.contents for item in joined.result(queue.poll()).items] == [b"later"]


def test_items_are_failed_deferred_and_rejected(joined, queue):
    joined.result(queue.add(b"fails", b"is deferred", b"is rejected"))
    batch = joined.result(queue.poll(3))
    fails, deferred, rejected = [item.id for item in batch.items]
    assert joined.result(queue.fail(fails, batch.lease, "broken", delay_ms=0)).outcome is Outcome.DONE
    assert joined.result(queue.defer(deferred, batch.lease)).outcome is Outcome.DONE
    assert joined.result(queue.reject(rejected, batch.lease, "poison")).died
    assert joined.result(queue.reject(rejected, batch.lease)).outcome in {Outcome.LEASE_LOST, Outcome.NOT_FOUND}

    joined.pass_time(0.01)
    again = joined.result(queue.poll(3))
    facts = {item.id: again.facts_of(place) for place, item in enumerate(again.items)}
    assert {item.id: item.attempt for item in again.items} == {fails: 2, deferred: 1}
    assert (facts[fails].failures, facts[fails].losses, facts[fails].last_error) == (1, 0, "broken")
    assert facts[deferred].failures == 0

    dead = queue.dead_letters()
    buried = joined.result(dead.poll())
    death = buried.facts_of(0).death
    assert (buried.items[0].id, death.reason, death.queue) == (rejected, DeathReason.REJECTED, "mail")
    with pytest.raises(InvalidRequest, match="dead items"):
        joined.result(dead.add(b"x"))
    assert joined.result(dead.remove(rejected, buried.lease)) is True


def test_a_hand_off_is_one_commit(joined, queue):
    client = joined.client()
    joined.result(queue.add(b"first", b"second"))
    batch = joined.result(queue.poll(2))
    first, second = [Settlement(batch.lease, item.id, Action.REMOVE) for item in batch.items]
    adds = [AddTo("next", [new_item(b"step", headers={"from": b"mail"})])]
    moved = joined.result(client.default.settle(first, adds=adds))
    assert moved.changed and len(moved.added[0].ids) == 1
    refused = joined.result(client.default.settle(second, first, adds=adds))
    assert not refused.changed
    assert refused.settled[1].outcome is not Outcome.DONE
    taken = joined.result(client.queue("next").poll(9))
    assert [item.contents for item in taken.items] == [b"step"]
    assert joined.result(queue.settle(second)).changed


def test_a_cancelled_poll_counts_nothing(joined, queue):
    """Its items were on their way; they are deferred, and the attempt is the first again."""
    joined.result(queue.add(b"x"))
    polling = queue.poll()
    joined.server.reactor.advance(0)
    ((_, transport, peer, _),) = joined.links
    peer.dataReceived(transport.value())
    transport.clear()
    joined.server.settle()
    polling.addErrback(lambda failure: failure.trap(CancelledError))
    polling.cancel()
    joined.settle()
    (item,) = joined.result(queue.poll(wait_ms=0)).items
    assert (item.contents, item.attempt) == (b"x", 1)


def test_a_call_that_is_repeated_adds_once(joined, queue):
    first = joined.result(queue.add_items(new_item(b"x"), request_id=SESSION))
    again = joined.result(queue.add_items(new_item(b"x"), request_id=SESSION))
    assert (again.ids, again.duplicates) == (first.ids, ())
    one = joined.result(queue.add_items(new_item(b"y", dedup_key=b"k")))
    other = joined.result(queue.add_items(new_item(b"z", dedup_key=b"k"), new_item(b"new")))
    assert (other.ids[0], other.duplicates) == (one.ids[0], (0,))
    batch = joined.result(queue.poll(9))
    assert [item.contents for item in batch.items] == [b"x", b"y", b"new"]


def test_a_queue_is_configured_looked_into_and_emptied(joined, queue):
    client = joined.client()
    control = client.control("mail")
    one, two = joined.result(queue.add(b"one", b"two"))
    assert joined.result(control.configure(max_attempts=3, labels={"team": "post"})).max_attempts == 3
    found = joined.result(control.settings())
    assert found.settings.labels == (("team", "post"),)
    assert {"max_attempts", "labels"}.isdisjoint(found.defaults)
    listed = joined.result(client.queues(label=("team", "post")))
    assert ([each.name for each in listed.found], listed.more) == (["mail"], False)

    peeked = joined.result(control.peek(limit=1, contents_bytes=2))
    assert ([each.contents for each in peeked.found], peeked.more) == ([b"on"], True)
    (rest,) = joined.result(control.peek(after=peeked.found[0].place)).found
    assert (rest.id, rest.contents) == (two, b"two")
    batch = joined.result(queue.poll())
    got = joined.result(control.get(one))
    assert (got.state, got.waits.lease.items) == (ItemState.LEASED, 1)
    assert joined.result(control.cancel(one)) is ControlOutcome.LEASED
    assert joined.result(control.cancel(two)) is ControlOutcome.DONE
    assert joined.result(control.get(two)) is None

    (lease,) = joined.result(control.leases()).found
    assert lease.ids == [one]
    assert joined.result(queue.remove(one, lease.handle)) is False
    assert joined.result(control.end_lease(lease.handle)) is True
    joined.pass_time(0.01)
    assert joined.result(queue.remove(one, batch.lease)) is False
    counts = joined.result(control.stats(exact=True))
    assert (counts.items, counts.leased, counts.removed) == (1, 0, counts.added - 1)
    joined.result(control.pause())
    assert joined.result(queue.poll(wait_ms=0)).items == ()
    joined.result(control.resume())
    later = joined.server.clock.now() + 5_000
    assert joined.result(control.reschedule(one, later)) is ControlOutcome.DONE
    assert joined.result(queue.poll(wait_ms=0)).items == ()
    assert joined.result(control.kick(one)) is ControlOutcome.DONE
    joined.pass_time(0.01)
    assert joined.result(control.purge()) == 1
    assert joined.result(control.delete()) is ControlOutcome.DONE


def test_dead_items_are_moved_back(joined, queue):
    joined.result(queue.add(b"x"))
    batch = joined.result(queue.poll())
    assert joined.result(queue.reject(batch.items[0].id, batch.lease)).died
    control = joined.client().control("mail")
    assert joined.result(control.redrive(reason=DeathReason.LOST)).moved == 0
    moved = joined.result(control.redrive([batch.items[0].id], to="jobs"))
    assert (moved.moved, moved.more) == (1, False)
    joined.pass_time(0.01)
    again = joined.result(joined.client().queue("jobs").poll())
    assert (again.items[0].attempt, again.facts_of(0).death.reason) == (1, DeathReason.REJECTED)


def test_several_queues_are_polled(joined):
    client = joined.client()
    joined.result(client.queue("second").add(b"x"))
    name, batch = joined.result(client.poll_any({"first": 3, "second": 1}))
    assert (name, [item.contents for item in batch.items]) == ("second", [b"x"])
    assert joined.result(client.poll_any(["first", "second"], wait_ms=0)) == ("", Batch((), b"", 0))
