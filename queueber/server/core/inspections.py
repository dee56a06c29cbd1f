"""
Counts and peeks: reads of a queue's rows in the pool, a slice at a time.

One slice at a time is read for all of them, in turns, so that the pool's
threads stay free for commits and no long count delays a peek.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import define, field
from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber.broker import Broker, Queue, Store
from queueber.broker.inspection import Count, Peek
from queueber.errors import QueueberError, StorageError
from queueber.limits import Limits
from queueber.server.core.committer import Committer
from queueber.server.core.pool import Pool
from queueber.server.core.read_failures import UnreadableNow

COUNTED_KEYS: Final = 4_000
"""Keys of one slice of a count: so that it holds the interpreter for milliseconds only."""


@define(eq=False)
class _Inspection:
    """A count or a peek that is under way."""

    read: Count | Peek
    size: int
    """The bytes that it counts in `pending_bytes`."""

    finish: Callable[[], None]
    fail: Callable[[QueueberError], None]


@define(eq=False)
class Inspections:
    """Runs counts and peeks."""

    _broker: Broker
    _committer: Committer
    _store: Store
    _pool: Pool
    _limits: Limits
    _under_way: deque[_Inspection] = field(factory=deque, init=False)
    _counts: dict[Count, None] = field(factory=dict, init=False)
    """The counts under way, the oldest first."""

    _running: bool = field(default=False, init=False)
    log = Logger()

    def run(
        self, read: Count | Peek, size: int, finish: Callable[[], None], fail: Callable[[QueueberError], None]
    ) -> None:
        """Run *read*, then call *finish*, which submits a plan, or *fail*.  It holds *size* bytes meanwhile."""
        self._committer.decide_now()
        self._committer.reserve(size)
        self._broker.follow(read)
        if isinstance(read, Count):
            self._counts[read] = None
        self._under_way.append(_Inspection(read, size, finish, fail))
        if not self._running:
            self._running = True
            ensureDeferred(self._run()).addErrback(self._committer.bug)

    def counting(self, queue: Queue) -> int:
        """Return how many rows the oldest exact count of *queue* in progress has read; 0 if there is none."""
        return next((read.read for read in self._counts if read.queue is queue), 0)

    async def _run(self) -> None:
        while self._under_way:
            inspection = self._under_way.popleft()
            try:
                await self._read_slice(inspection.read)
            except (StorageError, MemoryError):
                name = inspection.read.queue.name
                self.log.failure("Reading queue {queue!r} failed", Failure(), queue=name)
                self._end(inspection)
                inspection.fail(
                    UnreadableNow(f"queue {name!r} cannot be read at the moment; the server's log says why")
                )
            else:
                if not inspection.read.done:
                    self._under_way.append(inspection)
                    continue
                self._committer.decide_now()
                self._end(inspection)
                inspection.finish()
            # Replies that waited for no commit are sent at the end of a cut.
            self._committer.wake()
        self._running = False

    async def _read_slice(self, read: Count | Peek) -> None:
        if isinstance(read, Count):
            keys = await self._pool.run(self._store.keys, read.number, read.after, items_max=COUNTED_KEYS)
            read.add(keys, exhausted=len(keys) < COUNTED_KEYS)
            return
        limits = self._limits
        bounds = {"items_max": min(read.wanted, limits.refill_items), "bytes_max": limits.refill_bytes}
        read.add(await self._pool.run(self._store.scan, read.number, read.after, **bounds))

    def _end(self, inspection: _Inspection) -> None:
        self._broker.unfollow(inspection.read)
        if isinstance(inspection.read, Count):
            del self._counts[inspection.read]
        self._committer.release(inspection.size)
