"""
Group commit: decided, made durable, then spoken.

At most one commit is in flight.  Plans that arrive meanwhile wait and go
together in the next one, so a slow disk makes larger commits, not longer
queues.  A commit is cut in a turn of its own (`callLater(0)`), so that all
sockets read in one turn of the reactor share it; while many calls are in
flight, so that all share it that are read in turns that follow each other.

A failed write or fsync means that memory is ahead of a disk that cannot be
trusted.  The process ends there and then, from the thread that saw it:
nothing more is acknowledged, nothing is tried again, and recovery has the one
path it has after any crash.  A write stall is no failure: nothing was
written, and the same writes are tried again later.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from queueber.broker import Broker, Plan, Store, StoreStalled, TimeMark, Write
from queueber.broker.model import LeaseId, QueueNumber, QueueRecord
from queueber.broker.storage import PutLease, PutQueue
from queueber.limits import Limits
from queueber.server.core.clock import QueueClock
from queueber.server.core.pool import Pool
from queueber.server.monitoring.stats import Commit, Commits

T = TypeVar("T")

PLAN_BYTES = 640
"""What a plan that waits costs beside its rows, be there any or not: itself, its reply, and whom to give it to."""

CROWD = 8
"""Calls answered by one commit from which on more are waited for, for as long as they come."""

GATHER_SECONDS = 0.002
"""How long at most."""

CALL_BYTES = 160
"""What each call costs that shares a plan with others: its number, its reply, and its place in both lists."""

# How long a stalled write waits before it is tried again.
STALL_SECONDS = 0.05


@define(eq=False)
class Committer:
    """Makes plans durable in the order in which they are submitted, and says so."""

    _reactor: Any
    _broker: Broker
    _store: Store
    _pool: Pool
    _clock: QueueClock
    _limits: Limits
    _die: Callable[[str, BaseException], None]
    """Ends the process; may be called from any thread."""

    _after_speaking: Callable[[], None]
    """Called when all replies of a commit have been given: they may be sent."""

    _window_seconds: float
    """How long each commit waits for more."""

    load: Commits
    """What the commits were like."""

    _deciders: list[Callable[[], None]] = field(factory=list, init=False)

    _pending: deque[tuple[Plan[Any], Callable[[Any], None], int]] = field(factory=deque, init=False)
    """With what is counted for its rows."""

    _extended: set[LeaseId] = field(factory=set, init=False)
    """The leases whose records the pending plans will write, however often they are extended."""

    pending_bytes: int = field(default=0, init=False)
    """What the plans that wait for the disk take: contents, the rows beside them, and the plans themselves."""

    _flying: list[tuple[Plan[Any], Callable[[Any], None]]] | None = field(default=None, init=False)
    _cut_wanted: bool = field(default=False, init=False)
    _cut_scheduled: bool = field(default=False, init=False)
    _mark_wanted: bool = field(default=False, init=False)
    """The next commit is made even if it writes nothing."""

    _calls: int = field(default=0, init=False)
    """How many calls the plans answer that were submitted since the last cut."""

    _last_calls: int = field(default=0, init=False)
    _seen: int = field(default=0, init=False)
    _began: float = field(default=0.0, init=False)
    _idle: list[Deferred[None]] = field(factory=list, init=False)
    stalled: bool = field(default=False, init=False)
    """The store has to catch up first: no more should be added to it."""

    commits: int = field(default=0, init=False)

    def before_each_cut(self, decide: Callable[[], None]) -> None:
        """Call *decide* at each cut, before the batch is taken: plans that it submits go into that batch."""
        self._deciders.append(decide)

    def submit(self, plan: Plan[T], speak: Callable[[T], None], *, calls: int = 1) -> None:
        """Call *speak* with the plan's reply, which answers *calls*, once all that it may tell of is durable."""
        if not plan.writes and self._flying is None and not self._pending:
            speak(plan.reply)
            return
        size = self._limits.item_overhead * len(plan.writes) + CALL_BYTES * (calls - 1)
        leases = _only_leases(plan)
        if not leases or not leases.keys() <= self._extended:
            self._extended |= leases.keys()
            size += plan.size
        self._calls += calls
        self._pending.append((plan, speak, size))
        self.pending_bytes += size + PLAN_BYTES
        self.wake()

    def wake(self) -> None:
        """See to it that there is a cut soon."""
        self._cut_wanted = True
        if self._flying is None and not self._cut_scheduled:
            self._cut_scheduled = True
            self._seen, self._began = 0, self._reactor.seconds()
            self._reactor.callLater(self._window_seconds, self._scheduled_cut)

    def mark_time(self) -> None:
        """Put a mark of the clocks on disk if the wall clock was set since the last one.  To be called every second."""
        if self._clock.stepped():
            self._mark_wanted = True
            self.wake()

    def _scheduled_cut(self) -> None:
        if self._flying is None and self._more_comes():
            self._reactor.callLater(0, self._scheduled_cut)
            return
        self._cut_scheduled = False
        if self._flying is None:
            self._guard(self._cut)

    def _more_comes(self) -> bool:
        """
        Whether the reactor's last turn has brought calls for which it pays to wait one more.

        Most of the many calls that the last commit answered are followed by others within a moment.  The first few
        of those would get a commit of their own, whose sync, rounds of the reactor and changes of threads cost the
        others more than they save these.  Nobody waits for nothing: a turn that brings none is the last.
        """
        seen, self._seen = self._seen, self._calls
        if self._last_calls < CROWD or self._calls == seen:
            return False
        waited: float = self._reactor.seconds() - self._began
        return waited < GATHER_SECONDS

    def _cut(self) -> None:
        self._cut_wanted = False
        self._last_calls, self._calls = self._calls, 0
        for decide in self._deciders:
            decide()
        batch = self._take_batch()
        if not self._mark_wanted and not any(plan.writes for plan, _ in batch):
            self._speak(batch)
            return
        self._mark_wanted = False
        self._flying = batch
        self.load.begun = self._reactor.seconds()
        self._write(_rows(batch), self._clock.mark())

    def _take_batch(self) -> list[tuple[Plan[Any], Callable[[Any], None]]]:
        batch = []
        rows = size = 0
        while self._pending and rows < self._limits.commit_rows and size < self._limits.commit_bytes:
            plan, speak, counted = self._pending.popleft()
            batch.append((plan, speak))
            # One that writes nothing has to be spoken, too.
            rows += len(plan.writes) or 1
            size += counted
        self.pending_bytes -= size + PLAN_BYTES * len(batch)
        self._extended.clear()
        return batch

    def _write(self, writes: Sequence[Write], mark: TimeMark) -> None:
        done = self._pool.run(self._commit, writes, mark)
        done.addCallbacks(lambda _: self._guard(self._committed), lambda failure: self._stall(failure, writes, mark))

    def _commit(self, writes: Sequence[Write], mark: TimeMark) -> None:
        try:
            self._store.commit(writes, mark)
        except StoreStalled:
            raise
        except BaseException as why:  # noqa: BLE001  (whatever it was, the disk cannot be trusted)
            self._die("A commit failed", why)

    def _stall(self, failure: Failure, writes: Sequence[Write], mark: TimeMark) -> None:
        if failure.check(StoreStalled) is None:
            self._die("A commit could not be made", _reason(failure))
            return
        self.stalled = True
        self.load.stalls += 1
        self._reactor.callLater(STALL_SECONDS, self._write, writes, mark)

    def _committed(self) -> None:
        batch = self._flying
        assert batch is not None
        self.stalled = False
        self.commits += 1
        rows = size = 0
        durable: list[Plan[Any]] = []
        for plan, _ in batch:
            rows += len(plan.writes)
            size += plan.size
            if plan.writes:
                durable.append(plan)
        self._broker.committed(durable)
        now = self._reactor.seconds()
        self.load.made(Commit(now, self.load.age(now), len(batch), rows, size))
        self._flying = None
        self._speak(batch)

    def _speak(self, batch: Sequence[tuple[Plan[Any], Callable[[Any], None]]]) -> None:
        for plan, speak in batch:
            speak(plan.reply)
        self._after_speaking()
        if self._pending or self._cut_wanted:
            self.wake()
        else:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)

    def idle(self) -> Deferred[None]:
        """Fires once nothing is left to be made durable."""
        waiting: Deferred[None] = Deferred()
        self._idle.append(waiting)
        self.wake()
        return waiting

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as why:  # noqa: BLE001
            self.bug(why)

    def bug(self, why: BaseException | Failure) -> None:
        """
        End the process because of an exception out of a decision.

        It is a bug of ours after which memory may be ahead of what will ever be written.
        """
        self._die("A decision failed", _reason(why) if isinstance(why, Failure) else why)


def _reason(failure: Failure) -> BaseException:
    return failure.value or RuntimeError("no reason was given")


def _only_leases(plan: Plan[Any]) -> dict[LeaseId, PutLease]:
    """The leases' records, if *plan* writes nothing else: it extends leases, or is a claim."""
    leases = {write.id: write for write in plan.writes if type(write) is PutLease}
    return leases if len(leases) == len(plan.writes) else {}


def _rows(batch: Sequence[tuple[Plan[Any], Callable[[Any], None]]]) -> list[Write]:
    """All writes in order, and of each queue's and each extended lease's records the last."""
    writes: list[Write] = []
    records: dict[QueueNumber, QueueRecord] = {}
    extended: dict[LeaseId, int] = {}
    for plan, _ in batch:
        leases = _only_leases(plan)
        if not leases:
            writes += plan.writes
        for lease_id, write in leases.items():
            # A lease extended a thousand times is written once; its record is as long as it has items.
            at = extended.setdefault(lease_id, len(writes))
            writes[at : at + 1] = [write]
        if plan.record is not None:
            records[plan.record.number] = plan.record
    writes += [PutQueue(record) for record in records.values()]
    return writes
