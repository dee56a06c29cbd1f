"""Results that one thread waits for and another one sets."""

from __future__ import annotations

from _thread import allocate_lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from queueber.client_core.calls import Call

if TYPE_CHECKING:
    from queueber.client_core.calls import PendingCall
    from queueber.sync.timers import Timer

T = TypeVar("T")


class Result(Generic[T]):
    """
    A result, or an error to raise, that another thread sets once.

    In the main thread the wait is interrupted by signals, as every wait of Python for a lock.
    """

    __slots__ = ("_done", "_outcome", "is_set", "set_at")

    def __init__(self) -> None:
        self.is_set = False
        self.set_at = 0.0
        """When it was set, by the monotonic clock."""

        self._outcome: T | BaseException | None = None
        self._done = allocate_lock()
        self._done.acquire()

    def set(self, outcome: T | BaseException) -> None:
        """Set the result, or the error to raise, and wake the thread that waits.  Only the first counts."""
        if not self.is_set:
            self._outcome = outcome
            self.set_at = monotonic()
            self.is_set = True
            self._done.release()

    def wait(self) -> None:
        """Block until it is set."""
        with self._done:
            pass

    @property
    def outcome(self) -> T | BaseException | None:
        """The result or the error; None until it is set."""
        return self._outcome

    @property
    def error(self) -> BaseException | None:
        """The error, if it was set to one."""
        return self._outcome if isinstance(self._outcome, BaseException) else None

    def result(self) -> T:
        """Block until it is set; return the result, or raise the error."""
        self.wait()
        outcome = self._outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome  # type: ignore[return-value]  # set, for the wait is over


class Pending(Result[T]):
    """A call until its end: one thread waits for it, and the I/O thread sets its outcome."""

    __slots__ = ("background", "call", "handle", "limit_ms", "timer")

    def __init__(self, call: Call[T], limit_ms: int | None, *, background: bool = False) -> None:
        """Wait for *call*, for at most *limit_ms*; *background*: `close` of the client waits for it, too."""
        super().__init__()
        self.call: Call[Any] = call
        self.limit_ms = limit_ms
        self.background = background
        self.handle: PendingCall | None = None
        self.timer: Timer | None = None
