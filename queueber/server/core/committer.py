"""
Group commit: decide, make durable, then reply.

At most one commit is in flight.  Plans that arrive meanwhile share the next
one, so a slow disk makes larger commits, not longer queues.  A commit is cut
in a reactor turn of its own (`callLater(0)`), so that it takes the calls of
all sockets that were read in one turn.  After a commit of many calls the cut
waits for as long as each turn brings more, up to `GATHER_SECONDS`.  After a
commit of one call it does not wait for the turn: the next call is likely to
be alone, too, and the cut comes at the end of the read.

A failed write or fsync means that memory is ahead of a disk that cannot be
trusted.  The thread that notices ends the process: nothing more is
acknowledged, nothing is tried again, and recovery follows the one path it has
after any crash.  A write stall is no failure: nothing was written, and the
same writes are tried again later.

The states and their changes are in `commit_states`.  A plan or `wake` wants a
cut.  A read is noted only if it may end with one.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from queueber.broker import Broker, Plan, Store, StoreStalled, TimeMark, Write
from queueber.broker.model import LeaseId
from queueber.broker.storage import PutLease
from queueber.errors import Overloaded
from queueber.limits import Limits
from queueber.server.core.clock import QueueClock
from queueber.server.core.commit_batch import PLAN_BYTES, CommitBatch, Pending, only_leases, take_batch
from queueber.server.core.commit_states import COMMIT_TRANSITIONS, IN_FLIGHT, WITHOUT_CUT, CommitInput, CommitState
from queueber.server.core.pool import Pool
from queueber.server.core.stats import CommitStats
from queueber.units import counted

T = TypeVar("T")

CALL_BYTES = 160
"""Memory for each further call that shares a plan: its number, its reply, and its place in both lists."""

GATHER_CALLS = 8
"""The cut waits for more calls if the last commit answered at least this number of calls."""

GATHER_SECONDS = 0.002
"""The longest time that a cut waits for more calls."""

STALL_SECONDS = 0.05
"""Between two attempts at a stalled write."""


@define(eq=False)
class Committer:
    """Makes plans durable in the order in which they are submitted, then returns their replies."""

    _reactor: Any
    _broker: Broker
    _store: Store
    _pool: Pool
    _clock: QueueClock
    _limits: Limits
    _end_process: Callable[[str, BaseException], None]
    """May be called from any thread."""

    _flush_replies: Callable[[], None]
    """Called once all replies of a commit were returned: they may be sent."""

    _window_seconds: float
    """The time that each cut waits for more calls."""

    stats: CommitStats
    _decide: list[Callable[[], None]] = field(factory=list, init=False)
    _serve_polls: list[Callable[[], None]] = field(factory=list, init=False)
    _pending: deque[Pending] = field(factory=deque, init=False)
    _pending_leases: set[LeaseId] = field(factory=set, init=False)
    """The leases whose records the pending plans will write, however often they are extended."""

    pending_bytes: int = field(default=0, init=False)
    """
    Memory for the plans that wait for a commit, and for calls that read rows before they are decided.

    A plan counts its contents, its rows and itself; a call counts the bytes that it reserves.
    """

    _state: CommitState = field(default=CommitState.IDLE, init=False)
    _began: float = field(default=0.0, init=False)
    """When the commit in flight was cut, in the reactor's seconds."""

    _decision_scheduled: bool = field(default=False, init=False)
    _woken: bool = field(default=False, init=False)
    """`wake` was called since the last cut."""

    _time_mark_wanted: bool = field(default=False, init=False)
    """The next commit is made even if it writes nothing but the mark of the clocks."""

    _calls: int = field(default=0, init=False)
    """Calls of the plans that were submitted since the last cut."""

    _last_calls: int = field(default=0, init=False)
    """The value of `_calls` at the last cut."""

    _gathered_calls: int = field(default=0, init=False)
    """The value of `_calls` one reactor turn ago."""

    _gathering_since: float = field(default=0.0, init=False)
    _idle: list[Deferred[None]] = field(factory=list, init=False)
    commits: int = field(default=0, init=False)
    """Commits that were made."""

    def call_to_decide(self, decide: Callable[[], None]) -> None:
        """Call *decide* soon after `decide_soon` and at each cut: it submits the plans of calls that were collected."""
        self._decide.append(decide)

    def decide_soon(self) -> None:
        """Have calls that were collected decided at the end of this read or in the next reactor turn."""
        if self._state is CommitState.READING:
            # As `_want_cut`, without the call.
            self._state = COMMIT_TRANSITIONS[self._state, CommitInput.CUT_WANTED]
        elif self._state in IN_FLIGHT or self._window_seconds:
            if not self._decision_scheduled:
                self._decision_scheduled = True
                self._reactor.callLater(0, self.decide_now)
        elif self._state is CommitState.IDLE:
            self._want_cut()

    def decide_now(self) -> None:
        """Have calls that were collected decided before any other decision."""
        self._decision_scheduled = False
        for decide in self._decide:
            decide()
        self._flush_replies()

    def call_at_cuts(self, serve_polls: Callable[[], None]) -> None:
        """
        Call *serve_polls* at each cut while polls wait.

        The batch is taken after that: plans that it submits join it.
        """
        self._serve_polls.append(serve_polls)

    def submit(self, plan: Plan[T], take_reply: Callable[[T], None], *, calls: int = 1) -> None:
        """
        Make *plan* durable, then call *take_reply* with its reply, which answers *calls*.

        A plan without writes waits for the plans before it, because its reply may depend on them.
        """
        writes = plan.writes
        if not writes and not self._pending and self._state not in IN_FLIGHT:
            take_reply(plan.reply)
            return
        size = self._limits.item_overhead * plan.rows + CALL_BYTES * (calls - 1)
        leases = None
        if writes:
            first = writes[0]
            # Adds and removes begin with another kind of row; a lone poll or extend writes one lease.
            if type(first) is PutLease:
                leases = {first.id: first} if len(writes) == 1 else only_leases(writes)
        if leases is None:
            size += plan.size
        elif not leases.keys() <= self._pending_leases:
            self._pending_leases |= leases.keys()
            size += plan.size
        self._calls += calls
        self._pending.append((plan, take_reply, size, leases))
        self.pending_bytes += size + PLAN_BYTES
        if self._state in WITHOUT_CUT:
            self._want_cut()

    def require_room(self, *, adding: bool = False) -> None:
        """
        Raise `Overloaded` if a call, which is *adding* items or not, would have to wait for too much.

        Everything that waits is over the limit `pending_bytes`, or no more should be added to the store at the moment.
        """
        if adding and self._state is CommitState.STALLED:
            raise Overloaded("the storage engine has to catch up first; try again later")
        if self.pending_bytes > self._limits.pending_bytes:
            raise Overloaded(
                f"plans that wait for the disk hold {counted(self.pending_bytes, 'byte')};"
                f" the limit is {self._limits.pending_bytes:,} (pending_bytes)",
                limit="pending_bytes",
            )

    def reserve(self, size: int) -> None:
        """Count *size* in `pending_bytes` until `release`, for a call whose plan is not submitted yet."""
        self.pending_bytes += size

    def release(self, size: int) -> None:
        """Count *size* no longer, before the call's plan is submitted: that counts by itself."""
        self.pending_bytes -= size

    def wake(self) -> None:
        """Cut soon, even if no plan is submitted: waiting polls can be served."""
        self._woken = True
        if self._state in WITHOUT_CUT:
            self._want_cut()

    def mark_time(self) -> None:
        """Write a mark of the clocks if the wall clock was set since the last mark.  To be called every second."""
        if self._clock.stepped():
            self._time_mark_wanted = True
            self.wake()

    def pending_plans(self) -> Iterator[Plan[Any]]:
        """Return the plans that wait for the next commit, oldest first."""
        return (plan for plan, *_ in self._pending)

    @property
    def committing(self) -> bool:
        """Whether a commit is in flight."""
        return self._state in IN_FLIGHT

    @property
    def stalled(self) -> bool:
        """Whether the store has to catch up first: no more should be added to it."""
        return self._state is CommitState.STALLED

    def commit_seconds(self, now: float) -> float:
        """Return for how long a commit has been in flight; 0 if none is."""
        return now - self._began if self._state in IN_FLIGHT else 0.0

    def begin_read(self) -> None:
        """Note that a connection's input is processed.  `end_read` follows in any case."""
        if self._last_calls == 1 and self._state is CommitState.IDLE and not self._window_seconds:
            self._state = COMMIT_TRANSITIONS[self._state, CommitInput.READ_BEGUN]

    def end_read(self) -> None:
        """Note that the input is processed, and cut if that has become due."""
        if self._state is CommitState.DUE:
            self._cut()
        elif self._state is CommitState.READING:
            self._state = COMMIT_TRANSITIONS[self._state, CommitInput.READ_ENDED]

    def _want_cut(self) -> None:
        """Have a cut made at the end of this read or in the next reactor turn.  None is to come yet."""
        self._state = COMMIT_TRANSITIONS[self._state, CommitInput.CUT_WANTED]
        if self._state is CommitState.SCHEDULED:
            self._gathered_calls, self._gathering_since = 0, self._reactor.seconds()
            self._reactor.callLater(self._window_seconds, self._cut)

    def _cut(self) -> None:
        """Begin a commit with what waits."""
        for decide in self._decide:
            decide()
        if self._last_calls >= GATHER_CALLS and self._more_calls_come():
            self._reactor.callLater(0, self._cut)
            return
        try:
            self._woken = False
            # The state changes when the batch is taken: what is submitted here joins it.
            if self._broker.polls.waiting:
                for serve_polls in self._serve_polls:
                    serve_polls()
            batch = take_batch(self._pending, self._limits)
            self.pending_bytes -= batch.memory
            self._pending_leases.clear()
            self._last_calls, self._calls = self._calls, 0
            if batch.writes or self._time_mark_wanted:
                self._state = COMMIT_TRANSITIONS[self._state, CommitInput.SOMETHING_CUT]
                self._time_mark_wanted = False
                self._began = self._reactor.seconds()
                # As `_write`, without the call.
                mark = self._clock.mark()
                written = self._pool.run(self._commit, batch.writes, mark)
                written.addCallbacks(self._finish, self._failed, (batch,), errbackArgs=(batch, mark))
            else:
                self._state = COMMIT_TRANSITIONS[self._state, CommitInput.NOTHING_CUT]
                self._finish(None, batch)
        except Exception as why:  # noqa: BLE001
            self.bug(why)

    def _more_calls_come(self) -> bool:
        """
        Whether the last reactor turn brought calls for which it pays to wait one more.

        Most of the many calls that the last commit answered are followed by others within a moment.  The first few of
        those would get a commit of their own, whose sync, reactor turns and thread switches cost the others more than
        they save these.  A turn that brings no call is the last.
        """
        before, self._gathered_calls = self._gathered_calls, self._calls
        if self._calls == before:
            return False
        waited: float = self._reactor.seconds() - self._gathering_since
        return waited < GATHER_SECONDS

    def _write(self, batch: CommitBatch, mark: TimeMark) -> None:
        written = self._pool.run(self._commit, batch.writes, mark)
        written.addCallbacks(self._finish, self._failed, (batch,), errbackArgs=(batch, mark))

    def _commit(self, writes: Sequence[Write], mark: TimeMark) -> None:
        """On a storage thread: commit, and end the process if that fails."""
        try:
            self._store.commit(writes, mark)
        except StoreStalled:
            raise
        except BaseException as why:  # noqa: BLE001  (whatever it was, the disk cannot be trusted)
            self._end_process("A commit failed", why)

    def _failed(self, failure: Failure, batch: CommitBatch, mark: TimeMark) -> None:
        if failure.check(StoreStalled) is None:
            self._end_process("A commit could not be made", _reason(failure))
            return
        self._state = COMMIT_TRANSITIONS[self._state, CommitInput.STORE_STALLED]
        self.stats.stalled()
        self._reactor.callLater(STALL_SECONDS, self._write, batch, mark)

    def _finish(self, _: None, batch: CommitBatch) -> None:
        """Return the replies of *batch*, which is durable or has nothing to write."""
        try:
            if self._state in IN_FLIGHT:
                self.commits += 1
                self._broker.committed(batch.plans)
                now = self._reactor.seconds()
                self.stats.made(now, now - self._began, len(batch.replies), batch.rows, batch.bytes)
                self._state = COMMIT_TRANSITIONS[self._state, CommitInput.DURABLE]
            for plan, take_reply in batch.replies:
                take_reply(plan.reply)
            self._flush_replies()
            if self._pending or self._woken:
                self.wake()
            elif self._idle:
                idle, self._idle = self._idle, []
                for waiting in idle:
                    waiting.callback(None)
        except Exception as why:  # noqa: BLE001
            self.bug(why)

    def idle(self) -> Deferred[None]:
        """Return a Deferred that fires once nothing waits for a commit and none is in flight."""
        waiting: Deferred[None] = Deferred()
        self._idle.append(waiting)
        self.wake()
        return waiting

    def bug(self, why: BaseException | Failure) -> None:
        """
        End the process because of an exception out of a decision.

        It is a bug of ours after which memory may be ahead of what will ever be written.
        """
        self._end_process("A decision failed", _reason(why) if isinstance(why, Failure) else why)


def _reason(failure: Failure) -> BaseException:
    return failure.value or RuntimeError("no reason was given")
