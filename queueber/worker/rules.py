"""
The rules of a worker, without I/O: events and the time go in, actions come out.

    rules.delivered(poll, answer, now)      # or done, settled, lease_lost, tick, stop, …
    for action in rules.actions(now):       # Poll, Start, Settle, Extend, Cancel, Log, End, …
        …

A taken item is one item under one lease.  Its states:

| State | a slot is free | the handler ends | lease lost | too long | loop blocked |
|---|---|---|---|---|---|
| WAITING | RUNNING | | OVER | | settled: defer |
| RUNNING | | settled: its verdict | ABANDONED | ENDING | ABANDONED, settled: fail |
| ENDING | | settled: its verdict or the reason's | ABANDONED | ABANDONED, settled | ABANDONED, settled: fail |
| ABANDONED | | OVER, without a result | | | |

| State | stop | grace over | second stop |
|---|---|---|---|
| WAITING | settled: defer | | |
| RUNNING | | ENDING | ABANDONED, settled: defer |
| ENDING | | | ABANDONED, settled: defer |

A handler is cancelled whenever its item becomes ENDING or ABANDONED.
*Settled* means that it leaves upkeep and its verdict goes to `settling`, once in its life, and that its state is OVER
unless its handler runs on.  *Too long* is `max_runtime` for a RUNNING one, and `ENDING_SECONDS` for an ENDING one.
*Loop blocked* means that the event loop of the handlers has not run for `stall` seconds in which this thread ran.
WAITING items are returned earlier, after `SLOW_SECONDS`.

At most `concurrency` items have a handler, in whatever state.  Those and the waiting ones and those that a poll
may bring are together at most `concurrency` + `prefetch`.
"""

import logging
from collections.abc import Callable, Sequence

from queueber.errors import InvalidRequest, QueueberError, Unimplemented
from queueber.values import Action, Outcome, Settled, id_text
from queueber.worker.actions import (
    AnyAction,
    Beat,
    Cancel,
    End,
    GiveBack,
    KeptLease,
    Log,
    PollAnswer,
    ReportStall,
    Start,
    TakenItem,
    TakenState,
)
from queueber.worker.leases import Leases
from queueber.worker.loop_watch import LoopState, LoopWatch
from queueber.worker.policy import BACKLOG_MAX, ENDING_SECONDS, IDLE_SECONDS, TICK_SECONDS, Counts, Policy
from queueber.worker.polling import Polling, PollMode
from queueber.worker.settling import Settling
from queueber.worker.shutdown import Life, Shutdown
from queueber.worker.taken_items import TakenItems
from queueber.worker.verdicts import DEFER, UNASKED_CANCEL, Verdict


class WorkerRules:
    """The state of one worker.  Not thread-safe: `keeper` calls it from one thread."""

    def __init__(self, policy: Policy, now: float, jitter: Callable[[], float]) -> None:
        """*jitter* returns numbers between 0 and 1."""
        self.policy = policy
        self.counts = Counts()
        self.last_end = now
        """When a handler last ended, or the worker began."""

        self._actions: list[AnyAction] = []
        self._life = Shutdown()
        self._poll = Polling(policy, now, jitter)
        self._leases = Leases(policy.lease_seconds)
        self._settling = Settling(self._actions.append, self._finished)
        self._loop = None if policy.stall is None else LoopWatch(policy.stall, now)
        self._all = TakenItems()
        self.refusal: QueueberError | None = None
        """The error with which the worker ends, because it is the same for each attempt."""

    # ---- what others may see

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._life.state is not Life.SERVING

    @property
    def waiting(self) -> int:
        """The number of prefetched items."""
        return len(self._all.waiting)

    @property
    def running(self) -> int:
        """The number of running handlers, including those whose items are abandoned."""
        return self._all.with_handler

    @property
    def abandoned(self) -> int:
        """The number of handlers that still run without a lease."""
        return len(self._all.abandoned)

    @property
    def settling(self) -> int:
        """The number of verdicts that the server has not confirmed."""
        return len(self._settling)

    @property
    def polling(self) -> bool:
        """Whether a poll is under way."""
        return bool(self._poll.number)

    @property
    def full(self) -> bool:
        """Whether `concurrency` handlers are running."""
        return self.running >= self.policy.concurrency

    @property
    def last_poll(self) -> float:
        """When a poll was last answered, or the worker began."""
        return self._poll.last_answer

    @property
    def blocked_seconds(self) -> float:
        """Seconds for which the event loop has been blocked, as far as is known."""
        return 0.0 if self._loop is None else self._loop.blocked_seconds

    @property
    def leases(self) -> int:
        """The number of leases that are needed."""
        return len(self._leases)

    def wake_at(self, now: float) -> float:
        """Return when `tick` should be called next."""
        busy = self._all or len(self._leases) or self.stopping
        at = now + (TICK_SECONDS if busy else IDLE_SECONDS)
        return min([at, *(each for each in (self._settling.wake_at(), self._poll.wake_at(now)) if each is not None)])

    # ---- events

    def delivered(self, number: int, answer: PollAnswer | None, now: float) -> None:
        """Process the answer to the poll *number*, None if its wait ended without items."""
        current = self._poll.answered(number, now)
        self.counts.polls += 1
        if answer is None:
            return
        items = self._leases.add(answer)
        self.counts.delivered += len(items)
        self._all.wait(items)
        if not current or self.stopping:
            # The poll was cancelled, and its reply was on its way.
            for taken in items:
                self._hand_back(taken, now)

    def poll_failed(self, number: int, why: QueueberError, now: float) -> None:
        """Process the failure of the poll *number*."""
        if number != self._poll.number:
            return
        wait = self._poll.failed(now)
        if isinstance(why, InvalidRequest | Unimplemented) and not self.counts.polls:
            self.refused(why, now)
            return
        self._log(logging.WARNING if self._poll.errors == 1 else logging.INFO, f"polling again in {wait:.1f} s: {why}")

    def refused(self, why: QueueberError, now: float) -> None:
        """End with the error *why*, which is the same for each attempt, unless a stop was asked for before."""
        if not self.stopping:
            self.refusal = why
            self.stop(0, now)

    def done(self, taken: TakenItem, verdict: Verdict | None, now: float) -> None:
        """Note that the handler of *taken* has ended, with its *verdict*, or None if it was cancelled."""
        self.last_end = now
        self._poll.handled(now - taken.started)
        state = self._all.drop(taken)
        if state is TakenState.ABANDONED:
            self._log(logging.INFO, f"the handler of item {id_text(taken.id)} has ended; its result is dropped")
            return
        if not self._leases.safe(taken.lease, now):
            self.counts.lost += 1
            taken.lease.held.discard(taken)
            self._log(logging.WARNING, f"item {id_text(taken.id)} was done after its lease had ended, too late")
            self._give_up(taken.lease)
            return
        if state is TakenState.ENDING and (verdict is None or verdict[:2] == (Action.FAIL, None)):
            # Whatever the handler raised comes from being asked to end.
            verdict = taken.on_end
        self._settle(taken, verdict or UNASKED_CANCEL, now)

    def settled(self, number: int, answer: Sequence[Settled] | QueueberError, now: float) -> None:
        """Process the answer to the `Settle` *number*."""
        self._settling.settled(number, answer, now)

    def extended(self, lease: bytes, answer: bool | QueueberError, sent: float, now: float) -> None:
        """Process the answer to an `Extend` that was sent at *sent*."""
        if self._leases.extended(lease, answer, sent, now):
            self._lose(lease, "the server has ended it")

    def lease_lost(self, lease: bytes) -> None:
        """Note that the server has ended *lease*."""
        self._lose(lease, "the server has ended it")

    def covered(self, until: float) -> None:
        """Note that session leases are safe until *until*."""
        self._leases.covered(until)

    def allow_polls(self, mode: PollMode) -> None:
        """Note whether polls may be sent, and how."""
        self._poll.allow(mode)

    def loop_turned(self) -> None:
        """Note that the event loop of the handlers has turned after a `Beat`."""
        if self._loop is not None and self._loop.turned():
            self._log(logging.WARNING, "the event loop runs again")

    def tick(self, now: float) -> None:
        """Do what is due by *now*."""
        for lease in self._leases.unsafe(now):
            self._give_up(lease)
        self._actions += self._leases.to_extend(now)
        self._watch_runtimes(now)
        if self._loop is not None:
            self._watch_loop(self._loop, now)
        if self._life.cancels(now):
            for taken in list(self._all.running):
                self._ask_to_end(taken, DEFER, "the worker stops", now)

    def stop(self, grace: float, now: float) -> None:
        """
        Stop: no more polls, prefetched items are returned now, handlers have *grace* seconds.

        If it is called again, the worker ends at once, and the items of all handlers are returned.
        """
        if not self.stopping:
            self._pause(now)
        else:
            for taken in [*self._all.running, *self._all.ending]:
                self._abandon(taken, DEFER, "the worker ends now", now)
        self._life.stop(grace, now)

    def actions(self, now: float) -> list[AnyAction]:
        """Return what to do now, in this order; nothing after an `End`."""
        if self._life.state is Life.ENDED:
            return []
        if self._all.waiting and not self.full and not self._slow:
            self._actions.append(Start(self._all.start(self.policy.concurrency - self.running, now)))
        self._settling.flush(now, all_of_it=self.stopping)
        if self.stopping:
            self._end_if_over(now)
        elif not self._slow and len(self._settling) < BACKLOG_MAX:
            poll = self._poll.next(now, running=self.running, waiting=self.waiting)
            if poll is not None:
                self._actions.append(poll)
        actions, self._actions[:] = list(self._actions), []
        return actions

    # ---- rules

    @property
    def _slow(self) -> bool:
        return self._loop is not None and self._loop.slow

    def _pause(self, now: float) -> None:
        """End the poll under way, and give prefetched items back."""
        if cancel := self._poll.cancel():
            self._actions.append(cancel)
        for taken in list(self._all.waiting):
            self._hand_back(taken, now)

    def _hand_back(self, taken: TakenItem, now: float) -> None:
        self._all.drop(taken)
        self._settle(taken, DEFER, now)

    def _settle(self, taken: TakenItem, verdict: Verdict, now: float) -> None:
        # Out of upkeep before it is settled, once in its life.
        taken.lease.held.remove(taken)
        self._settling.add(taken, verdict, now)

    def _finished(self, taken: TakenItem, verdict: Verdict, settled: Settled | None) -> None:
        """Count an item whose verdict was answered, or dropped."""
        self._leases.settled(taken)
        if settled is not None and settled.outcome is Outcome.DONE:
            self.counts.settled(verdict.action)
        else:
            self.counts.lost += 1

    def _lose(self, lease_id: bytes, why: str) -> None:
        """Cancel all that is done under a lease, which has ended."""
        lease = self._leases.lose(lease_id)
        if lease is None:
            return
        for taken in list(lease.held):
            self.counts.lost += 1
            self._log(logging.WARNING, f"the lease on item {id_text(taken.id)} is lost: {why}")
            lease.held.discard(taken)
            if taken.state is TakenState.WAITING:
                self._all.drop(taken)
            else:
                self._leave(taken, "its lease is lost")

    def _give_up(self, lease: KeptLease) -> None:
        """Treat *lease* as lost, because the server may have ended it."""
        if lease.session:
            # If the session attaches once more, the server has it still, and keeps it for as long.
            waiting = [each.id for each in lease.held if each.state is TakenState.WAITING]
            self._actions.append(GiveBack(lease.id, lease.place, waiting))
        self._lose(lease.id, "the server could not be asked in time to keep it")

    def _abandon(self, taken: TakenItem, verdict: Verdict, why: str, now: float) -> None:
        """Settle *taken* although its handler runs on."""
        self._log(logging.WARNING, f"item {id_text(taken.id)} is returned, but its handler is still running: {why}")
        self._settle(taken, verdict, now)
        self._leave(taken, why)

    def _leave(self, taken: TakenItem, why: str) -> None:
        self._all.abandon(taken)
        self._actions.append(Cancel(taken, why, lost=True))

    def _ask_to_end(self, taken: TakenItem, verdict: Verdict, why: str, now: float) -> None:
        self._all.ask_to_end(taken, verdict, now + ENDING_SECONDS)
        self._actions.append(Cancel(taken, why, lost=False))

    def _watch_runtimes(self, now: float) -> None:
        most = self.policy.max_runtime
        for taken in () if most is None else self._all.overdue(most, now):
            why = f"its handler ran for more than {most:g} s (max_runtime)"
            self._log(logging.WARNING, f"item {id_text(taken.id)}: {why}")
            self._ask_to_end(taken, Verdict(Action.FAIL, None, why), why, now)
        for taken in self._all.not_ended(now):
            self._abandon(taken, taken.on_end, f"it was asked to end {ENDING_SECONDS:g} s ago", now)

    def _watch_loop(self, loop: LoopWatch, now: float) -> None:
        match loop.look(now, busy=bool(self._all)):
            case LoopState.ASK:
                self._actions.append(Beat())
            case LoopState.SLOW:
                self._actions.append(ReportStall(loop.blocked_seconds))
                self._pause(now)
            case LoopState.STALLED:
                why = f"the event loop has been blocked for {loop.blocked_seconds:.0f} s"
                self._pause(now)
                for taken in [*self._all.running, *self._all.ending]:
                    self._abandon(taken, Verdict(Action.FAIL, None, f"{why}: a handler blocks it"), why, now)

    def _end_if_over(self, now: float) -> None:
        left = [*self._all.running, *self._all.ending]
        if not self._life.ends(now, handlers=len(left), verdicts=len(self._settling)):
            return
        if unsettled := len(left) + len(self._settling):
            self._log(
                logging.ERROR, f"ended with {unsettled:,} items not settled: they are redelivered when their leases end"
            )
            self.counts.lost += len(left)
            for taken in left:
                taken.lease.held.discard(taken)
                self._leave(taken, "the worker has ended")
        self._actions.append(End(self.refusal))

    def _log(self, level: int, text: str) -> None:
        self._actions.append(Log(level, text))
