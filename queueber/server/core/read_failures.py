"""Reads of the store that fail: their lines in the log, and the errors for the peers that wait for the rows."""

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber.errors import Damaged, Kind, QueueberError, StorageError, Withheld
from queueber.server.core.log_rate_limit import LogRateLimiter


class Unreadable(QueueberError):
    """Items cannot be read because of damage; the server's log says where."""


class UnreadableNow(QueueberError):
    """Items cannot be read for a reason that may pass; the next call reads them again."""

    kind = Kind.OVERLOADED


def is_damage(why: Failure) -> bool:
    """Return whether another read will fail, too."""
    return bool(why.check(Damaged) and not why.check(Withheld))


def unreadable(what: str, why: Failure) -> QueueberError:
    """Return the error for a peer that *what* cannot be read, without the engine's text, which names files and keys."""
    kind = Unreadable if is_damage(why) else UnreadableNow
    return kind(f"{what} cannot be read at the moment; the server's log says why")


@define(eq=False)
class ReadFailures:
    """The log of failed reads of one part of the server, with a bound on the lines for each queue or peer."""

    _log: Logger
    _seconds: Callable[[], float]
    _limiter: LogRateLimiter = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Bound the log."""
        self._limiter = LogRateLimiter(self._seconds)

    def note(self, failed: str, why: Failure, of: object, *, then: str = "", **values: Any) -> None:  # noqa: ANN401
        """
        Log that a read failed.  Errors that are none of the engine are logged with their traceback.

        Args:
            failed: the line, a format.
            why: the error.
            of: the queue or the peer whose lines are bounded together.
            then: what happens next, appended to the line.
            values: the values of the format.
        """
        if why.check(StorageError, MemoryError) is None:
            self._log.failure(failed, why, **values)
        elif (more := self._limiter.passes(of, "unreadable")) is not None:
            text = why.getErrorMessage() or repr(why.value)
            self._log.error(failed + ": {why}{then}{more}", why=text, then=then, more=more, **values)
