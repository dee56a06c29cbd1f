"""A batch of calls is decided as one plan, with the same results as call by call."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueber import api
from queueber.api import POLL
from queueber.broker.model import LOWEST
from queueber.capnp.framing import Framer
from queueber.limits import Limits
from queueber.rpc import encoder
from queueber.server.core.ids import RandomIds
from queueber.testing import InProcessServer
from queueber.units import SpanMs
from tests.support.calls import add, remove


class Caller:
    """A server with reproducible ids, and one peer that sends bytes."""

    def __init__(self, limits):
        self.server = InProcessServer(limits, ids=RandomIds(random.Random(1).randbytes))
        self.protocol, self.transport = self.server.connect()
        self.send(encoder.bootstrap(1_000_000))
        # The first of each kind is read the long way.
        for number, (method, content) in enumerate([add(b"first"), remove(b"i" * 16, b"l" * 16)]):
            for again in (0, 2):
                self.send(self.frame(2_000_000 + number + again, method, content))
        self.server.settle()
        self.transport.clear()

    def send(self, data):
        self.protocol.dataReceived(data)

    @property
    def request_bytes(self):
        return self.server.handlers.request_bytes.get(self.protocol.peer, 0)

    @staticmethod
    def frame(number, method, content):
        return encoder.call(number, 0, api.QUEUE_INTERFACE_ID, method, content) + content

    def leased(self, count):
        """Add and poll *count* items; return their ids and the lease."""
        self.send(self.frame(3_000_000, *add(*[b"%d" % number for number in range(count)])))
        poll = api.PollRequest(SpanMs(60_000), count, None, no_wait=False)
        self.send(self.frame(3_000_001, POLL, api.write_poll_request(poll)))
        self.server.settle()
        (lease,) = self.server.broker.leases
        self.transport.clear()
        return list(lease.keys), lease.id

    def rows(self):
        store = self.server.store
        found = store.recover()
        scans = [store.scan(queue.number, LOWEST, items_max=1_000, bytes_max=1 << 20) for queue in found.queues]
        return found.queues, found.leases, scans


@pytest.fixture
def caller():
    return Caller(Limits())


def test_a_batch_of_adds_is_one_plan(caller):
    frames = [caller.frame(number, *add(b"%d" % number)) for number in range(10)]
    before = caller.server.handlers.stats.begun["add"]

    caller.send(b"".join(frames))

    assert caller.server.handlers.outstanding == 10
    assert caller.server.handlers.stats.begun["add"] == before + 10
    seen = caller.server.handlers.stats.seconds["add"].count
    caller.server.settle()
    assert caller.server.committer.stats.last[-1].plans == 1
    assert caller.server.handlers.outstanding == 0
    assert caller.server.handlers.stats.seconds["add"].count == seen + 10
    assert caller.request_bytes == 0


def test_a_batch_of_removes_is_one_plan_with_a_reply_for_each(caller):
    items, lease = caller.leased(3)
    pairs = [(items[0], lease), (b"?" * 16, lease), (items[1], b"?" * 16), (items[1], lease), (items[1], lease)]

    caller.send(b"".join(caller.frame(number, *remove(*pair)) for number, pair in enumerate(pairs)))

    caller.server.settle()
    assert caller.server.committer.stats.last[-1].plans == 1
    yes, no = api.write_remove_responses([True])[0], api.write_remove_responses([False])[0]
    assert [frame[-len(yes) :] for frame in replies(caller)] == [yes, no, no, yes, no]
    assert [lease.keys.keys() for lease in caller.server.broker.leases] == [{items[2]}]


def test_a_call_that_is_refused_is_refused_alone():
    """The third add is too large; the others are carried out."""
    caller = Caller(Limits(contents_bytes=10))
    contents = [b"a", b"b", b"c" * 11, b"d", b"e"]

    caller.send(b"".join(caller.frame(number, *add(each)) for number, each in enumerate(contents)))
    caller.server.settle()

    assert caller.transport.value().count(b"the limit is 10") == 1
    queue = caller.server.broker.queue("default")
    items = queue.window.pop_due(100, caller.server.clock.now(), 10_000)
    assert [item.contents for item in items][-4:] == [b"a", b"b", b"d", b"e"]


def test_a_limit_that_only_the_whole_batch_passes_refuses_the_last_calls():
    caller = Caller(Limits(request_bytes=1_000))

    caller.send(b"".join(caller.frame(number, *add(b"x")) for number in range(10)))

    assert caller.request_bytes == 3 * 256
    caller.server.settle()
    assert caller.transport.value().count(b"the limit is 1,000") == 7
    assert caller.request_bytes == 0


@pytest.mark.parametrize("reads", [1, 2, 8])
def test_adds_that_are_refused_leave_room_for_the_others_of_their_read(reads):
    caller = Caller(Limits(request_bytes=1_000, contents_bytes=10))
    frames = [caller.frame(number, *add(bytes(11 if number % 2 else 1))) for number in range(8)]

    for first in range(0, 8, 8 // reads):
        caller.send(b"".join(frames[first : first + 8 // reads]))

    assert caller.request_bytes == 3 * 256
    caller.server.settle()
    # The fifth is the third that is added; after it there is no room, whatever the others would be.
    assert caller.transport.value().count(b"the limit is 10") == 2
    assert caller.transport.value().count(b"the limit is 1,000") == 3
    assert caller.request_bytes == 0


@pytest.mark.parametrize("kind", ["add", "remove"])
def test_pending_bytes_refuses_a_whole_read(kind):
    caller = Caller(Limits(pending_bytes=1 << 20))
    # The first is on its way to the disk, and the second waits for it.
    for number in (4_000_000, 4_000_001):
        caller.send(caller.frame(number, *add(bytes(1 << 20))))
        caller.server.turn()
    calls = [add(bytes(40)) if kind == "add" else remove(b"?" * 16, b"l" * 16)] * 300

    caller.send(b"".join(caller.frame(number, *call) for number, call in enumerate(calls)))
    caller.server.settle()

    assert caller.transport.value().count(b"(pending_bytes)") == 300


def test_each_add_of_a_batch_has_its_own_delay(caller):
    delays = [50, 0, 50, 50, 0, 0]
    frames = [caller.frame(number, *add(b"%d" % number, delay=each)) for number, each in enumerate(delays)]

    caller.send(b"".join(frames))
    caller.server.settle()

    queue = caller.server.broker.queue("default")
    now = caller.server.clock.now()
    assert queue.window.count_ready(now) == 5, "those without delay, and the two from the beginning"
    caller.server.reactor.advance(0.051)
    assert queue.window.count_ready(caller.server.clock.now()) == 8


def test_a_bug_in_a_decision_ends_the_process(caller):
    caller.server.broker.add = lambda *_: 1 / 0

    caller.send(b"".join(caller.frame(number, *add(b"x")) for number in range(3)))
    with pytest.raises(ZeroDivisionError):
        caller.server.turn()

    assert [type(why) for _, why in caller.server.deaths] == [ZeroDivisionError]


def steps():
    return st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.binary(max_size=12), st.sampled_from([0, 0, 0, 20])),
            st.tuples(st.just("add many"), st.lists(st.binary(max_size=4), max_size=6)),
            st.tuples(st.just("remove"), st.integers(0, 5), st.sampled_from(["lease", "other", "short"])),
            st.tuples(st.just("poll"), st.integers(1, 3)),
            st.tuples(st.just("finish"), st.integers(0, 20)),
            st.tuples(st.just("unknown")),
        ),
        min_size=1,
        max_size=25,
    )


def frames_of(caller, steps):
    """Return the frames of *steps* for *caller*."""
    items, lease = caller.leased(4)
    frames = []
    for number, (what, *rest) in enumerate(steps):
        if what == "add":
            frames.append(caller.frame(number, *add(rest[0], delay=rest[1])))
        elif what == "add many":
            frames.append(caller.frame(number, *add(*rest[0])))
        elif what == "remove":
            item = items[rest[0]] if rest[0] < len(items) else b"?" * 16
            frames.append(caller.frame(number, *remove(item, {"lease": lease, "other": b"o" * 16}.get(rest[1], b"s"))))
        elif what == "poll":
            poll = api.PollRequest(SpanMs(60_000), rest[0], None, no_wait=True)
            frames.append(caller.frame(number, POLL, api.write_poll_request(poll)))
        elif what == "finish":
            frames.append(encoder.finish(rest[0], release_result_caps=False))
        else:
            frames.append(caller.frame(number, 77, api.write_poll_request(api.PollRequest(SpanMs(1), 1, None, False))))
    return frames


@given(
    steps=steps(), cuts=st.lists(st.integers(0, 25), max_size=3), bounds=st.sampled_from([{}, {"request_bytes": 900}])
)
def test_a_batch_has_the_results_of_its_calls_one_by_one(steps, cuts, bounds):
    """
    Replies and rows are equal, however the stream is cut into reads.

    Only the order of replies that do not wait for a commit may differ.
    """
    together, alone = Caller(Limits(contents_bytes=10, **bounds)), Caller(Limits(contents_bytes=10, **bounds))
    frames = frames_of(together, steps)
    assert frames == frames_of(alone, steps)

    places = [0, *sorted(min(each, len(frames)) for each in cuts), len(frames)]
    for first, last in pairwise(places):
        together.send(b"".join(frames[first:last]))
    for frame in frames:
        alone.send(frame)
    together.server.settle()
    alone.server.settle()

    assert sorted(replies(together)) == sorted(replies(alone))
    assert together.rows() == alone.rows()
    assert together.server.handlers.outstanding == alone.server.handlers.outstanding
    assert together.request_bytes == alone.request_bytes == 0
    assert not together.server.deaths


def replies(caller):
    """Return the messages that the peer received."""
    data = caller.transport.value()
    return [data[frame.start * 8 : frame.end * 8] for frame in Framer(Limits()).feed(data)]
