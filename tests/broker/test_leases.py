"""Every method of a lease in every state."""

import pytest

from queueber.broker import Item, ItemId, Key, Lease, LeaseId, leases
from queueber.broker.leases import LEASE_TRANSITIONS, LeaseInput, LeaseState, LeaseTable
from queueber.broker.model import LOWEST, Leased, LeaseRecord
from queueber.broker.queue import Queue
from queueber.broker.window import Meter, Window

QUEUE = 7
DEADLINE = 100
ITEMS = [Item(Key(number, ItemId(bytes([number] * 16))), b"", 0) for number in (1, 2)]
KEYS = [item.key for item in ITEMS]
LEASE_ID = LeaseId(b"l" * 16)


def make_lease(state=LeaseState.PENDING, lease_id=LEASE_ID, deadline=DEADLINE):
    items = list(ITEMS) if state is LeaseState.PENDING else []
    return Lease(lease_id, QUEUE, deadline, {key.id: Leased(*key, 3) for key in KEYS}, 5, state=state, items=items)


def make_queue(number, **fields):
    return Queue("mail", Window(LOWEST, Meter(0)), number, **fields)


@pytest.fixture
def table():
    return LeaseTable(1_000)


@pytest.fixture
def in_state(table):
    """Return a function that adds a lease and brings it to a state by the methods of the table."""

    def bring(state):
        lease = make_lease()
        table.insert(lease)
        if state is not LeaseState.PENDING:
            table.activate(lease)
        if state is LeaseState.EXPIRED:
            assert table.pop_expired(DEADLINE) is lease
        if state is LeaseState.GONE:
            assert [table.remove_item(lease, key.id) for key in KEYS] == [False, True]
        assert lease.state is state
        return lease

    return bring


def test_a_record_names_the_items_that_are_left(table):
    lease = make_lease()
    table.insert(lease)
    assert lease.record() == LeaseRecord(QUEUE, DEADLINE, tuple(KEYS), (3, 3), 5)

    table.remove_item(lease, KEYS[0].id)

    assert lease.record() == LeaseRecord(QUEUE, DEADLINE, (KEYS[1],), (3,), 5)
    assert table.items == 1
    table.check()


def test_an_id_is_used_once(table):
    table.insert(make_lease())

    with pytest.raises(AssertionError, match="never reused"):
        table.insert(make_lease())
    assert (len(table), table.items) == (1, 2)


class TestStates:
    @pytest.mark.parametrize("state", LeaseState)
    def test_only_a_live_one_is_found(self, table, in_state, state):
        lease = in_state(state)

        assert table.find_live(LEASE_ID, make_queue(QUEUE), 0) is (lease if state is LeaseState.LIVE else None)

    @pytest.mark.parametrize("state", LeaseState)
    def test_only_a_pending_one_can_be_activated(self, table, in_state, state):
        lease = in_state(state)
        if state is LeaseState.PENDING:
            table.activate(lease)
            assert (lease.state, lease.items) == (LeaseState.LIVE, [])
        else:
            with pytest.raises(KeyError):
                table.activate(lease)
            assert lease.state is state

    @pytest.mark.parametrize("state", LeaseState)
    def test_only_a_live_one_can_be_extended(self, table, in_state, state):
        lease = in_state(state)
        if state is LeaseState.LIVE:
            table.extend(lease, 200)
            assert table.pop_expired(199) is None
            assert table.pop_expired(200) is lease
        else:
            with pytest.raises(AssertionError):
                table.extend(lease, 200)
            assert lease.deadline == DEADLINE

    @pytest.mark.parametrize("state", LeaseState)
    def test_only_a_live_one_expires(self, table, in_state, state):
        lease = in_state(state)

        assert table.pop_expired(DEADLINE) is (lease if state is LeaseState.LIVE else None)

    @pytest.mark.parametrize("state", LeaseState)
    def test_only_an_expired_one_is_swept_again(self, table, in_state, state):
        lease = in_state(state)
        if state is LeaseState.EXPIRED:
            table.retry_sweep(lease, 300)
            assert table.pop_expired(299) is None
            assert table.pop_expired(300) is lease
        else:
            with pytest.raises(AssertionError):
                table.retry_sweep(lease, 300)

    @pytest.mark.parametrize("state", LeaseState)
    def test_only_a_pending_one_is_removed_with_its_items(self, table, in_state, state):
        lease = in_state(state)
        if state is LeaseState.PENDING:
            table.remove(lease)
            assert (len(table), table.items) == (0, 0)
            assert table.pop_expired(10**9) is None
            assert lease.state is LeaseState.GONE
        else:
            with pytest.raises(KeyError):
                table.remove(lease)
            assert lease.state is state
        table.check()

    @pytest.mark.parametrize("state", LeaseState)
    def test_the_transitions_are_those_of_the_documented_table(self, state):
        rows = [line.split("|") for line in (leases.__doc__ or "").splitlines() if "|" in line]
        inputs = [cell.strip().upper().replace(" ", "_") for cell in rows[0][1:]]
        documented = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows[1:]}
        found = [LEASE_TRANSITIONS.get((state, LeaseInput[name])) for name in inputs]
        assert ["-" if each is None else each.name for each in found] == documented.get(state.name, ["-"] * len(inputs))

    @pytest.mark.parametrize("state", LeaseState)
    def test_only_a_live_one_is_restored(self, table, state):
        lease = make_lease(state)
        if state is LeaseState.LIVE:
            table.restore(lease)
            assert table.pop_expired(DEADLINE) is lease
        else:
            with pytest.raises(AssertionError):
                table.restore(lease)
            assert len(table) == 0


@pytest.mark.parametrize(
    ("lease_id", "queue", "now"),
    [(LeaseId(b"m" * 16), QUEUE, 0), (LEASE_ID, 8, 0), (LEASE_ID, None, 0), (LEASE_ID, QUEUE, DEADLINE)],
)
def test_another_id_another_queue_or_a_later_moment_find_nothing(table, in_state, lease_id, queue, now):
    lease = in_state(LeaseState.LIVE)

    assert table.find_live(lease_id, make_queue(queue), now) is None
    assert table.find_live(LEASE_ID, make_queue(QUEUE), DEADLINE - 1) is lease
    assert table.find_live(LEASE_ID, make_queue(9, formers=frozenset({QUEUE})), DEADLINE - 1) is lease


def test_the_deadline_that_passed_longest_ago_comes_first(table):
    late, early = (make_lease(lease_id=LeaseId(bytes([n] * 16)), deadline=n) for n in (9, 3))
    for lease in (late, early):
        table.insert(lease)
        table.activate(lease)

    assert [table.pop_expired(9), table.pop_expired(9), table.pop_expired(9)] == [early, late, None]
    assert list(table) == [late, early]
