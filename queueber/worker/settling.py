"""
Settling in batches: verdicts in, few calls out, and their answers.

A verdict goes out at once while no call is under way.  Otherwise it waits for
an answer, for a full batch, or for `DELAY_SECONDS`, whichever is first: under
load a call carries many verdicts, and without load none waits.

| An entry is | on | it becomes |
|---|---|---|
| pending | a call is due | in flight |
| pending | its lease is lost | dropped, with a line in the log |
| in flight | the server answers it | settled, or lost |
| in flight | a temporary error, or an unknown outcome | pending; settling twice does no harm |
| in flight | a hand-off is `overloaded` | put off, and after `HAND_OFF_WAITS` pending as a `Defer` |
| in flight | `failed`, with others in the call | pending, for a call of its own |
| in flight | `failed`, alone | pending as a plain failure with the server's reason |
| in flight | `failed` as a plain failure | dropped, with a line in the log |
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence

from attrs import define

from queueber.errors import InvalidRequest, Overloaded, QueueberError
from queueber.fixed_limits import SETTLEMENTS_MAX
from queueber.units import SpanMs
from queueber.values import Action, Outcome, Settled, Settlement, id_text
from queueber.worker.actions import AnyAction, Log, Settle, TakenItem
from queueber.worker.verdicts import Verdict, refused

DELAY_SECONDS = 0.01
"""The longest wait of a verdict for others, while calls can be sent."""

FULL = 200
"""Verdicts that are worth a call of their own."""

CALLS_MAX = 8
"""Calls under way at most.  More would not be faster, because the server commits them together."""

BYTES_MAX = 1 << 20
"""Errors in one call at most, about."""

BACKOFF_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits after consecutive calls that could not be done."""

HAND_OFF_WAITS = (0.1, 0.2, 0.5, 1.0, 2.0)
"""
Waits of a hand-off whose queue is full or paused, or has no room on the disk.

Other results do not wait for it.
"""

HAND_OFF_DEFERRED = Verdict(Action.DEFER, SpanMs(10_000))
"""The verdict on an item whose hand-off was put off in vain: its handler runs once more, and no attempt is counted."""


@define(eq=False)
class Entry:
    """A verdict on its way."""

    taken: TakenItem
    verdict: Verdict
    since: float
    tries: int = 0
    """Calls with it that ended with an error, and may have arrived."""

    put_off: int = 0
    """The times that it was put off, if it is a hand-off."""

    not_before: float = 0.0
    """When a hand-off that was put off is sent again."""

    alone: bool = False
    """Whether it goes in a call of its own."""

    replaced: bool = False
    """Whether the verdict is a plain failure because the server refused the handler's."""


class Settling:
    """Verdicts that the server has not confirmed."""

    def __init__(
        self, emit: Callable[[AnyAction], None], finished: Callable[[TakenItem, Verdict, Settled | None], None]
    ) -> None:
        """
        Pass actions to *emit*, and each item to *finished* when its verdict has an answer.

        The answer is None if it was dropped.
        """
        self._emit = emit
        self._finished = finished
        self._pending: deque[Entry] = deque()
        self._put_off: list[Entry] = []
        self._in_flight: dict[int, Sequence[Entry]] = {}
        self._number = 0
        self._errors = 0
        """Calls since the last that was answered."""

        self._not_before = 0.0

    def __len__(self) -> int:
        """Return the number of verdicts without an answer."""
        return len(self._pending) + len(self._put_off) + sum(map(len, self._in_flight.values()))

    def add(self, taken: TakenItem, verdict: Verdict, now: float) -> None:
        """Settle *taken* soon.  It has left upkeep."""
        self._pending.append(Entry(taken, verdict, now, alone=bool(verdict.adds)))

    def wake_at(self) -> float | None:
        """Return when `flush` has something to do, or None if that depends on an answer."""
        at = [each.not_before for each in self._put_off]
        if self._pending:
            at.append(self._pending[0].since + DELAY_SECONDS if self._in_flight else 0.0)
        return max(self._not_before, min(at)) if at and len(self._in_flight) < CALLS_MAX else None

    def flush(self, now: float, *, all_of_it: bool = False) -> None:
        """Send what is due by *now*.  With *all_of_it* nothing waits for others, and no hand-off for its queue."""
        for entry in [each for each in self._put_off if all_of_it or now >= each.not_before]:
            self._put_off.remove(entry)
            self._pending.append(self._deferred(entry) if all_of_it else entry)
        while self._pending and now >= self._not_before and len(self._in_flight) < CALLS_MAX:
            waits = self._in_flight and len(self._pending) < FULL and now < self._pending[0].since + DELAY_SECONDS
            if waits and not all_of_it:
                return
            entries = self._next_batch()
            if not entries:
                continue
            self._number += 1
            self._in_flight[self._number] = entries
            self._emit(
                Settle(
                    self._number,
                    [
                        Settlement(
                            each.taken.lease.id,
                            each.taken.id,
                            each.verdict.action,
                            each.verdict.delay,
                            each.verdict.error,
                        )
                        for each in entries
                    ],
                    [each.taken for each in entries],
                    entries[0].verdict.adds,
                )
            )

    def _next_batch(self) -> list[Entry]:
        """Take the entries of the next call: many that go together, or one that goes alone."""
        entries: list[Entry] = []
        size = 0
        while self._pending and len(entries) < SETTLEMENTS_MAX and size < BYTES_MAX:
            if self._pending[0].alone and entries:
                break
            entry = self._pending.popleft()
            if entry.taken.lease.lost:
                tried = ", unless an earlier attempt to settle it arrived" if entry.tries else ""
                self._drop(entry, f"its lease has ended{tried}")
                continue
            entries.append(entry)
            size += len(entry.verdict.error)
            if entry.alone:
                break
        return entries

    def settled(self, number: int, answer: Sequence[Settled] | QueueberError, now: float) -> None:
        """Process the answer to the call *number*."""
        entries = self._in_flight.pop(number)
        if not isinstance(answer, QueueberError):
            self._errors = 0
            for entry, settled in zip(entries, answer, strict=True):
                if settled.outcome is not Outcome.DONE:
                    self._log_late(entry)
                self._finished(entry.taken, entry.verdict, settled)
        elif isinstance(answer, InvalidRequest):
            self._refused(entries, answer)
        elif isinstance(answer, Overloaded) and entries[0].verdict.adds:
            self._refused_for_now(entries[0], answer, now)
        else:
            self._not_before = now + BACKOFF_SECONDS[min(self._errors, len(BACKOFF_SECONDS) - 1)]
            self._errors += 1
            self._emit(Log(logging.WARNING, f"{len(entries):,} results not settled yet: {answer}"))
            for entry in reversed(entries):
                entry.tries += 1
                self._pending.appendleft(entry)

    def _log_late(self, entry: Entry) -> None:
        done_before = ", unless an earlier attempt to settle it arrived" if entry.tries else ""
        self._emit(
            Log(
                logging.INFO if entry.tries else logging.WARNING,
                f"the result of item {id_text(entry.taken.id)} came after the end of its lease{done_before}",
            )
        )

    def _refused(self, entries: Sequence[Entry], why: InvalidRequest) -> None:
        for entry in reversed(entries):
            if len(entries) > 1:
                entry.alone = True
            elif entry.replaced:
                self._drop(entry, str(why))
                continue
            else:
                text, entry.verdict = refused(entry.verdict, why)
                self._emit(Log(logging.ERROR, f"item {id_text(entry.taken.id)}: {text}"))
                entry.replaced = True
            self._pending.appendleft(entry)

    def _refused_for_now(self, entry: Entry, why: Overloaded, now: float) -> None:
        """Put off a hand-off, or give its item back."""
        if not entry.put_off:
            text = f"item {id_text(entry.taken.id)} cannot be handed off yet: {why}"
            self._emit(Log(logging.WARNING, text))
        if entry.put_off < len(HAND_OFF_WAITS):
            entry.not_before = now + HAND_OFF_WAITS[entry.put_off]
            entry.put_off += 1
            self._put_off.append(entry)
        else:
            self._pending.append(self._deferred(entry))

    def _deferred(self, entry: Entry) -> Entry:
        text = f"item {id_text(entry.taken.id)} could not be handed off: it is deferred"
        self._emit(Log(logging.WARNING, text))
        entry.verdict, entry.alone = HAND_OFF_DEFERRED, False
        return entry

    def _drop(self, entry: Entry, why: str) -> None:
        self._emit(Log(logging.WARNING, f"the result of item {id_text(entry.taken.id)} is dropped: {why}"))
        self._finished(entry.taken, entry.verdict, None)
