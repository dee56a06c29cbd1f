"""Sessions: their states, their leases, and restarts at any point."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from queueber.broker import Broker, LeaseId, Peer, sessions
from queueber.broker.leases import FOREVER
from queueber.broker.session_table import SESSION_TRANSITIONS, Session, SessionInput, SessionState
from queueber.broker.sessions import GRACE_DEFAULT, GRACE_MIN
from queueber.errors import InvalidRequest, Overloaded
from queueber.units import SpanMs, WallMs
from queueber.values import Action, Settlement
from tests.broker.conftest import START, BrokerHarness, CountedIds
from tests.support.examples import examples

WORKER = b"w" * 16
OTHER = b"o" * 16
GRACE = SpanMs(20_000)
ONE, TWO = Peer(1), Peer(2)


def attach(harness, peer=ONE, session=WORKER, grace=GRACE):
    attached = harness.broker.sessions.attach(session, grace, peer, harness.now)
    for plan in attached.plans:
        harness.submit(plan)
    return attached


def lose(harness, peer=ONE):
    for plan in harness.broker.sessions.lost(peer, harness.now):
        harness.submit(plan)
    harness.commit_all()


def poll(harness, wanted=1, peer=ONE, session=WORKER, name="default"):
    """Let a poll under a session wait."""
    harness.broker.poll(
        harness.broker.queue(name),
        wanted=wanted,
        lease_duration=SpanMs(0),
        wait=0,
        peer=peer,
        now=harness.now,
        session=session,
    )


def take(harness, wanted=1, peer=ONE, session=WORKER, name="default"):
    """Poll once under a session; return the lease."""
    poll(harness, wanted, peer, session, name)
    (delivery,) = harness.distribute()
    harness.commit_all()
    return delivery.lease


@pytest.mark.parametrize("happened", SessionInput)
@pytest.mark.parametrize("state", SessionState)
def test_a_session_makes_the_transitions_of_the_table_and_no_other(state, happened):
    session = Session(WORKER, GRACE, state=state)
    if (state, happened) in SESSION_TRANSITIONS:
        session.advance(happened)
        assert session.state is SESSION_TRANSITIONS[state, happened]
    else:
        with pytest.raises(KeyError):
            session.advance(happened)
        assert session.state is state


def test_a_lease_of_an_attached_session_never_ends_and_its_row_says_so(harness):
    harness.add(b"a")
    attach(harness)
    lease = take(harness)
    assert harness.rows.leases[lease.id].deadline == FOREVER
    assert (harness.rows.leases[lease.id].session, harness.rows.leases[lease.id].grace) == (WORKER, GRACE)
    harness.now = WallMs(FOREVER - 1)
    assert harness.sweep() == 0
    assert harness.remove(next(iter(lease.keys)), lease.id) is True


def test_a_lost_session_s_leases_end_after_its_grace_and_their_rows_say_so(harness):
    harness.add(b"a")
    attach(harness)
    lease = take(harness)
    harness.now = WallMs(START + 5_000)
    lose(harness)
    assert harness.rows.leases[lease.id].deadline == harness.now + GRACE
    harness.now = WallMs(START + 5_000 + GRACE - 1)
    assert harness.sweep() == 0
    harness.now = WallMs(START + 5_000 + GRACE)
    assert harness.sweep() == 1
    harness.commit_all()
    assert len(harness.broker.leases.sessions) == 0
    assert harness.take()[0] == [b"a"]


def test_a_worker_that_attaches_again_in_time_keeps_its_leases(harness):
    harness.add(b"a", b"b")
    attach(harness)
    lease = take(harness, 2)
    lose(harness)
    harness.now = WallMs(START + GRACE - 1)
    attached = attach(harness, TWO)
    assert list(attached.session.leases) == [lease.id]
    assert attached.superseded is None
    assert attached.plans, "the deadline on the disk is taken back before the answer"
    harness.commit_all()
    assert harness.rows.leases[lease.id].deadline == FOREVER
    harness.now = WallMs(START + 10 * GRACE)
    assert harness.sweep() == 0
    assert harness.remove(next(iter(lease.keys)), lease.id) is True


def test_a_lease_whose_deadline_has_passed_is_not_given_back_to_its_worker(harness):
    harness.add(b"a")
    attach(harness)
    lease = take(harness)
    lose(harness)
    harness.now = WallMs(START + GRACE)
    attached = attach(harness)
    assert not attached.session.leases
    assert harness.remove(next(iter(lease.keys)), lease.id) is False
    assert harness.sweep() == 1


def test_a_lease_that_an_attach_came_too_late_for_stays_lost_over_a_start(harness):
    harness.add(b"a")
    attach(harness)
    lease = take(harness)
    lose(harness)
    harness.now = WallMs(START + GRACE)
    assert not attach(harness).session.leases
    harness.commit_all()
    harness = restarted(harness)
    assert not attach(harness, TWO).session.leases
    assert harness.remove(next(iter(lease.keys)), lease.id) is False
    assert harness.sweep() == 1


def test_an_attach_elsewhere_moves_the_session_and_the_end_of_the_older_connection_changes_nothing(harness):
    harness.add(b"a")
    attach(harness, ONE)
    lease = take(harness)
    attached = attach(harness, TWO)
    assert attached.superseded == ONE
    assert not attached.plans
    lose(harness, ONE)
    assert harness.rows.leases[lease.id].deadline == FOREVER
    lose(harness, TWO)
    assert harness.rows.leases[lease.id].deadline == START + GRACE


def test_a_worker_is_shown_the_leases_of_its_session_in_pieces(harness, monkeypatch):
    harness.add(*[b"%d" % number for number in range(10)])
    attach(harness)
    leases = [take(harness, 2) for _ in range(5)]
    lose(harness)
    session = attach(harness, TWO).session
    monkeypatch.setattr(sessions, "ATTACH_BYTES", 250)
    assert harness.broker.sessions.next_leases(session) == [(lease, "default") for lease in leases[:3]]
    assert session.unlisted
    for item_id in list(leases[3].keys):
        assert harness.remove(item_id, leases[3].id) is True
    assert harness.broker.sessions.next_leases(session) == [(leases[4], "default")]
    assert not session.unlisted
    assert harness.broker.sessions.next_leases(session) == []


def test_what_a_worker_was_not_shown_is_forgotten_with_its_connection(harness):
    harness.add(b"a")
    attach(harness)
    take(harness)
    lose(harness)
    session = attach(harness, TWO).session
    lose(harness, TWO)
    assert not session.unlisted


def test_a_session_lease_of_a_deleted_queue_ends_over_a_start(harness):
    harness.add(b"a")
    attach(harness)
    take(harness)
    harness.delete()
    harness.commit_all()
    harness = restarted(harness)
    harness.commit_all()
    harness.sweep()
    harness.commit_all()
    assert (len(harness.broker.leases), harness.rows.items) == (0, {})


def test_an_attach_again_on_one_connection_changes_the_grace(harness):
    attach(harness)
    attached = attach(harness, grace=SpanMs(0))
    assert (attached.superseded, attached.session.grace) == (None, GRACE_DEFAULT)
    lose(harness)
    assert len(harness.broker.leases.sessions) == 0


@pytest.mark.parametrize(("peer", "grace"), [(ONE, GRACE), (TWO, 5 * GRACE)], ids=["same", "other"])
def test_a_grace_that_a_newer_connection_changes_holds_for_earlier_leases_over_a_start(harness, peer, grace):
    """Over the same connection, small calls would cause large writes."""
    harness.add(b"a")
    attach(harness)
    lease = take(harness)
    attached = attach(harness, peer, grace=SpanMs(5 * GRACE))
    assert len(attached.plans) == (peer is TWO)
    harness.commit_all()
    assert harness.rows.leases[lease.id].grace == grace
    harness = restarted(harness)
    assert harness.broker.leases.sessions.get(WORKER).grace == grace
    assert list(attach(harness, TWO).session.leases) == [lease.id]


def test_a_newer_connection_with_the_present_grace_gives_it_to_leases_that_have_an_earlier_one(harness):
    harness.add(b"a")
    attach(harness)
    lease = take(harness)
    attach(harness, grace=SpanMs(5 * GRACE))
    assert len(attach(harness, TWO, grace=SpanMs(5 * GRACE)).plans) == 1
    harness.commit_all()
    assert harness.rows.leases[lease.id].grace == 5 * GRACE
    assert attach(harness, grace=SpanMs(5 * GRACE)).plans == []


def test_a_poll_that_was_claimed_for_an_older_connection_gives_its_items_back(harness):
    harness.add(b"a")
    harness.commit_all()
    attach(harness, ONE)
    harness.broker.poll(
        harness.queue, wanted=1, lease_duration=SpanMs(0), wait=0, peer=ONE, now=harness.now, session=WORKER
    )
    assert harness.distribute()
    attached = attach(harness, TWO)
    harness.commit_all()
    assert not attached.session.leases
    assert not harness.rows.leases
    assert harness.take()[0] == [b"a"]


@pytest.mark.parametrize("lost_first", [False, True])
def test_a_lease_that_an_operator_ended_gets_no_grace_at_a_start(harness, lost_first):
    harness.add(b"a", b"b")
    attach(harness)
    lease, kept = take(harness), take(harness)
    if lost_first:
        lose(harness)
    ended = harness.submit(harness.broker.control.end_lease(harness.queue, lease, harness.now))
    assert ended.reply is True
    harness.commit_all()
    if not lost_first:
        # Its connection is lost before the sweep, which writes the rows of the session's leases again.
        lose(harness)

    harness.crash(grace=10_000)

    for plan in harness.broker.sessions.started(harness.now):
        harness.submit(plan)
    harness.now = WallMs(harness.now + 1)
    assert harness.sweep() == 1
    assert [each.id for each in harness.broker.leases] == [kept.id]
    harness.poll()
    (delivery,) = harness.distribute()
    (item,) = delivery.items
    assert (item.contents, item.attempts) == (b"a", 1)


def test_a_lease_with_a_deadline_that_an_operator_ended_gets_no_grace_at_a_start(harness):
    harness.add(b"a")
    harness.take(lease_duration=5_000)
    (lease,) = harness.broker.leases
    harness.now = WallMs(harness.now + 4_000)
    harness.submit(harness.broker.control.end_lease(harness.queue, lease, harness.now))
    harness.commit_all()
    harness.crash(grace=10_000)
    assert harness.sweep() == 1


def test_an_extended_session_lease_is_one_with_a_deadline(harness):
    harness.add(b"a")
    attached = attach(harness)
    lease = take(harness)
    assert harness.extend(lease.id, 5_000) is True
    harness.commit_all()
    assert (harness.rows.leases[lease.id].deadline, harness.rows.leases[lease.id].session) == (START + 5_001, b"")
    assert not attached.session.leases
    lose(harness)
    harness.now = WallMs(START + 5_001)
    assert harness.sweep() == 1


def test_a_bound_ends_a_lease_of_an_attached_session_and_the_next_ping_says_so(harness):
    harness.add(b"a", b"b")
    attach(harness)
    bounded, other = take(harness), take(harness)
    bounded.latest_end = WallMs(START + 1_000)
    harness.broker.leases.extend(bounded, bounded.latest_end)
    harness.now = WallMs(START + 1_000)
    assert harness.sweep() == 1
    assert harness.broker.sessions.ping(ONE) == [bounded.id]
    assert harness.broker.sessions.ping(ONE) == []
    assert harness.broker.sessions.ping(TWO) == []
    lose(harness)
    assert harness.rows.leases[other.id].deadline == harness.now + GRACE


def test_removed_leases_leave_their_session(harness):
    harness.add(b"a", b"b", name="mail")
    attached = attach(harness)
    first, second = take(harness, name="mail"), take(harness, name="mail")
    harness.remove(next(iter(first.keys)), first.id, "mail")
    assert list(attached.session.leases) == [second.id]
    lose(harness)
    harness.remove(next(iter(second.keys)), second.id, "mail")
    assert len(harness.broker.leases.sessions) == 0


def test_one_connection_may_have_several_sessions(harness):
    harness.add(b"a", b"b")
    attach(harness)
    attach(harness, session=OTHER)
    mine, other = take(harness), take(harness, session=OTHER)
    attach(harness, TWO)
    lose(harness, ONE)
    assert [harness.rows.leases[lease.id].deadline for lease in (mine, other)] == [FOREVER, START + GRACE]


def test_sessions_that_cannot_be_had_are_refused(make_harness):
    harness = make_harness(sessions=1)
    with pytest.raises(InvalidRequest, match="session is 3 bytes; it must be 16"):
        attach(harness, session=b"abc")
    for grace in (GRACE_MIN - 1, 7 * 24 * 3_600_000 + 1):
        with pytest.raises(InvalidRequest, match=r"graceMs is .* ms; it must be 10,000 to 604,800,000 ms"):
            attach(harness, grace=SpanMs(grace))
    attach(harness)
    with pytest.raises(Overloaded, match=r"sessions: 1 exists; the limit is 1 \(sessions\)"):
        attach(harness, session=OTHER)
    with pytest.raises(InvalidRequest, match="session is not attached to this connection"):
        take(harness, peer=TWO)
    with pytest.raises(InvalidRequest, match="session is not attached to this connection"):
        take(harness, session=OTHER)


def restarted(harness):
    """Return a broker that starts from the rows on the disk."""
    after = BrokerHarness(Broker(harness.ids), harness.ids, rows=harness.rows.copy(), now=harness.now)
    for plan in after.broker.restore(after.rows.recover()):
        after.submit(plan)
    for plan in after.broker.sessions.started(after.now):
        after.submit(plan)
    return after


@pytest.mark.slow
def test_ten_starts_in_a_row_lose_and_double_none_of_a_thousand_leases(harness):
    for number in range(1_000):
        harness.add(str(number).encode())
    workers = [number.to_bytes(16, "big") for number in range(100)]
    for number, worker in enumerate(workers):
        attach(harness, Peer(number), worker)
    for _ in range(10):
        for number, worker in enumerate(workers):
            poll(harness, 1, Peer(number), worker)
        harness.distribute()
        harness.commit_all()
    leases = {lease.id for lease in harness.broker.leases}
    assert len(leases) == 1_000
    for _ in range(10):
        harness.now = WallMs(harness.now + 9_000)
        harness = restarted(harness)
        harness.commit_all()
        assert harness.sweep() == 0
    found = set()
    for number, worker in enumerate(workers):
        found |= set(attach(harness, Peer(number), worker).session.leases)
    assert found == leases


def test_a_worker_that_never_comes_back_loses_its_items_after_a_start(harness):
    harness.add(b"a")
    attach(harness)
    take(harness)
    harness = restarted(harness)
    harness.commit_all()
    harness.now = WallMs(START + GRACE_DEFAULT - 1)
    assert harness.sweep() == 0
    harness.now = WallMs(START + GRACE_DEFAULT)
    assert harness.sweep() == 1


def test_a_session_lease_whose_grace_ended_while_the_server_was_down_is_not_swept_before_workers_can_attach(harness):
    harness.add(b"a")
    attach(harness)
    lease = take(harness)
    lose(harness)
    harness.now = WallMs(START + 10 * GRACE)
    harness.crash()
    assert harness.sweep() == 0
    early = attach(harness, TWO)
    assert harness.broker.sessions.started(harness.now) == []
    assert list(early.session.leases) == [lease.id]
    harness.commit_all()
    assert harness.rows.leases[lease.id].deadline == FOREVER, "it is attached, and the start changes nothing"
    lose(harness, TWO)
    harness.now = WallMs(harness.now + GRACE)
    assert harness.sweep() == 1
    harness.commit_all()
    (item,) = harness.rows.items.values()
    assert item.attempts == 1, "the worker came back: what it loses now counts"


class SessionMachine(RuleBasedStateMachine):
    """Workers that attach, take, remove, vanish and come back, while the server is killed now and then."""

    def __init__(self):
        super().__init__()
        ids = CountedIds()
        self.harness = BrokerHarness(Broker(ids), ids)
        self.peers = iter(map(Peer, range(1, 10**6)))
        self.attached: dict[bytes, Peer] = {}
        self.held: dict[LeaseId, bytes] = {}
        """Leases of attached workers, which nothing may take from them."""

        self.harness.add(*[b"%d" % number for number in range(50)])

    workers = st.sampled_from([WORKER, OTHER])

    @rule(worker=workers)
    def attach(self, worker):
        peer = self.attached[worker] = next(self.peers)
        session = attach(self.harness, peer, worker).session
        self.harness.commit_all()
        assert {lease for lease, holder in self.held.items() if holder == worker} <= set(session.leases)
        self.held |= dict.fromkeys(session.leases, worker)

    @precondition(lambda self: self.attached)
    @rule(data=st.data())
    def take(self, data):
        worker = data.draw(st.sampled_from(sorted(self.attached)))
        lease = take(self.harness, 2, self.attached[worker], worker)
        if lease is not None:
            self.held[lease.id] = worker

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def remove(self, data):
        lease_id = data.draw(st.sampled_from(sorted(self.held)))
        lease = next(lease for lease in self.harness.broker.leases if lease.id == lease_id)
        assert self.harness.remove(next(iter(lease.keys)), lease_id) is True
        self.harness.commit_all()
        if not lease.keys:
            del self.held[lease_id]

    @precondition(lambda self: self.attached)
    @rule(data=st.data(), pause=st.sampled_from([0, GRACE - 1, GRACE]))
    def vanish(self, data, pause):
        worker = data.draw(st.sampled_from(sorted(self.attached)))
        lose(self.harness, self.attached.pop(worker))
        self.harness.now = WallMs(self.harness.now + pause)
        if pause == GRACE:
            self.held = {lease: holder for lease, holder in self.held.items() if holder != worker}
        else:
            self.attach(worker)

    @rule()
    def restart(self):
        self.harness = restarted(self.harness)
        self.harness.commit_all()
        for worker in list(self.attached):
            self.attach(worker)

    @rule(ms=st.sampled_from([1, 60_000]))
    def wait(self, ms):
        self.harness.now = WallMs(self.harness.now + ms)
        self.harness.sweep()
        self.harness.commit_all()

    @invariant()
    def holds(self):
        self.harness.broker.check()
        live = {lease.id for lease in self.harness.broker.leases}
        assert self.held.keys() <= live
        items = [key.id for lease in self.harness.broker.leases for key in lease.keys.values()]
        assert len(items) == len(set(items))


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(max_examples=examples(40), stateful_step_count=25)


def test_an_extending_settle_takes_the_lease_out_of_its_session(harness):
    harness.add(b"a", b"b")
    attach(harness)
    lease = take(harness, 2)
    first, second = lease.keys

    harness.settle(Settlement(lease.id, first, Action.DEFER))
    harness.commit_all()
    assert lease.deadline == FOREVER, "what leaves a session lease leaves the others under it"
    (settled,) = harness.settle(Settlement(lease.id, b"", Action.EXTEND, SpanMs(500))).settled
    harness.commit_all()

    assert settled.due == lease.deadline == harness.now + 501
    assert harness.rows.leases[lease.id].session == b""
    harness.now = WallMs(lease.deadline)
    assert harness.sweep() == 1
    assert second not in lease.keys
    harness.broker.check()


def test_a_lease_of_a_session_lasts_no_longer_than_its_queue_permits_over_a_start(harness):
    harness.configure(maxLeaseMs=50_000)
    harness.add(b"a")
    attach(harness)
    lease = take(harness)
    assert lease.deadline == lease.latest_end < START + 60_000
    harness.now = WallMs(harness.now + 9_000)
    harness = restarted(harness)
    harness.commit_all()
    (restored,) = attach(harness).session.leases.values()
    assert (restored.id, restored.deadline) == (lease.id, START + 50_000)
    harness.now = WallMs(START + 50_000 - 1)
    assert harness.sweep() == 0
    harness.now = WallMs(START + 50_000)
    assert harness.sweep() == 1
