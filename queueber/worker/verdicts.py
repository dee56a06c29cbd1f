"""
Verdicts: what happens to an item when its handler has ended.

A handler decides by how it ends.  A plain return removes the item, an exception
fails it, a cancellation defers it.  `Reject`, `Defer`, `Fail` and `Done` decide
otherwise, whether they are raised or returned.  Delays are in seconds here and
in milliseconds in a `Verdict`.
"""

import math
import traceback
from collections.abc import Sequence
from inspect import isasyncgen, isawaitable, iscoroutine, isgenerator
from types import TracebackType
from typing import Final, NamedTuple

from queueber.errors import InvalidRequest
from queueber.fixed_limits import ERROR_BYTES_MAX
from queueber.units import MS_PER_SECOND, YEAR, SpanMs
from queueber.values import Action, AddTo

DELAY_SECONDS_MAX: Final = 10 * YEAR // MS_PER_SECOND
"""The longest delay that a server accepts in its default configuration."""

DEFER_SECONDS: Final = 1.0
"""The delay of a `Defer` without one, so that an item that cannot be processed yet is not tried in a tight loop."""

_SUMMARY_BYTES = 1_024
"""The most bytes of an item's error for the text of the exception, so that a part of the traceback fits as well."""

_FRAMES = 30
"""The most frames of a traceback to format, the innermost ones: a recursion has thousands."""

_CUT = " […]"


class Verdict(NamedTuple):
    """The decision about one item."""

    action: Action
    delay: SpanMs | None = None
    """The time until the item is redelivered; None: the action's own default."""

    error: str = ""
    """At most 4 KiB of UTF-8."""

    adds: Sequence[AddTo] = ()
    """Items that are added in the same commit."""


REMOVE: Final = Verdict(Action.REMOVE)
DEFER: Final = Verdict(Action.DEFER)

UNASKED_CANCEL: Final = Verdict(Action.DEFER, SpanMs(1_000))
"""The verdict of a handler that its own program cancelled.  The delay keeps it from being tried in a tight loop."""


class Decision(Exception):
    """Base of the decisions that a handler may raise or return."""

    verdict: Verdict

    error: Exception | None = None
    """The exception that a framework, such as tasks, has turned into this decision.  For tests."""


class Reject(Decision):
    """No worker can process the item: it becomes a dead item now, with *text* as its error."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.verdict = Verdict(Action.REJECT, None, bounded(_text("Reject", text)))


class Defer(Decision):
    """
    The item is redelivered after *delay* seconds; with None it returns to its place in the queue at once.

    Counts neither an attempt nor a failure.
    """

    def __init__(self, delay: float | None = DEFER_SECONDS) -> None:
        super().__init__(delay)
        self.verdict = Verdict(Action.DEFER, None if delay is None else span_of("the delay of Defer", delay))


class Fail(Decision):
    """
    The item has failed, with *text*, and is retried after *delay* seconds, or without one after the queue's backoff.

    After its last attempt it becomes a dead item.
    """

    def __init__(self, delay: float | None = None, text: str = "") -> None:
        super().__init__(delay, text)
        span = None if delay is None else span_of("the delay of Fail", delay)
        self.verdict = Verdict(Action.FAIL, span, bounded(_text("Fail", text)))


class Done(Decision):
    """The item is removed, and the items of *adds* are added in the same commit."""

    def __init__(self, adds: Sequence[AddTo] = ()) -> None:
        super().__init__(adds)
        self.verdict = Verdict(Action.REMOVE, None, "", tuple(adds))


def verdict_of(returned: object) -> Verdict:
    """
    Return the verdict of a handler that has returned *returned*, which means nothing unless it is a `Decision`.

    A class of decisions counts as one without arguments, as in ``raise Defer``.

    Raises:
        TypeError: it is code that has not run yet, which a removal would lose.
    """
    if isinstance(returned, Decision):
        return returned.verdict
    if isinstance(returned, type) and issubclass(returned, Decision):
        return returned().verdict
    if isgenerator(returned) or isasyncgen(returned):
        raise TypeError(f"the handler returned {type(returned).__name__}, which was never iterated")
    if isawaitable(returned):
        if iscoroutine(returned):
            returned.close()
        raise TypeError(f"the handler returned {type(returned).__name__}, which was not awaited")
    return REMOVE


def verdict_of_error(error: BaseException) -> Verdict:
    """Return the verdict of a handler that has raised *error*, which is not a cancellation."""
    return error.verdict if isinstance(error, Decision) else Verdict(Action.FAIL, None, error_text(error))


def refused(verdict: Verdict, why: InvalidRequest) -> tuple[str, Verdict]:
    """Return the error text for *verdict*, which the server has refused, and the plain failure that replaces it."""
    text = f"the server refused to {verdict.action.name.lower()} the item: {why}"
    return text, Verdict(Action.FAIL, None, bounded(f"{text}\n{verdict.error}".strip()))


def error_text(error: BaseException) -> str:
    """
    Return the text of *error*, at most 4 KiB of UTF-8.

    The exception comes first, then as many of the last lines of its traceback as there is room for.
    """
    try:
        frames = users_frames(error.__traceback__)
        formatted = traceback.TracebackException(type(error), error, frames, limit=-_FRAMES, compact=True)
        summary = "".join(formatted.format_exception_only()).strip()
        lines = "".join(formatted.format()).splitlines()
    except Exception:  # noqa: BLE001  (the error's own `__str__`, or a traceback that cannot be formatted)
        return bounded(f"{type(error).__qualname__}, whose text cannot be formatted")
    found = bounded(summary, _SUMMARY_BYTES)
    room = ERROR_BYTES_MAX - len(found.encode()) - len("\n\n")
    kept: list[str] = []
    for line in reversed(lines):
        room -= len(line.encode(errors="replace")) + len("\n")
        if room < 0:
            break
        kept.append(line)
    return bounded("\n".join([found, "", *reversed(kept)])) if kept else found


def users_frames(frames: TracebackType | None) -> TracebackType | None:
    """Return *frames* from the first one outside of Queueber, which is the handler's; all of them if there is none."""
    found = frames
    while found is not None and found.tb_frame.f_globals.get("__name__", "").startswith("queueber."):
        found = found.tb_next
    return found or frames


def bounded(text: str, most: int = ERROR_BYTES_MAX) -> str:
    """Return *text*, cut to *most* bytes of UTF-8.  Lone surrogates become question marks."""
    data = text.encode(errors="replace")
    if len(data) <= most:
        return data.decode()
    return data[: most - len(_CUT.encode())].decode(errors="ignore") + _CUT


def span_of(name: str, seconds: float, *, least: float = 0) -> SpanMs:
    """
    Return *seconds* as a span, rounded up to whole milliseconds.

    Raises:
        InvalidRequest: *seconds* is no number, less than *least*, or above ten years.
    """
    return SpanMs(math.ceil(checked_seconds(name, seconds, least=least) * MS_PER_SECOND))


def checked_seconds(name: str, seconds: float, *, least: float = 0) -> float:
    """
    Return *seconds* unchanged.

    Raises:
        InvalidRequest: *seconds* is no number, less than *least*, or above ten years.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds != seconds:  # noqa: PLR0124  (NaN)
        raise InvalidRequest(f"{name} is {seconds!r}; it must be a number of seconds")
    if not least <= seconds <= DELAY_SECONDS_MAX:
        try:
            shown = f"{seconds:g} s"
        except OverflowError:
            shown = f"a number of {int(seconds).bit_length():,} bits, in seconds"
        raise InvalidRequest(f"{name} is {shown}; it must be {least:g} to {DELAY_SECONDS_MAX:,} s")
    return seconds


def _text(name: str, text: str) -> str:
    if not isinstance(text, str):
        raise InvalidRequest(f"the text of {name} is {type(text).__name__}; it must be text")
    return text
