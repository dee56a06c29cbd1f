"""
Lookups of items by their ids, read in the pool and then decided.

One pool job at a time finds the rows for all lookups that have come meanwhile,
up to a number of them, because their contents are read too.  They are decided
in the order of their arrival, after the calls that were collected before.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from attrs import define, field
from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber.broker import Broker, Item, ItemId, Queue, Store
from queueber.broker.lookups import LookupRead, Lookups
from queueber.broker.model import QueueNumber
from queueber.broker.storage import Found
from queueber.errors import QueueberError
from queueber.server.core.committer import Committer
from queueber.server.core.pool import Pool
from queueber.server.core.read_failures import ReadFailures, unreadable

LOOKUPS_MAX: Final = 32
"""The most items that are found by their ids at once.  Each may have contents of 8 MiB."""

LOOKUP_BYTES: Final = 1_024
"""Memory for a lookup that waits."""

_Rows: TypeAlias = list[Found | None] | Failure


def find_each(store: Store, number: QueueNumber, ids: Sequence[ItemId]) -> Iterator[Item]:
    """Yield the items of *number* with these *ids*, those that there are, while few of them are in memory."""
    for begin in range(0, len(ids), LOOKUPS_MAX):
        for found in store.find([number], ids[begin : begin + LOOKUPS_MAX]):
            if found is not None:
                yield found.item


@define(eq=False)
class _Lookup:
    """A lookup that was not decided yet."""

    queue: Queue
    ids: Sequence[ItemId]
    decide: Callable[[LookupRead], None]
    fail: Callable[[QueueberError], None]


@define(eq=False)
class LookupRunner:
    """Finds items by their ids."""

    _broker: Broker
    _committer: Committer
    _store: Store
    _pool: Pool
    _seconds: Callable[[], float]
    _lookups: Lookups = field(init=False)
    _waiting: deque[_Lookup] = field(factory=deque, init=False)
    _running: bool = field(default=False, init=False)
    _failures: ReadFailures = field(init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Bound the log."""
        self._lookups = Lookups(self._broker.follow, self._broker.unfollow)
        self._failures = ReadFailures(self.log, self._seconds)

    def look_up(
        self,
        queue: Queue,
        ids: Sequence[ItemId],
        decide: Callable[[LookupRead], None],
        fail: Callable[[QueueberError], None],
    ) -> None:
        """
        Find the items of *queue* with these *ids*, then call *decide*, which submits a plan, or *fail*.

        The lookup counts in `pending_bytes` until then.
        """
        self._committer.reserve(LOOKUP_BYTES)
        self._waiting.append(_Lookup(queue, ids, decide, fail))
        if not self._running:
            self._running = True
            ensureDeferred(self._run()).addErrback(self._committer.bug)

    async def _run(self) -> None:
        while self._waiting:
            lookups = [self._waiting.popleft() for _ in range(min(LOOKUPS_MAX, len(self._waiting)))]
            read = self._lookups.begin([(each.queue, each.ids) for each in lookups])
            rows = await self._pool.run(self._find, read)
            self._committer.decide_now()
            failed = self._add(read, rows)
            for lookup in lookups:
                self._committer.release(LOOKUP_BYTES)
                failure = next((failed[each] for each in lookup.ids if each in failed and not read.known(each)), None)
                if failure is None:
                    lookup.decide(read)
                else:
                    lookup.fail(self._why_unreadable(lookup.queue, failure))
            self._lookups.end(read)
            # Replies that waited for no commit are sent at the end of a cut.
            self._committer.wake()
        self._running = False

    def _find(self, read: LookupRead) -> list[tuple[Queue, list[ItemId], _Rows]]:
        """On a storage thread: find the rows, of a queue all together, or singly if one of them cannot be read."""
        found: list[tuple[Queue, list[ItemId], _Rows]] = []
        for queue, ids in read.ids.items():
            rows = self._find_in(read.numbers[queue], ids)
            if isinstance(rows, Failure) and len(ids) > 1:
                found += ((queue, [each], self._find_in(read.numbers[queue], [each])) for each in ids)
            else:
                found.append((queue, list(ids), rows))
        return found

    def _find_in(self, numbers: Sequence[QueueNumber], ids: Sequence[ItemId]) -> _Rows:
        try:
            return self._store.find(numbers, ids)
        except Exception:  # noqa: BLE001  (any error fails the lookups of these items alone)
            return Failure()

    def _add(self, read: LookupRead, found: list[tuple[Queue, list[ItemId], _Rows]]) -> Mapping[ItemId, Failure]:
        failed: dict[ItemId, Failure] = {}
        for _, ids, rows in found:
            if isinstance(rows, Failure):
                failed.update(dict.fromkeys(ids, rows))
            else:
                read.add(rows)
        return failed

    def _why_unreadable(self, queue: Queue, why: Failure) -> QueueberError:
        self._failures.note("Looking up an item of queue {queue!r} failed", why, queue.name, queue=queue.name)
        return unreadable("the item", why)
