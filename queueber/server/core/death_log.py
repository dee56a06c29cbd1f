"""Logs items that die."""

from collections.abc import Callable

from attrs import define, field
from twisted.logger import Logger

from queueber.broker import Item, Queue
from queueber.server.core.log_rate_limit import LogRateLimiter
from queueber.values import DeathReason

CAUSES = {
    DeathReason.ATTEMPTS: "its last attempt failed",
    DeathReason.LOST: "the lease of its last attempt ended by itself",
    DeathReason.REJECTED: "a worker rejected it",
    DeathReason.EXPIRED: "it was not delivered in time",
}


@define(eq=False)
class DeathLog:
    """Logs each item that dies, with a bound on the lines of each queue."""

    _seconds: Callable[[], float]
    _limiter: LogRateLimiter = field(init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Bound the log."""
        self._limiter = LogRateLimiter(self._seconds)

    def note(self, queue: Queue, item: Item, reason: DeathReason) -> None:
        """Log *item*, which died in *queue*."""
        more = self._limiter.passes(queue.name, "died")
        if more is not None:
            line = "Item {item} of queue {queue!r} is among the dead items now: {why}; attempts: {attempts}{more}"
            name, why = queue.name, CAUSES[reason]
            self.log.warn(line, item=item.key.id.hex(), queue=name, why=why, attempts=item.attempts, more=more)
