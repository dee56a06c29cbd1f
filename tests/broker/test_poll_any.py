"""Polls of several queues."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queueber.broker.waiter import PollState
from queueber.errors import InvalidRequest
from tests.support.examples import examples

NAMES = ("one", "two", "three")


@pytest.fixture
def poll_any(harness):
    def poll_any(*names, wanted=1, weights=(), wait=None, peer="p"):
        queue, *others = map(harness.broker.queue, names)
        return harness.broker.poll(
            queue,
            wanted=wanted,
            lease_duration=1000,
            wait=wait,
            peer=peer,
            now=harness.now,
            others=others,
            weights=weights,
        )

    return poll_any


def places(harness):
    """Return the number of polls that wait in each queue."""
    return [len(harness.broker.queue(name).waiters) for name in NAMES]


class TestStrict:
    def test_takes_from_the_first_queue_that_has_an_item(self, harness, poll_any):
        for name in reversed(NAMES):
            harness.add(name.encode(), name=name)

        for name in NAMES:
            poll_any(*NAMES)
            (delivery,) = harness.distribute()
            assert delivery.waiter.queue.name == name
            assert [item.contents for item in delivery.items] == [name.encode()]

    def test_waits_in_all_and_leaves_all_when_it_is_claimed(self, harness, poll_any):
        poll_any(*NAMES)
        assert harness.distribute() == []
        assert places(harness) == [1, 1, 1]

        harness.add(b"x", name="three")
        harness.add(b"y", name="two")

        (delivery,) = harness.distribute()
        assert delivery.waiter.queue.name == "two"
        assert places(harness) == [0, 0, 0]
        assert harness.broker.polls.waiting == harness.broker.polls.choosing == 0

    def test_waits_for_the_scan_of_an_earlier_queue(self, harness, poll_any):
        for name in NAMES:
            harness.add(name.encode(), name=name)
        harness.commit_all()
        harness.crash()
        harness.poll(name="three")
        assert [each.waiter.queue.name for each in harness.distribute()] == ["three"]
        harness.add(b"again", name="three")
        poll_any(*NAMES)

        assert harness.broker.claims.distribute(harness.now) == []
        (delivery,) = harness.distribute()

        assert delivery.waiter.queue.name == "one"

    def test_is_served_once_however_many_queues_have_items(self, harness, poll_any):
        for name in NAMES:
            harness.add(b"1", b"2", name=name)
        for _ in range(4):
            poll_any(*NAMES)

        assert [each.waiter.queue.name for each in harness.distribute()] == ["one", "one", "two", "two"]


class TestQueues:
    def test_are_all_different(self, poll_any):
        with pytest.raises(InvalidRequest, match=r"queues\[1\]\.queue is 'one', which is in the list already"):
            poll_any("one", "one")

    def test_a_choice_outside_of_a_claim_is_served_by_the_next(self, harness, poll_any):
        """A poll that does not wait is served like that before an add."""
        poll_any(*NAMES)
        for name in ("three", "one"):
            harness.add(name.encode(), name=name)

        assert harness.broker.claims.serve(harness.broker.queue("three"), harness.now) is None
        assert [each.waiter.queue.name for each in harness.distribute()] == ["one"]


class TestWeights:
    @pytest.mark.parametrize("weights", [(1, 1, 1), (3, 1, 1), (1, 5, 2)])
    def test_queues_take_turns_by_weight(self, harness, poll_any, weights):
        for name in NAMES:
            harness.add(*[b""] * 20, name=name)
        chosen = []
        for _ in range(2 * sum(weights)):
            poll_any(*NAMES, weights=weights)
            chosen += [each.waiter.queue.name for each in harness.distribute()]

        assert Counter(chosen) == {name: 2 * weight for name, weight in zip(NAMES, weights, strict=True)}

    def test_polls_of_one_claim_take_turns_too(self, harness, poll_any):
        for _ in range(12):
            poll_any(*NAMES, weights=(1, 2, 3))
        harness.distribute()
        for name in NAMES:
            harness.add(*[b""] * 20, name=name)

        chosen = Counter(each.waiter.queue.name for each in harness.distribute())

        assert chosen == {"one": 2, "two": 4, "three": 6}

    def test_a_turn_without_an_item_is_given_back(self, harness, poll_any):
        for _ in range(6):
            poll_any("one", "two", weights=(1, 1))
        harness.distribute()
        harness.add(b"", name="one")
        harness.add(*[b""] * 5, name="two")
        assert Counter(each.waiter.queue.name for each in harness.distribute()) == {"one": 1, "two": 5}

        harness.add(*[b""] * 10, name="one")
        harness.add(*[b""] * 10, name="two")
        for _ in range(6):
            poll_any("one", "two", weights=(1, 1))

        chosen = Counter(each.waiter.queue.name for each in harness.distribute())
        assert abs(chosen["one"] - chosen["two"]) <= 2

    def test_an_empty_queue_saves_up_nothing(self, harness, poll_any):
        harness.add(*[b""] * 20, name="one")
        for _ in range(10):
            poll_any("one", "two", weights=(1, 100))
            harness.distribute()
        harness.add(*[b""] * 20, name="two")

        poll_any("one", "two", weights=(1, 1))
        poll_any("one", "two", weights=(1, 1))

        assert {each.waiter.queue.name for each in harness.distribute()} == {"one", "two"}


class TestEnd:
    def test_is_empty_only_if_no_queue_has_an_item(self, harness, poll_any):
        harness.add(b"x", name="two")
        harness.commit_all()
        harness.crash()
        poll_any(*NAMES, wait=0)

        assert harness.broker.claims.distribute(harness.now) == []
        (delivery,) = harness.distribute()
        assert [item.contents for item in delivery.items] == [b"x"]
        poll_any(*NAMES, wait=0, weights=(1, 1, 1))
        (delivery,) = harness.distribute()
        assert delivery.items == ()
        assert places(harness) == [0, 0, 0]

    def test_ends_with_its_wait(self, harness, poll_any):
        poll_any(*NAMES, wait=50)
        harness.distribute()

        harness.now += 50

        assert [each.items for each in harness.distribute()] == [()]

    def test_leaves_all_queues_when_it_is_cancelled(self, harness, poll_any):
        waiter = poll_any(*NAMES)

        harness.broker.polls.cancel(waiter)

        assert places(harness) == [0, 0, 0]
        assert waiter.state is PollState.DONE
        harness.broker.check()

    def test_items_of_an_abandoned_poll_go_back_to_the_queue_that_it_chose(self, harness, poll_any):
        poll_any(*NAMES)
        harness.distribute()
        harness.add(b"x", name="three")
        (delivery,) = harness.distribute()
        harness.broker.polls.cancel(delivery.waiter)
        harness.commit_all()

        assert harness.take(name="three")[0] == [b"x"]

    def test_fails_with_each_of_its_queues(self, harness, poll_any):
        poll_any(*NAMES)
        harness.distribute()

        assert len(harness.broker.claims.fail(harness.broker.queue("two"), ValueError())) == 1
        assert places(harness) == [0, 0, 0]


def test_a_paused_peer_is_served_in_all_queues_once_it_is_resumed(harness, poll_any):
    poll_any(*NAMES, peer="slow")
    polls = harness.broker.polls
    polls.pause("slow")
    for name in NAMES[:2]:
        harness.add(b"x", name=name)
    assert harness.distribute() == []
    assert len(polls.all_waiters()) == 1
    assert len(polls.waiters_of(harness.broker.queue("three"))) == 1

    polls.resume("slow")

    (delivery,) = harness.distribute()
    assert delivery.waiter.queue.name == "one"


def test_every_ready_item_reaches_a_poll_that_waits_for_it(make_harness):
    """At rest no poll waits in a queue with a ready item, whatever happened."""

    @settings(max_examples=examples(100), deadline=None)
    @given(st.data())
    def run(data):
        drive(make_harness(refill_items=3, queue_window_bytes=40, window_bytes=60, item_overhead=10), data)

    run()


def drive(harness, data):
    queues = [harness.broker.queue(name) for name in NAMES]
    for step in range(data.draw(st.integers(1, 15), label="steps")):
        for _ in range(data.draw(st.integers(1, 3))):
            change(harness, data, queues)
        for delivery in harness.distribute():
            assert delivery.error is None
            if not delivery.items:
                assert harness.broker.polls.ends_empty(delivery.waiter, harness.now)
        for queue in queues:
            assert not queue.waiters or queue.window.head(harness.now) is None, step
        harness.broker.check()


def change(harness, data, queues):
    match data.draw(st.sampled_from(["add", "add", "delayed", "any", "any", "poll", "commit", "pass"])):
        case "add":
            harness.add(*[b"x"] * data.draw(st.integers(1, 6)), name=data.draw(st.sampled_from(NAMES)))
        case "delayed":
            harness.add(b"x", delay=10, name=data.draw(st.sampled_from(NAMES)))
        case "any":
            queue, *others = data.draw(st.permutations(queues))[: data.draw(st.integers(1, 3))]
            harness.broker.poll(
                queue,
                wanted=data.draw(st.integers(1, 3)),
                lease_duration=1000,
                wait=data.draw(st.sampled_from([0, 5, None])),
                peer="p",
                now=harness.now,
                others=others,
                weights=data.draw(st.sampled_from([(), (2, 1, 3)[: 1 + len(others)]])),
            )
        case "poll":
            harness.poll(wait=None, name=data.draw(st.sampled_from(NAMES)))
        case "commit":
            harness.commit_all()
        case "pass":
            harness.now += 5
