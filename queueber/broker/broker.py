"""
The broker: every decision, no I/O.

Time and new ids are arguments.  A method decides at once against memory and
returns a `Plan`.  The caller submits the plans in the order in which they were
made, reports them once they are durable (`committed`), and then sends their
replies.

The caller guarantees the limits of one request: `items_per_add`,
`contents_bytes`, `add_bytes`, `delay_ms` and `lease_ms`.  `api.requests` checks
them while it reads the request, so that nothing beyond them is copied, and its
errors name the field that the client has sent.  The broker checks all other
limits.

Rules for editors.  Validate first, then change, then build the plan: between
the first change and the plan nothing may raise.  A plan that changes a queue
carries the queue's record as it is after that plan, because any plan may be
the last of a commit, and the rows on the disk must be consistent by
themselves.  The items that one claim takes from a queue are one plan, so that
the floor in its record never passes an item that is not leased yet.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from attrs import asdict

from queueber.broker.adds import Adds, Ids
from queueber.broker.allocation import ClaimBounds
from queueber.broker.claims import Claims, Delivery
from queueber.broker.control import Control
from queueber.broker.dead_letters import DeadLetters
from queueber.broker.deaths import Deaths, OnDeath, ignore_death
from queueber.broker.dedup import Deduplication
from queueber.broker.expired import Expirations
from queueber.broker.expiry import Expiry
from queueber.broker.first_dues import FirstDues
from queueber.broker.leases import Lease, LeaseTable, extended_deadline
from queueber.broker.lifecycle import Lifecycle
from queueber.broker.model import NO_GRACE, TIME_BYTES, UNKNOWN_TIME, ItemId, Key, LeaseId, new_tuple
from queueber.broker.moves import Moves
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.polls import Polls
from queueber.broker.queue import Queue, Refill
from queueber.broker.queues import Queues
from queueber.broker.restoring import restore_leases
from queueber.broker.session_table import SessionId
from queueber.broker.sessions import Sessions
from queueber.broker.settings import DEFAULT_SETTINGS, QueueConfig
from queueber.broker.settle import Settles
from queueber.broker.stats import Stats, lease_line, queue_line
from queueber.broker.storage import DeleteItem, DeleteLease, PutLease, Recovered, Scan, Write
from queueber.broker.waiter import Peer, PollInput, PollState, QueueChoice, Waiter
from queueber.errors import InvalidRequest, QueueberError
from queueber.fixed_limits import ID_BYTES
from queueber.limits import DEFAULTS, Limits
from queueber.units import SpanMs, WallMs, counted

DEFAULT_BOUNDS = ClaimBounds()

_from_bytes: Final = int.from_bytes


class Broker:
    """Queues, leases and waiting polls.  Not thread-safe: one thread decides."""

    def __init__(
        self,
        ids: Ids,
        *,
        limits: Limits = DEFAULTS,
        bounds: ClaimBounds = DEFAULT_BOUNDS,
        settings: QueueConfig = DEFAULT_SETTINGS,
        on_death: OnDeath = ignore_death,
    ) -> None:
        """Decide within *limits*; *settings* are those of queues that were not configured."""
        self.limit_hits: Counter[str] = Counter()
        """The number of calls whose result each limit, by its name, changed without failing them."""
        self._limits = limits
        self.queues = Queues(limits, settings)
        """All queues, for other packages to read."""
        self.leases = LeaseTable(limits.leased_items)
        """All leases, for other packages to read."""
        self._uncommitted = UncommittedPlans(self.queues)
        self.polls = Polls(self.queues, self.leases, limits)
        """The waiting polls: to cancel, to pause and to resume."""
        self.deaths = Deaths(self.queues, on_death)
        """The deaths and drops of items, and their counts."""
        self.moves = Moves(self.queues, self.polls, self._uncommitted, self.deaths)
        self.claims = Claims(
            self.queues,
            self.leases,
            self.polls,
            self._uncommitted,
            self.moves,
            Expirations(self.moves, limits),
            ids.lease,
            limits,
            bounds,
            self.limit_hits,
        )
        """The claims that serve the waiting polls."""
        self._adds = Adds(self.queues, self.polls, self._uncommitted, ids, limits)
        self.add = self._adds.add
        self.dedup = Deduplication(self.queues, self._adds, self._uncommitted)
        """Adds with request ids and deduplication keys."""
        self._expiry = Expiry(self.queues, self.leases, self.moves, ids.below, limits)
        self.settles = Settles(self.queues, self.leases, self.moves, self._uncommitted, self._adds, ids.below, limits)
        """The ends of leases that workers ask for."""
        self.dead_letters = DeadLetters(self.queues, self.moves, self._uncommitted, self._adds, limits)
        """The ways of dead items back."""
        self.lifecycle = Lifecycle(self.queues, self.leases, self.polls, self._uncommitted, self.moves, limits)
        """Settings, purges and deletes of queues."""
        self.first_dues = FirstDues(self.queues, self._uncommitted)
        """Reads of first items that are not in memory, for statistics."""
        self.control = Control(
            self.queues, self.leases, self.polls, self._uncommitted, self.moves, self.lifecycle, limits
        )
        """An operator's decisions."""
        self.follow, self.unfollow = self._uncommitted.follow, self._uncommitted.unfollow
        self.pop_expired, self.retry_sweep = self._expiry.pop_expired, self._expiry.retry_sweep
        self.requeue = self._expiry.requeue
        self.sessions = Sessions(self.queues, self.leases, self._uncommitted, limits)
        """The sessions: to attach, to ping, and to detach when a connection ends."""
        self.take_refills = self._uncommitted.take_refills
        self.committed = self._uncommitted.committed

    def restore(self, recovered: Recovered, now: WallMs = UNKNOWN_TIME, grace: SpanMs = NO_GRACE) -> list[Plan[None]]:
        """
        Start from the state that was read from the disk.

        All leases continue.  One whose deadline has passed, or passes within *grace* after *now*, ends that much later,
        so that its worker can still extend it, but no later than its own length.

        Returns:
            Plans that write the records of such leases, and delete those of leases whose items are all gone.
        """
        assert not self.queues, "a broker is restored before anything else"
        self.queues.restore(recovered)
        leases = recovered.leases
        return restore_leases(leases, self.queues, self.leases, self.sessions, self._uncommitted, now, grace)

    def queue(self, name: str) -> Queue:
        """
        Return the queue of that name.

        Raises:
            InvalidRequest: the name is not 1 to 255 bytes of UTF-8.
        """
        return self.queues.named(name)

    # Calls

    def remove(
        self, queue: Queue, pairs: Sequence[tuple[ItemId, LeaseId]], now: WallMs
    ) -> Plan[list[bool | QueueberError]]:
        """
        Remove items held under live leases, one after the other.

        Returns:
            A plan whose reply has for each pair of item and lease whether the
            item was removed, or `InvalidRequest`: the lease is not 16 bytes.
        """
        leases, held = self.leases, queue.held
        queue.used_at = now
        writes: list[Write] = []
        replies: list[bool | QueueberError] = []
        for item_id, lease_id in pairs:
            if len(lease_id) != ID_BYTES:
                replies.append(_not_a_lease_id(lease_id))
                continue
            lease = leases.find_live(lease_id, queue, now)
            leased = lease.keys.get(item_id) if lease is not None else None
            if lease is None or leased is None:
                replies.append(False)
                continue
            due, _, size = leased
            writes.append(new_tuple(DeleteItem, (lease.queue, new_tuple(Key, (due, item_id)))))
            if leases.remove_item(lease, item_id):
                writes.append(new_tuple(DeleteLease, (lease.id,)))
            del held[item_id]
            # As `Queue.count_removed` without a call.
            queue.removed += 1
            queue.bytes -= size
            queue.off_time -= due != _from_bytes(item_id[:TIME_BYTES])
            replies.append(True)
        return self._uncommitted.plan(queue, writes, replies)

    def extend(
        self, queue: Queue, requests: Sequence[tuple[LeaseId, SpanMs]], now: WallMs
    ) -> Plan[list[bool | QueueberError]]:
        """
        Move the deadlines of live leases, each to a duration from now.

        Returns:
            A plan whose reply has for each pair of lease and duration whether
            the lease was extended, or `InvalidRequest`: the lease is not 16
            bytes, or the duration is 0.
        """
        writes: dict[LeaseId, Write] = {}
        """One write for each lease, however often it is extended, because its record is as long as it has items."""
        replies: list[bool | QueueberError] = []
        size = 0
        for lease_id, duration in requests:
            if duration <= 0:
                replies.append(_not_a_duration())
                continue
            if len(lease_id) != ID_BYTES:
                replies.append(_not_a_lease_id(lease_id))
                continue
            lease = self.leases.find_live(lease_id, queue, now)
            deadline = extended_deadline(lease, duration, queue.settings.max_lease_ms, now) if lease else None
            replies.append(deadline is not None)
            if lease is not None and deadline is not None:
                self.leases.leave_session(lease)
                self.leases.extend(lease, deadline)
                size += 0 if lease_id in writes else lease.record_bytes
                writes[lease_id] = PutLease(lease.id, lease.record())
        return self._uncommitted.plan(queue, list(writes.values()), replies, size)

    def poll(
        self,
        queue: Queue,
        *,
        wanted: int,
        lease_duration: SpanMs,
        wait: SpanMs | None,
        peer: Peer,
        now: WallMs,
        others: Sequence[Queue] | None = None,
        weights: Sequence[int] = (),
        session: bytes = b"",
    ) -> Waiter:
        """
        Let a poll for *wanted* items wait for at most *wait*: 0 for not at all, None for ever.

        With *others*, though there be none, it chooses: it waits in these queues, too, and takes items of one, of the
        first that has an item, *queue* before *others*, or by the *weights* of all.

        With *session*, its lease lasts as long as that session is attached, and
        *lease_duration* does not matter.

        A claim serves it or answers it with no items.  The caller cancels it
        (`polls.cancel`) if its peer does not want the reply any more.

        Raises:
            InvalidRequest: there is neither a duration of the lease, of the poll or by default of the queue, nor a
                session, or that is not attached to the connection *peer*.
            Overloaded: too many polls wait, or too many items are leased.
        """
        limits, settings = self._limits, queue.settings
        queue.used_at = now
        attached = self.sessions.of(SessionId(session), peer) if session else None
        if lease_duration <= 0 and attached is None:
            lease_duration = settings.lease_ms
            if not lease_duration:
                raise _not_a_duration()
        if wanted > limits.poll_items:
            self.limit_hits["poll_items"] += 1
            wanted = limits.poll_items
        if wait is not None and wait > limits.wait_ms:
            self.limit_hits["wait_ms"] += 1
            wait = limits.wait_ms
        wait_until = None if wait is None else WallMs(now + wait)
        choice = None
        if others is not None:
            choice = _choice((queue, *others), weights)
            for each in others:
                each.used_at = now
        waiter = Waiter(queue, wanted or 1, lease_duration, wait_until, peer, session=attached, choice=choice)
        self.polls.enqueue(waiter, no_wait=wait == 0)
        return waiter

    # After a commit

    def confirm_delivery(self, delivery: Delivery) -> Plan[None] | None:
        """
        Let the reply of *delivery*, whose claim is durable, be sent and its lease expire.

        Returns:
            None.  If the poll was abandoned, the plan that gives its items back instead; then nothing may be sent.
        """
        waiter, lease, session = delivery.waiter, delivery.lease, delivery.waiter.session
        # A session is bound when the reply is sent: its connection may have changed since the claim.
        abandoned = waiter.state is PollState.ABANDONED or (session is not None and session.peer != waiter.peer)
        waiter.advance(PollInput.CONFIRMED)
        if lease is None:
            return None
        if abandoned:
            return self._expiry.give_back(waiter.queue, lease)
        self.leases.activate(lease)
        return None

    # Results of scans

    def refilled(self, refill: Refill, scan: Scan) -> None:
        """Add the rows of a scan to its queue's window."""
        self._uncommitted.finish_refill(refill, scan)
        self.polls.mark_runnable(refill.queue)

    def refill_failed(self, refill: Refill, error: QueueberError) -> list[Delivery]:
        """End the polls that wait for a queue whose scan failed with *error*: an empty reply would be wrong."""
        self._uncommitted.finish_refill(refill, None)
        return self.claims.fail(refill.queue, error)

    def fail_polls(self, error: QueueberError) -> list[Delivery]:
        """End all waiting polls with *error*."""
        return self.claims.fail_all(error)

    # Statistics

    def stats(self) -> Stats:
        """Return how much there is of everything."""
        return Stats(
            queues=len(self.queues),
            items=sum(queue.items for queue in self.queues),
            leases=len(self.leases),
            leased_items=self.leases.items,
            waiting_polls=self.polls.waiting,
            window_bytes=self.queues.windows.bytes,
            uncommitted_plans=len(self._uncommitted),
        )

    def dump(self) -> str:
        """Return the whole state as text, a line for each queue and lease."""
        sizes = " ".join(f"{name}={value}" for name, value in asdict(self.stats()).items())
        return "\n".join([sizes, *map(queue_line, self.queues), *map(lease_line, self.leases)])

    def check(self) -> None:
        """Raise AssertionError if the parts disagree.  O(n); for tests."""
        self.queues.check()
        self.leases.check()
        self.polls.check()
        held: dict[Queue, dict[ItemId, Lease]] = {}
        for lease in self.leases:
            held.setdefault(self.queues.by_number(lease.queue), {}).update(dict.fromkeys(lease.keys, lease))
        for queue in self.queues.lines():
            assert queue.held == held.get(queue, {}), "an item is held by no lease, or leased and not held"
            assert queue.refill is not None or queue.number is None or len(queue.window) <= queue.items


def _choice(queues: tuple[Queue, ...], weights: Sequence[int]) -> QueueChoice:
    """Return the choice among *queues*; raise InvalidRequest if one is there twice."""
    for place, queue in enumerate(queues):
        if queue in queues[:place]:
            raise InvalidRequest(f"queues[{place}].queue is {queue.name!r}, which is in the list already")
    return QueueChoice(queues, tuple(weights))


def _not_a_duration() -> InvalidRequest:
    return InvalidRequest("leaseValiditySecs and leaseValidityMs are both 0; a lease must last longer (> 0)")


def _not_a_lease_id(lease_id: bytes) -> InvalidRequest:
    return InvalidRequest(f"lease is {counted(len(lease_id), 'byte')}; it must be {ID_BYTES}")
