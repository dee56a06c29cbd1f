"""
Lookups: items that are found by their ids.

The store finds an item's row by its id, in a snapshot that is taken at some
moment after the request.  The decision is made later still, by memory and by
what the row is then: the row that was found, overlaid by the log of *all* plans
that were not durable at the request and all that were made since.  The log
wins.  Plans that became durable in between are in neither a snapshot nor the
list of plans that are not durable.

Lookups are gathered: one read serves all that were requested while the one
before it was in progress, and they share one log.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import define, field

from queueber.broker.model import ItemId, Key, QueueNumber
from queueber.broker.plans import Follower
from queueber.broker.queue import Queue
from queueber.broker.storage import DeleteItem, Found, PutItems, Write


@define(eq=False)
class LookupRead:
    """One read for lookups, and the last state of each item that was written since it was requested."""

    ids: Mapping[Queue, Sequence[ItemId]]
    numbers: Mapping[Queue, Sequence[QueueNumber]] = field(init=False)
    """Where items of each queue may be: its own rows, those of its dead items, those of leases under an old number."""

    _wanted: frozenset[ItemId] = field(init=False)
    _found: dict[ItemId, Found | None] = field(factory=dict, init=False)
    _deleted: set[tuple[QueueNumber, Key]] = field(factory=set, init=False)
    """Rows that were deleted, of items that were not written since."""

    def __attrs_post_init__(self) -> None:
        """Collect the rows to read."""
        self.numbers = {queue: _numbers(queue, ids) for queue, ids in self.ids.items()}
        self._wanted = frozenset(item_id for ids in self.ids.values() for item_id in ids)

    def note(self, writes: Sequence[Write]) -> None:
        """Apply the writes of a plan, which comes after those of all plans that were noted before."""
        wanted, found = self._wanted, self._found
        for write in writes:
            if isinstance(write, PutItems):
                # Of any number: the queue may have received a new one, or its first dead items, since the request.
                for item in write.items:
                    if item.key.id in wanted:
                        found[item.key.id] = Found(write.queue, item)
            elif isinstance(write, DeleteItem) and write.key.id in wanted:
                known = found.get(write.key.id)
                if known is None:
                    self._deleted.add((write.queue, write.key))
                elif (known.queue, known.item.key) == (write.queue, write.key):
                    found[write.key.id] = None

    def add(self, rows: Iterable[Found | None]) -> None:
        """Add rows that were read.  The log wins."""
        for row in rows:
            if row is not None and (row.queue, row.item.key) not in self._deleted:
                self._found.setdefault(row.item.key.id, row)

    def known(self, item_id: ItemId) -> bool:
        """Return whether the item's row, or that there is none, is known from the log or from the rows added so far."""
        return item_id in self._found

    def find(self, item_id: ItemId) -> Found | None:
        """Return the item's row as it is now; None if there is none."""
        return self._found.get(item_id)


@define(eq=False)
class Lookups:
    """Begins and ends reads for lookups."""

    _follow: Callable[[Follower], None]
    _unfollow: Callable[[Follower], None]

    def begin(self, lookups: Iterable[tuple[Queue, Sequence[ItemId]]]) -> LookupRead:
        """Begin to note plans for a read of these items of these queues.  The caller reads now, and passes the rows."""
        ids: dict[Queue, list[ItemId]] = {}
        for queue, wanted in lookups:
            ids.setdefault(queue, []).extend(wanted)
        read = LookupRead({queue: list(dict.fromkeys(wanted)) for queue, wanted in ids.items()})
        self._follow(read)
        return read

    def end(self, read: LookupRead) -> None:
        """End *read*: all decisions that need it are made."""
        self._unfollow(read)


def _numbers(queue: Queue, ids: Iterable[ItemId]) -> list[QueueNumber]:
    """Return the numbers under which rows of *queue* with these *ids* may be."""
    held = (queue.held[item_id].queue for item_id in ids if item_id in queue.held)
    own = (line.number for line in (queue, queue.dead) if line is not None and line.number is not None)
    return list(dict.fromkeys([*own, *held]))
