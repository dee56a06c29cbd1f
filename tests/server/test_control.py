"""An operator's calls over a connection: what each does, and what may happen while rows are read."""

import pytest

from queueber import api, rpc
from queueber.api import control_types as types
from queueber.api.control import (
    read_control_response,
    read_queues_response,
    write_control_request,
    write_queues_request,
)
from queueber.broker.model import LOWEST
from queueber.errors import Damaged, Kind, Passing
from queueber.server.core.inspections import COUNTED_KEYS
from queueber.units import SpanMs
from queueber.values import ControlOutcome, ItemState

LONG = 60_000
UNKNOWN = b"?" * 16


@pytest.fixture
def peer(server):
    return server.connect()


@pytest.fixture
def control(server, peer):
    """Return a function that makes a call of `QueueControl` on a queue, by default the default one."""

    def call(method, request=None, name="default", *, settle=True):
        content = write_control_request(method, request)
        question = peer.connection.call(peer.queue(name, api.CONTROL), types.CONTROL_INTERFACE_ID, method, content)
        peer.send()
        if not settle:
            return question
        server.settle()
        outcome = peer.receive()[question]
        return outcome if isinstance(outcome, rpc.RemoteException) else read_control_response(method, outcome)

    return call


def add(server, peer, *contents, delay=0):
    call = peer.add(*contents, delay=delay)
    server.settle()
    return api.read_add_response(peer.receive()[call]).ids


def take(server, peer, count=1):
    return peer.polled(count, lease=LONG, no_wait=True)


def queues(server, peer, **request):
    content = write_queues_request(types.QueuesRequest(**request))
    call = peer.call_broker(api.QUEUES, content)
    server.settle()
    listed = read_queues_response(peer.receive()[call])
    return [each.name for each in listed.found], listed.more


class TestQueues:
    def test_are_listed_by_prefix_label_and_page(self, server, peer, control):
        for name in ("mail.b", "web", "mail.a"):
            settings = types.QueueSettings(labels=(("team", name[:4]),))
            control(types.CONFIGURE, types.ConfigureRequest(names=["labels"], settings=settings), name)

        assert queues(server, peer) == (["mail.a", "mail.b", "web"], False)
        assert queues(server, peer, prefix="mail", limit=1) == (["mail.a"], True)
        assert queues(server, peer, prefix="mail", after="mail.a") == (["mail.b"], False)
        assert queues(server, peer, label=("team", "web")) == (["web"], False)

    def test_have_their_counts_and_labels(self, server, peer):
        add(server, peer, b"abc", b"d")
        take(server, peer)
        content = write_queues_request(types.QueuesRequest())
        call = peer.connection.call(peer.root, api.BROKER_INTERFACE_ID, api.QUEUES, content)
        peer.send()
        server.settle()

        (summary,) = read_queues_response(peer.receive()[call]).found
        assert (summary.stats.items, summary.stats.bytes, summary.stats.leased, summary.stats.ready) == (2, 4, 1, 1)

    def test_asking_for_a_control_makes_no_queue(self, server, peer, control):
        assert control(types.STATS, False, "other") == types.QueueCounts()
        assert queues(server, peer) == ([], False)


class TestStats:
    def test_are_exact_while_the_head_covers_what_is_due(self, server, peer, control):
        add(server, peer, b"1", b"2")
        add(server, peer, b"later", delay=LONG)
        take(server, peer)

        counts = control(types.STATS, False)

        assert (counts.ready, counts.ready_max, counts.delayed, counts.delayed_max) == (1, 1, 1, 1)
        assert (counts.items, counts.leased, counts.added, counts.removed) == (3, 1, 3, 0)

    def test_are_bounds_beyond_the_head_and_counted_on_demand(self, server, peer, control):
        add(server, peer, *[b""] * 20)
        add(server, peer, *[b"later"] * 5, delay=LONG)
        queue = server.broker.queue("default")
        queue.window.trim(0, queue.floor)
        server.reactor.advance(1)

        bounds, exact = control(types.STATS, False), control(types.STATS, True)

        assert (bounds.ready, bounds.ready_max, bounds.delayed, bounds.delayed_max) == (20, 25, 0, 5)
        assert (exact.ready, exact.ready_max, exact.delayed, exact.delayed_max) == (20, 20, 5, 5)

    def test_a_count_of_many_slices(self, server, peer, control):
        for _ in range(1 + COUNTED_KEYS // 1000):
            add(server, peer, *[b""] * 1000)
        add(server, peer, b"later", delay=LONG)
        queue = server.broker.queue("default")
        queue.window.trim(0, queue.floor)
        server.reactor.advance(1)

        assert control(types.STATS, True).ready == 1000 * (1 + COUNTED_KEYS // 1000)

    def test_another_call_shows_the_progress_of_a_count(self, server, peer, control):
        for _ in range(1 + COUNTED_KEYS // 1000):
            add(server, peer, *[b""] * 1000)
        add(server, peer, b"later", delay=LONG)
        queue = server.broker.queue("default")
        queue.window.trim(0, queue.floor)
        server.reactor.advance(1)

        def counting(name="default"):
            asked = control(types.STATS, False, name, settle=False)
            server.flush_queue.flush()
            server.turn()
            return read_control_response(types.STATS, peer.receive()[asked]).counting

        assert counting() == 0
        exact = control(types.STATS, True, settle=False)
        server.turn()
        server.pool.step()
        assert (counting(), counting("other")) == (COUNTED_KEYS, 0)
        server.settle()
        assert read_control_response(types.STATS, peer.receive()[exact]).ready == 1000 * (1 + COUNTED_KEYS // 1000)
        assert counting() == 0


class TestSettings:
    def test_are_changed_and_returned(self, control):
        settings = types.QueueSettings(max_items=5)
        assert control(types.CONFIGURE, types.ConfigureRequest(names=["max_items"], settings=settings)).max_items == 5

        found = control(types.SETTINGS)

        assert found.settings.max_items == 5
        assert "max_items" not in found.defaults
        assert "ttl_ms" in found.defaults

    def test_a_value_that_cannot_be_had_changes_nothing(self, server, peer, control):
        settings = types.QueueSettings(ttl_ms=SpanMs(1 << 60))
        outcome = control(types.CONFIGURE, types.ConfigureRequest(names=["ttl_ms"], settings=settings))

        assert outcome.kind == Kind.FAILED
        assert "ttlMs is 1,152,921,504,606,846,976" in outcome.reason
        assert queues(server, peer) == ([], False)

    def test_a_paused_queue_refuses_adds_and_hands_out_nothing(self, server, peer, control):
        add(server, peer, b"x")
        control(types.PAUSE, types.PauseRequest(adds=True, polls=True))
        refused = peer.add(b"y")
        assert take(server, peer).items == []
        assert peer.receive()[refused].kind == Kind.OVERLOADED
        waiting = peer.poll(1, lease=LONG)
        server.settle()
        assert control(types.STATS, False).polls_paused

        control(types.RESUME, types.PauseRequest(adds=True, polls=True))

        assert [item.contents for item in api.read_poll_response(peer.receive()[waiting]).items] == [b"x"]


class TestPeek:
    @pytest.mark.parametrize(("leased", "slices"), [(0, [3]), (20, [3, 12, 48])])
    def test_reads_few_rows_more_than_it_returns(self, server, peer, control, leased, slices):
        add(server, peer, *[b"%d" % number for number in range(leased)])
        if leased:
            take(server, peer, leased)
        add(server, peer, *[b"x"] * 100)
        server.broker.queue("default").floor = LOWEST
        sizes, scan = [], server.store.scan

        def counted(number, after, *, items_max, bytes_max):
            sizes.append(items_max)
            return scan(number, after, items_max=items_max, bytes_max=bytes_max)

        server.store.scan = counted
        assert len(control(types.PEEK, types.PeekRequest(limit=2)).found) == 2
        assert sizes == slices

    def test_shows_items_in_order_and_leases_nothing(self, server, peer, control):
        ids = add(server, peer, b"one", b"two", b"three")
        take(server, peer)
        before = server.broker.dump(), server.committer.commits

        page = control(types.PEEK, types.PeekRequest(limit=1, contents_bytes=2))

        assert [(item.id, item.contents, item.contents_bytes) for item in page.found] == [(ids[1], b"tw", 3)]
        assert page.more
        rest = control(types.PEEK, types.PeekRequest(after=page.found[0].place))
        assert [item.contents for item in rest.found] == [b"three"]
        assert not rest.more
        assert (server.broker.dump(), server.committer.commits) == before

    def test_by_state(self, server, peer, control):
        add(server, peer, b"now")
        add(server, peer, b"later", delay=LONG)

        def peek(state):
            return [(item.contents, item.state) for item in control(types.PEEK, types.PeekRequest(state=state)).found]

        assert peek(ItemState.READY) == [(b"now", ItemState.READY)]
        assert peek(ItemState.DELAYED) == [(b"later", ItemState.DELAYED)]
        assert peek(ItemState.DEAD) == []
        assert peek(None) == [(b"now", ItemState.READY), (b"later", ItemState.DELAYED)]

    def test_a_place_that_is_none_is_refused(self, server, peer, control):
        add(server, peer, b"x")

        outcome = control(types.PEEK, types.PeekRequest(after=b"abc"))

        assert outcome.reason == "after is 3 bytes; the place of an item has 24"

    def test_a_queue_that_cannot_be_read_is_said_so(self, server, peer, control, monkeypatch):
        add(server, peer, b"x")
        monkeypatch.setattr(server.store, "scan", failing(Damaged("row 7")))

        outcome = control(types.PEEK, types.PeekRequest())

        assert outcome.kind == Kind.OVERLOADED
        assert outcome.reason == "queue 'default' cannot be read at the moment; the server's log says why"
        assert server.committer.pending_bytes == 0


def failing(error):
    def fail(*args, **kwargs):
        raise error

    return fail


class TestGet:
    def test_says_why_an_item_waits(self, server, peer, control):
        first, second = add(server, peer, b"first", b"second")

        item = control(types.GET, second)

        assert (item.state, item.contents, item.waits.ahead, item.waits.lease) == (ItemState.READY, b"second", 1, None)
        assert control(types.GET, first).waits.ahead == 0
        assert control(types.GET, UNKNOWN) is None

    def test_says_who_has_it_and_until_when(self, server, peer, control):
        (item_id,) = add(server, peer, b"x")
        now = server.clock.now()
        polled = take(server, peer)

        item = control(types.GET, item_id)

        lease = item.waits.lease
        assert item.state is ItemState.LEASED
        assert (lease.since_ms, lease.deadline_ms, lease.items) == (now, polled.deadline, 1)
        assert lease.handle != polled.lease

    def test_finds_delayed_items(self, server, peer, control):
        (item_id,) = add(server, peer, b"x", delay=LONG)

        item = control(types.GET, item_id)

        assert item.state is ItemState.DELAYED
        assert item.due_ms >= server.clock.now() + LONG

    @pytest.mark.parametrize(("error", "kind"), [(Damaged("row 7"), Kind.FAILED), (Passing("no fd"), Kind.OVERLOADED)])
    def test_an_item_that_cannot_be_read_hides_no_other(self, server, peer, control, monkeypatch, error, kind):
        good, bad = add(server, peer, b"good", b"bad")
        find = server.store.find

        def find_all_but_one(numbers, ids):
            if bad in ids:
                raise error
            return find(numbers, ids)

        monkeypatch.setattr(server.store, "find", find_all_but_one)
        busy = control(types.GET, UNKNOWN, settle=False)
        questions = [control(types.GET, each, settle=False) for each in (good, bad)]
        server.settle()

        outcomes = peer.receive()
        assert read_control_response(types.GET, outcomes[busy]) is None
        assert read_control_response(types.GET, outcomes[questions[0]]).contents == b"good"
        assert outcomes[questions[1]].kind == kind
        assert outcomes[questions[1]].reason == "the item cannot be read at the moment; the server's log says why"
        assert server.committer.pending_bytes == 0
        assert peer.request_bytes == 0


class TestItems:
    def test_a_cancelled_item_is_gone(self, server, peer, control):
        first, second = add(server, peer, b"first", b"second")

        assert control(types.CANCEL, first) is ControlOutcome.DONE
        assert control(types.CANCEL, first) is ControlOutcome.NOT_FOUND

        assert [item.id for item in take(server, peer, 5).items] == [second]
        assert control(types.CANCEL, second) is ControlOutcome.LEASED

    def test_a_kicked_item_is_delivered(self, server, peer, control):
        (item_id,) = add(server, peer, b"x", delay=LONG)
        waiting = peer.poll(1, lease=LONG)

        assert control(types.KICK, item_id) is ControlOutcome.DONE

        assert [item.id for item in api.read_poll_response(peer.receive()[waiting]).items] == [item_id]

    def test_a_rescheduled_item_waits(self, server, peer, control):
        (item_id,) = add(server, peer, b"x")
        due = server.clock.now() + 5_000

        assert control(types.RESCHEDULE, types.RescheduleRequest(id=item_id, due_ms=due)) is ControlOutcome.DONE

        assert take(server, peer).items == []
        server.reactor.advance(5)
        assert [item.id for item in take(server, peer).items] == [item_id]

    def test_a_moment_too_far_away_is_refused(self, server, peer, control):
        (item_id,) = add(server, peer, b"x")

        outcome = control(types.RESCHEDULE, types.RescheduleRequest(id=item_id, due_ms=1 << 50))

        assert "the limit is 10 y (delay_ms)" in outcome.reason

    def test_an_item_may_leave_while_it_is_looked_up(self, server, peer, control):
        (item_id,) = add(server, peer, b"x")
        call = control(types.CANCEL, item_id, settle=False)
        polled = peer.poll(1, lease=LONG, no_wait=True)

        server.settle()

        outcomes = peer.receive()
        outcome = read_control_response(types.CANCEL, outcomes[call])
        taken = api.read_poll_response(outcomes[polled]).items
        assert (outcome is ControlOutcome.LEASED) == bool(taken)


class TestPurgeAndDelete:
    def test_a_purge_leaves_leased_items(self, server, peer, control):
        add(server, peer, b"1", b"2", b"3")
        polled = take(server, peer)

        assert control(types.PURGE, False) == 2
        assert control(types.PURGE, True) == 0

        remove = peer.remove(polled.items[0].id, polled.lease)
        server.settle()
        assert api.read_remove_response(peer.receive()[remove])

    def test_a_queue_is_deleted_if_it_is_empty_or_by_force(self, server, peer, control):
        add(server, peer, b"1")

        assert control(types.DELETE, False) is ControlOutcome.NOT_EMPTY
        assert control(types.DELETE, True) is ControlOutcome.DONE
        assert control(types.DELETE, True) is ControlOutcome.NOT_FOUND
        assert queues(server, peer) == ([], False)


class TestLeases:
    def test_are_listed_in_pages_without_the_right_to_their_items(self, server, peer, control):
        add(server, peer, *[b""] * 3)
        leases = {take(server, peer).lease for _ in range(3)}

        page = control(types.LEASES, types.LeasesRequest(limit=2))
        rest = control(types.LEASES, types.LeasesRequest(after=page.found[-1].handle))

        assert (page.more, rest.more) == (True, False)
        handles = [lease.handle for lease in (*page.found, *rest.found)]
        assert len(set(handles)) == 3
        assert handles == sorted(handles)
        assert not leases & set(handles)
        # With its port: most workers of a server are on few hosts.
        assert {lease.peer for lease in page.found} == {"192.168.1.1:54321"}

    @pytest.mark.parametrize("by_handle", [False, True])
    def test_one_that_is_ended_gives_its_items_back(self, server, peer, control, by_handle):
        add(server, peer, b"x")
        polled = take(server, peer)
        (view,) = control(types.LEASES, types.LeasesRequest()).found

        assert control(types.END_LEASE, view.handle if by_handle else polled.lease)
        assert not control(types.END_LEASE, UNKNOWN)

        server.sweeper.sweep()
        server.settle()
        server.reactor.advance(0.1)
        assert [item.attempt for item in take(server, peer).items] == [2]


class TestObjects:
    def test_a_control_is_no_queue_and_a_queue_no_control(self, server, peer):
        controlled = peer.queue("default", api.CONTROL)
        add_to_control = peer.call(api.ADD, api.write_add_request(api.AddRequest([])), controlled)
        stats = write_control_request(types.STATS, False)
        stats_of_queue = peer.connection.call(peer.root, types.CONTROL_INTERFACE_ID, types.STATS, stats)
        unknown = peer.connection.call(controlled, types.CONTROL_INTERFACE_ID, 99, stats)
        peer.send()
        server.settle()

        outcomes = peer.receive()
        assert {outcomes[each].kind for each in (add_to_control, stats_of_queue, unknown)} == {Kind.UNIMPLEMENTED}

    def test_calls_are_refused_while_too_much_waits_for_the_disk(self, server, peer, control):
        server.committer.reserve(server.limits.pending_bytes + 1)

        outcome = control(types.STATS, False)

        assert outcome.kind == Kind.OVERLOADED
        assert "(pending_bytes)" in outcome.reason
