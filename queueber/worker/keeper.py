"""
The keeper: applies the rules in the I/O thread of the worker's own connection.

The thread executes the actions of the rules and passes them the answers.  A handler can delay it only by holding the
interpreter lock.  All events from other threads, and all answers, wait in one deque and are processed together, so that
one turn of the thread makes one batch.
"""

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, ParamSpec

from queueber.client_core.calls import Call, PendingCall
from queueber.client_core.reconnect import random_fraction
from queueber.errors import InvalidRequest, Kind, Overloaded, QueueberError
from queueber.fixed_limits import SETTLEMENTS_MAX
from queueber.sync.connector import Connector
from queueber.sync.io_thread import IoThread
from queueber.sync.timers import Timer
from queueber.units import MS_PER_SECOND, SpanMs
from queueber.values import Action, Settlement
from queueber.worker.actions import (
    AnyAction,
    Beat,
    Cancel,
    CancelPoll,
    End,
    Extend,
    GiveBack,
    Log,
    Poll,
    PollAnswer,
    ReportStall,
    Settle,
    Start,
    TakenItem,
)
from queueber.worker.attachment import Attachment, LeaseOptions
from queueber.worker.handling import LOG
from queueber.worker.items import WorkItem
from queueber.worker.liveness import Watch
from queueber.worker.loop_watch import stack_of
from queueber.worker.policy import Policy
from queueber.worker.polling import PollMode
from queueber.worker.rules import WorkerRules
from queueber.worker.runners import Runner
from queueber.worker.source import Answer, QueueSource, settle_without_settle
from queueber.worker.telemetry import Telemetry
from queueber.worker.verdicts import Verdict

POLL_SECONDS = 20.0
"""The longest wait of a poll.  Each answer is a sign that polling works."""

POLL_PART = 1 / 3
"""The most that a poll may wait, as a part of the lease: the lease begins at a time that the worker does not know."""

GIVE_BACK_MS = SpanMs(1)
RETRY_SECONDS = 1.0

CLOSE_SECONDS = 1.0
"""The time for closing the connection, after which the worker's end is reported in any case."""

P = ParamSpec("P")


class Keeper:
    """The connection of one worker, and its rules."""

    def __init__(
        self,
        connector: Connector,
        source: QueueSource,
        policy: Policy,
        upkeep: LeaseOptions,
        *,
        session: bytes | None,
        watch: Watch,
        telemetry: Telemetry | None,
        on_end: Callable[[Exception | None], None],
    ) -> None:
        """
        Poll *source* over *connector* in *session*, or in a new one.

        Call *on_end* in a thread, with the error that ended it or None.
        """
        self._connector = connector
        self._source = source
        self._upkeep = upkeep
        self._session = session
        self._watch = watch
        self._telemetry = telemetry
        self._on_end = on_end
        self._runner: Runner | None = None
        self._thread: IoThread | None = None
        self._made_at = monotonic()
        self._rules = WorkerRules(policy, self._made_at, random_fraction)
        self._news: deque[Callable[[float], None]] = deque()
        self._woken = False
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._attachment: Attachment | None = None
        self._polls: dict[int, PendingCall] = {}
        self._ended = False
        self._actions: dict[type, Callable[[Any], None]] = {
            Poll: self._poll,
            CancelPoll: self._cancel_poll,
            Settle: self._settle,
            Extend: self._extend,
            GiveBack: self._give_back,
            Start: self._start,
            Cancel: self._cancel,
            Log: lambda action: LOG.log(action.level, action.text),
            Beat: self._beat,
            ReportStall: self._report_stall,
            End: self._end,
        }

    # ---- for other threads

    def start(self, runner: Runner) -> None:
        """Connect, and run handlers in *runner*.  Raises `NotConnected` if there is no thread for it."""
        self._runner = runner
        self._thread = self._connector.io()
        self._thread.post(self._guarded(self._begin))

    def done(self, taken: TakenItem, verdict: Verdict | None) -> None:
        """Note that a handler has ended.  Part of `Reports`."""
        self._news.append(partial(self._rules.done, taken, verdict))
        if not self._woken:
            self._wake()

    def loop_turned(self) -> None:
        """Note that the event loop of the handlers has run.  Part of `Reports`."""
        self._tell(lambda _: self._rules.loop_turned())

    def stop(self, grace: float) -> None:
        """Stop, or when it is called again, end at once.  Safe in a signal handler."""
        self._tell(partial(self._rules.stop, grace))

    @property
    def rules(self) -> WorkerRules:
        """The state of the worker, for observers."""
        return self._rules

    @property
    def away_since(self) -> float | None:
        """Monotonic seconds since which there is no connection; None with one."""
        return self._made_at if self._attachment is None else self._attachment.connection.away_since

    def _tell(self, news: Callable[[float], None]) -> None:
        """Process an event, *news*, a function of the time, in the next turn of the I/O thread."""
        self._news.append(news)
        if not self._woken:
            self._wake()

    def _wake(self) -> None:
        if self._thread is not None:
            self._woken = True
            self._thread.post(self._guarded(self._turn))

    # ---- the I/O thread

    @property
    def _io(self) -> IoThread:
        assert self._thread is not None
        return self._thread

    def _guarded(self, function: Callable[P, None]) -> Callable[P, None]:
        """Return *function*, whose exceptions end the worker: without its thread it would be silent for ever."""

        def calling(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                function(*args, **kwargs)
            except Exception as why:  # noqa: BLE001  (any bug)
                LOG.critical("a bug in Queueber ends the worker", exc_info=why)
                if not self._ended:
                    self._end(End(why))

        return calling

    def _begin(self) -> None:
        self._rules.allow_polls(PollMode.NONE)
        self._attachment = Attachment(
            self._io,
            self._source,
            self._upkeep,
            session=self._session,
            on_change=lambda: self._tell(self._look_at_attachment),
            on_lost=lambda lease: self._tell(lambda _: self._rules.lease_lost(lease)),
            on_refused=lambda why: self._tell(partial(self._rules.refused, why)),
        )
        self._turn()

    def _look_at_attachment(self, _: float) -> None:
        assert self._attachment is not None
        self._rules.allow_polls(self._attachment.polls)

    def _turn(self) -> None:
        """Process all events, and execute the actions of the rules."""
        self._woken = False
        now = monotonic()
        self._look_at_session(now)
        while self._news:
            self._news.popleft()(now)
        self._do(self._rules.actions(now))
        self._wake_later(now)

    def _look_at_session(self, now: float) -> None:
        if (attachment := self._attachment) is not None:
            attachment.tick(now)
            if attachment.safe_until is not None:
                self._rules.covered(attachment.safe_until)

    def _do(self, actions: list[AnyAction]) -> None:
        for action in actions:
            self._actions[type(action)](action)

    def _wake_later(self, now: float) -> None:
        """Set the timer for the next tick of the rules, or the session's, unless one is set that is early enough."""
        if self._ended:
            return
        at = self._rules.wake_at(now)
        if self._attachment is not None and self._attachment.next_at is not None:
            at = min(at, self._attachment.next_at)
        if self._timer is None or at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            self._timer = self._io.timers.call_later(max(0.0, at - now), self._guarded(self._tick))

    def _tick(self) -> None:
        self._timer = None
        now = monotonic()
        self._look_at_session(now)
        self._rules.tick(now)
        self._turn()
        self._watch.look(self._rules, now, self.away_since)

    # ---- actions

    def _poll(self, action: Poll) -> None:
        wait = min(POLL_SECONDS, self._upkeep.span / MS_PER_SECOND * POLL_PART)
        sent = monotonic()
        attachment = self._attachment
        assert attachment is not None
        try:
            call = self._source.poll(action.n, self._upkeep.span, SpanMs(int(wait * MS_PER_SECOND)), attachment.session)
        except InvalidRequest as why:
            self._tell(partial(self._rules.poll_failed, action.number, why))
            return

        def polled(outcome: Answer | QueueberError) -> None:
            self._polls.pop(action.number, None)
            if isinstance(outcome, QueueberError):
                if isinstance(outcome, InvalidRequest) and attachment.polls is PollMode.NONE:
                    outcome = Overloaded(f"the session is not attached: {outcome}")
                self._tell(partial(self._rules.poll_failed, action.number, outcome))
            else:
                # After a reconnection the poll was sent again.
                since = attachment.connection.connected_at
                again = sent if since is None else max(sent, since)
                self._tell(partial(self._rules.delivered, action.number, self._delivered(outcome, again)))

        pending = self._io.link.call(call, self._guarded(polled))
        self._polls[action.number] = pending

    def _delivered(self, answer: Answer, sent: float) -> PollAnswer | None:
        queue, response = answer
        if not response.items:
            return None
        if self._telemetry is not None:
            self._telemetry.received(queue, len(response.items), monotonic() - sent)
        facts = response.facts
        items = [
            (
                each.id,
                WorkItem(queue, response.lease, each, facts[at])
                if at < len(facts)
                else WorkItem(queue, response.lease, each),
            )
            for at, each in enumerate(response.items)
        ]
        return PollAnswer(response.lease, self._source.place_of(queue), response.session, items, sent)

    def _cancel_poll(self, action: CancelPoll) -> None:
        if (pending := self._polls.pop(action.number, None)) is not None:
            self._io.link.cancel(pending)

    def _settle(self, action: Settle) -> None:
        sent = monotonic()

        def settled(outcome: Any) -> None:  # noqa: ANN401  (a response or an error)
            if self._telemetry is not None:
                error = outcome if isinstance(outcome, QueueberError) else None
                items = [each.item for each in action.items]
                self._telemetry.settled(action.entries, items, monotonic() - sent, error)
            answer = outcome if isinstance(outcome, QueueberError) else outcome.settled
            if not isinstance(answer, QueueberError) and len(answer) != len(action.entries):
                answer = Overloaded(f"the server answered {len(answer):,} of {len(action.entries):,} settlements")
            self._tell(partial(self._rules.settled, action.number, answer))

        assert self._attachment is not None
        if self._attachment.polls is PollMode.ONE_ITEM:
            settle_without_settle(
                self._io.link,
                self._source,
                action,
                lambda answer: self._tell(partial(self._rules.settled, action.number, answer)),
            )
            return
        try:
            call = self._source.settle(list(action.entries), list(action.adds))
        except InvalidRequest as why:
            self._tell(partial(self._rules.settled, action.number, why))
            return
        self._io.link.call(call, self._guarded(settled))

    def _extend(self, action: Extend) -> None:
        sent = monotonic()
        self._io.link.call(
            self._source.extend(action.place, action.lease, action.span),
            lambda outcome: self._tell(lambda now: self._rules.extended(action.lease, outcome, sent, now)),
        )

    def _give_back(self, action: GiveBack) -> None:
        is_away = self.away_since is not None
        entries = [Settlement(action.lease, each, Action.DEFER) for each in ([b""] if is_away else action.waiting)]
        for start in range(0, len(entries), SETTLEMENTS_MAX):
            self._call_until_done(self._source.settle(entries[start : start + SETTLEMENTS_MAX], []))
        if not is_away:
            self._call_until_done(self._source.extend(action.place, action.lease, GIVE_BACK_MS))

    def _call_until_done(self, call: Call[Any]) -> None:
        """Make *call*, and repeat it after errors that may pass."""

        def answered(outcome: object) -> None:
            if isinstance(outcome, QueueberError) and outcome.kind in (Kind.DISCONNECTED, Kind.OVERLOADED):
                self._io.timers.call_later(RETRY_SECONDS, lambda: None if self._ended else self._call_until_done(call))

        self._io.link.call(call, answered)

    def _start(self, action: Start) -> None:
        assert self._runner is not None
        self._runner.start(action.items)

    def _cancel(self, action: Cancel) -> None:
        assert self._runner is not None
        self._runner.cancel(action.taken, action.why, lost=action.lost)

    def _beat(self, _: Beat) -> None:
        assert self._runner is not None
        self._runner.beat()

    def _report_stall(self, action: ReportStall) -> None:
        stack = "" if self._runner is None else stack_of(self._runner.loop_thread)
        LOG.warning(
            "the event loop has been blocked for %.0f s%s", action.seconds, stack and f", in this code:\n{stack}"
        )

    def _end(self, action: End) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self._runner is not None:
            self._runner.close()
        if self._attachment is not None:
            self._attachment.close()
        try:
            threading.Thread(target=self._close, args=(action.error,), name="queueber closing", daemon=True).start()
        except RuntimeError:
            # The system has no more threads: the end of the connection is not waited for.
            self._io.close()
            self._on_end(action.error)

    def _close(self, error: Exception | None) -> None:
        """Close the connection, in a thread of its own, and report the end."""
        # It sends what is pending, and waits for the answer to a cancelled poll, whose items go back.
        closing = threading.Thread(target=self._connector.close, name="queueber closing", daemon=True)
        try:
            closing.start()
            closing.join(CLOSE_SECONDS)
        except RuntimeError:
            self._io.close()
        self._on_end(error)
