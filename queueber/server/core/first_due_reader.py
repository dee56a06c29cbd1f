"""
Reads the due of each queue's first item if it is not in memory, so that statistics know the age of each queue.

After a start these are the first items of all queues.  A run reads about a
thousand queues at most, so 100,000 take two minutes, and the storage threads
and the interpreter stay free for calls.
"""

from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber.broker import Broker, Key, Store
from queueber.broker.first_dues import FirstDueRead
from queueber.broker.model import QueueNumber
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.pool import Pool
from queueber.server.core.read_failures import ReadFailures

READ_SECONDS: Final = 1.0
"""The time between two runs."""

SLICES: Final = 16
"""The most slices of one run, each a job of the pool: with `first_dues.QUEUES_MAX`, 1,024 queues."""


@define(eq=False)
class FirstDueReader:
    """
    Reads the keys of first rows, a slice at a time.

    A read that a run does not finish goes on in the next run.  While the server is draining, nothing more is read.
    """

    _broker: Broker
    _store: Store
    _pool: Pool
    _clock: QueueClock
    _committer: Committer
    _draining: Callable[[], bool]
    slices: int = field(default=0, init=False)
    """Slices that were read, since the start."""

    unreadable: int = field(default=0, init=False)
    """Queues whose first row could not be read, since the start."""

    _read: FirstDueRead | None = field(default=None, init=False)
    """The read in progress."""

    _failures: ReadFailures = field(init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Bound the log."""
        self._failures = ReadFailures(self.log, self._clock.monotonic)

    def run(self) -> Deferred[None]:
        """Read some slices, if there are queues to read.  The Deferred never fails: that would stop the timer."""
        return ensureDeferred(self._run()).addErrback(self._committer.bug)

    async def _run(self) -> None:
        first_dues = self._broker.first_dues
        for _ in range(SLICES):
            if self._draining():
                return
            read = self._read = self._read or first_dues.begin(self._clock.now())
            if read is None:
                return
            if read.places:
                self._add(read, await self._pool.run(self._read_keys, read.places, read.keys_max))
            if not read.places:
                first_dues.end(read, self._clock.now())
                self._read = None

    def _read_keys(
        self, places: Sequence[tuple[QueueNumber, Key]], keys_max: int
    ) -> list[tuple[QueueNumber, Sequence[Key] | Failure]]:
        """
        On a storage thread: read the next keys of each queue.

        They are read separately, so that damage to one does not affect the others.
        """
        found: list[tuple[QueueNumber, Sequence[Key] | Failure]] = []
        for number, after in places:
            try:
                found.append((number, self._store.keys(number, after, items_max=keys_max)))
            except Exception:  # noqa: BLE001  (any error concerns this queue alone)
                found.append((number, Failure()))
        return found

    def _add(self, read: FirstDueRead, found: list[tuple[QueueNumber, Sequence[Key] | Failure]]) -> None:
        self.slices += 1
        for number, keys in found:
            if isinstance(keys, Failure):
                self._fail(read, number, keys)
            else:
                read.add(number, keys)
        read.end_slice()

    def _fail(self, read: FirstDueRead, number: QueueNumber, why: Failure) -> None:
        self.unreadable += 1
        name = self._broker.first_dues.fail(read, number, self._clock.now()).name
        failed, then = "Reading the first key of queue {queue!r} failed", "; it is read again in a minute"
        self._failures.note(failed, why, name, then=then, queue=name)
