"""Options of tasks and of single adds, checked where the program states them, and the queues of priorities."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from queueber.client_core.arguments import flag, instance, integer, text, utf_8, wrong
from queueber.client_core.items import new_item
from queueber.client_core.queue_calls import checked_name
from queueber.errors import InvalidRequest, too_large
from queueber.fixed_limits import DEDUP_KEY_BYTES_MAX
from queueber.units import MS_PER_SECOND, SpanMs
from queueber.values import NewItem
from queueber.worker.verdicts import checked_seconds, span_of

Priority: TypeAlias = Literal["high", "normal", "low"]
Seconds: TypeAlias = float | timedelta
"""A span: a number of seconds, or a timedelta."""

TASK_HEADER: Final = "task"
CONTENT_TYPE_HEADER: Final = "content-type"
OWN_HEADERS: Final = (TASK_HEADER, CONTENT_TYPE_HEADER)

PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)
"""From the highest to the lowest."""

WEIGHTS: Final[Mapping[Priority, int]] = {"high": 100, "normal": 10, "low": 1}
"""The weights of the priorities' queues, while all have ready items."""

ATTEMPTS_MAX: Final = (1 << 32) - 1
BACKOFF_CAP_SECONDS: Final = 3_600
_DOUBLINGS_MAX = 64
NO_DELAY: Final = SpanMs(0)
NAME_BYTES_MAX: Final = 200
"""A name, in a deduplication key with a point in time, is below the limit of keys."""


def queue_of(queue: str, priority: Priority) -> str:
    """Return the name of *queue*'s own queue for *priority*: the server has no priorities."""
    return queue if priority == "normal" else f"{queue}.{priority}"


def checked_priority(priority: Any) -> Priority:  # noqa: ANN401
    """
    Return *priority* unchanged.

    Raises:
        InvalidRequest: it is none of the three, for example a number.
    """
    if priority not in PRIORITIES:
        raise InvalidRequest(
            f"priority is {priority!r}; it must be 'high', 'normal' or 'low': "
            "the server has no numeric priorities, each of these is a queue of its own"
        )
    return priority  # type: ignore[no-any-return]


def checked_task_name(name: str) -> str:
    """
    Return *name* unchanged.

    Raises:
        InvalidRequest: it is not text, empty, too long, or has characters that do not print.
    """
    instance("the task's name", name, str, "text")
    if not name or not name.isprintable() or len(name.encode()) > NAME_BYTES_MAX:
        raise wrong("the task's name", name, f"1 to {NAME_BYTES_MAX} bytes of text that prints")
    return name


def checked_span(name: str, value: Seconds) -> SpanMs:
    """
    Return *value* as a span.

    Raises:
        InvalidRequest: it is neither a number of seconds nor a timedelta, negative, or above ten years.
    """
    return span_of(name, value.total_seconds() if isinstance(value, timedelta) else value)


def checked_point(name: str, value: datetime) -> int:
    """
    Return *value* in milliseconds since the Unix epoch.

    Raises:
        InvalidRequest: it is no datetime, has no time zone, or is before 1970.
    """
    instance(name, value, datetime, "a datetime")
    if value.utcoffset() is None:
        raise InvalidRequest(f"{name} is {value}, without a time zone; it must have one, for example datetime.now(UTC)")
    # 0 would mean that there is none.
    return integer(name, int(value.timestamp() * 1_000), 1, (1 << 63) - 1, "ms since 1970")


class Backoff(NamedTuple):
    """
    Waits after failures: *base* seconds, doubled with each failure up to *cap*; a random part of that is waited.

    The random part keeps tasks that failed together from being retried together.
    """

    base: float
    cap: float = BACKOFF_CAP_SECONDS

    def delay(self, failures: int, chance: float) -> float:
        """Return the seconds to wait after this number of *failures*, from 1; *chance* is between 0 and 1."""
        # The exponent is bounded, because a float is.
        return min(self.cap, self.base * 2.0 ** min(failures - 1, _DOUBLINGS_MAX)) * chance


BackoffOption: TypeAlias = Backoff | float | Callable[[int], float] | None


def checked_backoff(value: BackoffOption) -> Backoff | Callable[[int], float] | None:
    """
    Return *value*; a number of seconds is the base of a `Backoff`.

    Raises:
        InvalidRequest: it is none of these, or a number is negative or above ten years.
    """
    if value is None or callable(value):
        return value
    found = value if isinstance(value, Backoff) else Backoff(value)
    checked_seconds("backoff", found.base)
    checked_seconds("the cap of backoff", found.cap)
    return found


def checked_attempts(value: int | None) -> int | None:
    """
    Return *value* unchanged.

    Raises:
        InvalidRequest: it is neither None nor an integer from 1.
    """
    return None if value is None else integer("max_attempts", value, 1, ATTEMPTS_MAX, "attempts")


class AddOptions(NamedTuple):
    """The checked options of `Task.options`."""

    queue: str | None = None
    delay: SpanMs = NO_DELAY
    due_ms: int = 0
    expires_ms: int = 0
    headers: Mapping[str, bytes] = {}
    dedup_key: bytes = b""
    until_removed: bool = False

    def item(self, contents: bytes, headers: Mapping[str, bytes]) -> NewItem:
        """
        Return the item to add; *headers* are those that the task sets itself.

        Raises:
            InvalidRequest: the key or the headers exceed a limit.
        """
        return new_item(
            contents,
            delay_ms=self.delay,
            due_ms=self.due_ms,
            expires_ms=self.expires_ms,
            headers={**headers, **self.headers},
            dedup_key=self.dedup_key,
            until_removed=self.until_removed,
        )


def checked_options(
    task: str,
    before: AddOptions,
    *,
    queue: str | None,
    delay: Seconds | None,
    due: datetime | None,
    expires: datetime | None,
    key: str | None,
    until_removed: bool | None,
    headers: Mapping[str, str | bytes] | None,
) -> AddOptions:
    """
    Return the options *before* of the task with the name *task*, changed by those of `Task.options` that are not None.

    A delay replaces the moment at which the task is due, and the other way round.  Headers are added.

    Raises:
        InvalidRequest: one is of the wrong type or out of range, or two exclude each other.
    """
    changes = _times(delay, due, expires)
    if queue is not None:
        changes["queue"] = checked_name(queue)
    if key is not None:
        changes["dedup_key"] = _dedup_key(task, key)
    if until_removed is not None:
        changes["until_removed"] = flag("until_removed", until_removed)
    if headers is not None:
        changes["headers"] = {**before.headers, **_headers(headers)}
    found = before._replace(**changes)
    if found.until_removed and not found.dedup_key:
        raise InvalidRequest("until_removed is given without a key; it has no effect without one")
    if 0 < found.expires_ms <= found.due_ms:
        at, least = (datetime.fromtimestamp(ms / MS_PER_SECOND, UTC) for ms in (found.expires_ms, found.due_ms))
        raise InvalidRequest(f"expires is {at}; it must be later than due, which is {least}")
    return found


def _times(delay: Seconds | None, due: datetime | None, expires: datetime | None) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if delay is not None:
        changes |= {"delay": checked_span("delay", delay), "due_ms": 0}
    if due is not None:
        if changes.get("delay"):
            raise InvalidRequest("delay and due are both given; give one of them")
        changes |= {"delay": NO_DELAY, "due_ms": checked_point("due", due)}
    if expires is not None:
        changes["expires_ms"] = checked_point("expires", expires)
    return changes


def _headers(given: Mapping[str, str | bytes]) -> dict[str, bytes]:
    found = instance("headers", given, Mapping, "a mapping")
    for name in OWN_HEADERS:
        if name in found:
            raise InvalidRequest(f"headers has {name!r}, which the task sets itself")
    return {name: _header(name, value) for name, value in found.items()}


def _header(name: object, value: str | bytes) -> bytes:
    return utf_8(f"headers[{name!r}]", value).encode() if isinstance(value, str) else value


def _dedup_key(task: str, key: str) -> bytes:
    """
    Return *key* with the task's name before it, so that it is no key of another task.

    No name has a NUL, which does not print, so the two cannot be divided in another way.
    """
    instance("key", key, str, "text")
    prefix = f"{task}\0".encode()
    found = utf_8("key", text("key", key)).encode()
    if len(found) > (most := DEDUP_KEY_BYTES_MAX - len(prefix)):
        raise too_large(f"key of task {task}", value=len(found), limit=most, unit="bytes")
    return prefix + found
