"""Items of a test server as a test sees them: those that are there, and all that were ever added."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from attrs import field, frozen

from queueber.broker import Broker, Item, Queue
from queueber.broker.model import LOWEST, Facts, QueueNumber, TimeMark
from queueber.broker.storage import PutItems, PutQueue, Write
from queueber.testing.memory import DisklessStore
from queueber.units import MS_PER_SECOND, WallMs
from queueber.values import Death, ItemState

_NO_FACTS: Final = Facts()
_ALL: Final = 1 << 62


@frozen(kw_only=True)
class StoredItem:
    """An item of a test server."""

    queue: str
    """The name of its queue."""

    id: bytes
    """16 bytes."""

    contents: bytes
    headers: Mapping[str, bytes]
    state: ItemState | None
    """None for an item that was removed."""

    added_at: datetime
    due: datetime
    """When it becomes due, or for a dead item when it died."""

    delay: float = 0.0
    """Seconds between its add and the moment for which it was added."""

    attempts: int = 0
    """Leases on it that have ended otherwise than by its removal."""

    failures: int = 0
    """Attempts that failed; the other attempts were lost or deferred."""

    last_error: str = ""
    death: Death | None = None
    lease: bytes = field(default=b"", repr=False)
    """The id of the lease that holds it; empty if none does."""

    @property
    def task(self) -> str | None:
        """The name of the task whose call it is; None for an item that is no task's."""
        name = self.headers.get("task")
        return None if name is None else name.decode(errors="replace")

    def json(self) -> Any:  # noqa: ANN401
        """
        Return the contents, read as JSON.

        Raises:
            ValueError: they are no JSON.
        """
        return json.loads(self.contents)


class RecordingStore(DisklessStore):
    """A store that remembers every item that was added, in order."""

    def __init__(self, on_return: Callable[[WallMs], None]) -> None:
        """*on_return* is called with the moment at which an item becomes due that comes back, or dies."""
        super().__init__()
        self._on_return = on_return
        self.added: dict[bytes, tuple[QueueNumber, Item]] = {}
        """By id: the number of the queue, and the item as it was added."""

        self.names: dict[QueueNumber, str] = {}
        """The names of all queues that there were, by their numbers."""

    def commit(self, writes: Sequence[Write], mark: TimeMark) -> None:
        """Apply *writes* atomically, and note the items that are new."""
        super().commit(writes, mark)
        for write in writes:
            if isinstance(write, PutItems):
                for item in write.items:
                    if item.key.id in self.added:
                        self._on_return(item.key.due)
                    else:
                        self.added[item.key.id] = (write.queue, item)
            elif isinstance(write, PutQueue):
                self.names[write.record.number] = write.record.name


class Inspector:
    """Reads the items of one server.  Belongs to the server's thread."""

    def __init__(self, broker: Broker, store: RecordingStore) -> None:
        self._broker = broker
        self._store = store

    def items(self, name: str, now: WallMs) -> list[StoredItem]:
        """Return the items of the queue *name*, leased ones included, in the order in which they become due."""
        queue = self._broker.queue(name)
        numbers = {lease.queue for lease in queue.held.values()}
        if queue.number is not None:
            numbers.add(queue.number)
        rows = [item for number in numbers for item in self._rows(number) if self._is_of(queue, number, item)]
        return [self._stored(queue, item, self._state(queue, item, now)) for item in sorted(rows)]

    def dead(self, name: str) -> list[StoredItem]:
        """Return the dead items of the queue *name*, the first to die first."""
        dead = self._broker.queue(name).dead
        if dead is None or dead.number is None:
            return []
        return [self._stored(dead, item, ItemState.DEAD) for item in self._rows(dead.number)]

    def added(self, now: WallMs) -> list[StoredItem]:
        """Return all items that were ever added, in the order of their adds, each as it is now or was at its add."""
        names = {queue.name for queue in self._broker.queues if queue.number is not None}
        present = {item.id: item for name in names for item in (*self.items(name, now), *self.dead(name))}
        return [
            present.get(key) or _view(item, self._store.names[number], None, b"", item)
            for key, (number, item) in self._store.added.items()
        ]

    def queues(self) -> list[str]:
        """Return the names of the queues that have been used and not deleted."""
        return sorted(queue.name for queue in self._broker.queues if queue.number is not None)

    def _rows(self, number: QueueNumber) -> Sequence[Item]:
        return self._store.scan(number, LOWEST, items_max=_ALL, bytes_max=_ALL).items

    @staticmethod
    def _is_of(queue: Queue, number: QueueNumber, item: Item) -> bool:
        """Return whether the row is an item of *queue*: under a retired number, only those that are leased are."""
        lease = queue.held.get(item.key.id)
        return number == queue.number if lease is None else lease.queue == number

    @staticmethod
    def _state(queue: Queue, item: Item, now: WallMs) -> ItemState:
        if item.key.id in queue.held:
            return ItemState.LEASED
        return ItemState.READY if item.key.due <= now else ItemState.DELAYED

    def _stored(self, queue: Queue, item: Item, state: ItemState) -> StoredItem:
        lease = queue.held.get(item.key.id)
        _, first = self._store.added.get(item.key.id, (None, item))
        return _view(item, queue.name, state, b"" if lease is None else lease.id, first)


def _view(item: Item, queue: str, state: ItemState | None, lease: bytes, first: Item) -> StoredItem:
    facts = item.facts or _NO_FACTS
    return StoredItem(
        queue=queue,
        id=item.key.id,
        contents=item.contents,
        headers=dict(facts.headers),
        state=state,
        added_at=moment(item.added_at),
        due=moment(item.key.due),
        # A span is rounded up by a millisecond when it becomes a moment.
        delay=max(0, first.key.due - first.added_at - 1) / MS_PER_SECOND,
        attempts=item.attempts,
        failures=facts.failures,
        last_error=facts.last_error,
        death=facts.death,
        lease=lease,
    )


def moment(at: WallMs) -> datetime:
    """Return a moment of queue time in UTC."""
    return datetime.fromtimestamp(at / MS_PER_SECOND, UTC)
