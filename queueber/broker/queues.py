"""
All queues, by name and by number, and the numbers that were retired.

A queue's *number* names its rows, and its *id* is the first number that it had.
Settings and dead items belong to the id.  A number is never reused, so rows,
scans and leases of a retired number are never taken for another queue's.
"""

from collections.abc import Collection, Iterable, Iterator
from weakref import WeakValueDictionary

from attrs import define

from queueber.broker.model import (
    HIGHEST,
    LOWEST,
    NO_QUEUE,
    UNKNOWN_TIME,
    ItemId,
    Key,
    QueueNumber,
    QueueRecord,
    off_time,
)
from queueber.broker.name_index import NameIndex
from queueber.broker.queue import Queue
from queueber.broker.settings import DEFAULT_SETTINGS, NOT_CONFIGURED, QueueConfig
from queueber.broker.storage import (
    DeleteRetired,
    DeleteSettings,
    PutNumbers,
    PutRetired,
    PutSettings,
    Recovered,
    SettingFields,
    Write,
)
from queueber.broker.window import Window
from queueber.broker.window_budget import WindowBudget
from queueber.errors import InvalidRequest, Overloaded
from queueber.fixed_limits import QUEUE_NAME_BYTES_MAX
from queueber.limits import Limits
from queueber.units import counted


@define(eq=False)
class Retired:
    """A retired number: its rows are deleted, except those of items that were leased when it was retired."""

    number: QueueNumber
    queue: Queue
    """The queue that had it, or holds its leases."""

    kept: set[ItemId]
    """The items that were leased.  Their rows are deleted when they leave their leases."""

    after: Key = LOWEST
    """The rows up to this key are deleted."""

    cleared: bool = False
    """Whether no row is left but those of *kept*."""


class Queues:
    """
    The queues that have a row, and those that are only referred to.

    A queue receives its number, and so its row, with its first add.  Until
    then only a weak reference is kept here, so that asking for names uses no
    memory for good.
    """

    def __init__(self, limits: Limits, defaults: QueueConfig = DEFAULT_SETTINGS) -> None:
        self._limits = limits
        self.defaults = defaults
        """The settings of a queue that was not configured."""
        self._by_name: dict[str, Queue] = {}
        self._by_number: dict[QueueNumber, Queue] = {}
        self.names = NameIndex()
        """The names of queues that have a row, and their labels."""
        self._unnumbered: WeakValueDictionary[str, Queue] = WeakValueDictionary()
        self._unnumbered_dead: WeakValueDictionary[str, Queue] = WeakValueDictionary()
        self.retired: dict[QueueNumber, Retired] = {}
        """Retired numbers that have rows or leases."""
        self.watched: dict[Queue, None] = {}
        """The queues that have a number and whose settings end idle queues or dead items."""
        self.unread: dict[Queue, None] = {}
        """The queues whose first key will be read, in this order: `FirstDues` takes them."""
        self._next_number = 1
        self.windows = WindowBudget(limits)
        """The memory of their windows."""

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Queue]:
        """Yield the queues that have a name, so without dead lines."""
        yield from self._by_name.values()
        yield from list(self._unnumbered.values())

    def lines(self) -> Iterator[Queue]:
        """Yield all queues, dead lines included."""
        for queue in self:
            yield queue
            if queue.dead is not None:
                yield queue.dead
        yield from list(self._unnumbered_dead.values())

    def named(self, name: str) -> Queue:
        """
        Return the queue of that name, which may be new.

        Raises:
            InvalidRequest: the name is not 1 to 255 bytes of UTF-8.
        """
        queue = self._by_name.get(name) or self._unnumbered.get(name)
        if queue is None:
            size = len(name.encode())
            if not 1 <= size <= QUEUE_NAME_BYTES_MAX:
                raise InvalidRequest(f"name is {size} bytes of UTF-8; it must be 1 to {QUEUE_NAME_BYTES_MAX}")
            # It has no rows, so its window covers everything.
            queue = self._unnumbered[name] = Queue(name, Window(HIGHEST, self.windows.meter))
            if self.defaults is not DEFAULT_SETTINGS:
                queue.apply_settings(self.defaults, NOT_CONFIGURED)
        return queue

    def by_number(self, number: QueueNumber) -> Queue:
        """Return the queue that has or had that number, as long as it has rows or leases."""
        return self._by_number[number]

    def dead_line(self, queue: Queue) -> Queue:
        """Return the dead line of *queue*, which has no number before the first death."""
        assert queue.owner is None, "dead items do not die"
        dead = queue.dead or self._unnumbered_dead.get(queue.name)
        if dead is None:
            dead = Queue(queue.name, Window(HIGHEST, self.windows.meter), owner=queue, checks_adds=True)
            self._unnumbered_dead[queue.name] = dead
        return dead

    def restore(self, recovered: Recovered) -> None:
        """Add the queues read from the disk at start, with empty windows."""
        ids: dict[QueueNumber, Queue] = {}
        for record in recovered.queues:
            queue = self._restored(record)
            if not record.dead_of:
                self._by_name[record.name] = queue
                assert queue.id is not None
                ids[queue.id] = queue
                self.names.add(queue.name)
                self._apply_settings(queue, recovered.settings.get(queue.id, NOT_CONFIGURED))
        for record in recovered.queues:
            if record.dead_of:
                dead, owner = self._by_number[record.number], ids[record.dead_of]
                dead.owner, owner.dead, dead.checks_adds = owner, dead, True
                assert dead.id is not None
                ids[dead.id] = dead
        for number, queue_id in recovered.retired.items():
            queue = ids.get(queue_id) or self._gone_line("")
            self._hold_retired(number, queue, set())
        last = max([0, *self._by_number])
        self._next_number = max(recovered.next_number, last + 1)

    def _restored(self, record: QueueRecord) -> Queue:
        queue = Queue(
            record.name,
            Window(record.floor, self.windows.meter),
            number=record.number,
            id=record.id or record.number,
            dead_of=record.dead_of,
            added=record.added,
            removed=record.removed,
            bytes=record.bytes,
            off_time=record.off_time,
            floor=record.floor,
            keyed_until=None if record.added else UNKNOWN_TIME,
        )
        if not queue.items:
            queue.window.note_beyond(None)
        elif not record.dead_of:
            self.unread[queue] = None
        self._by_number[record.number] = queue
        return queue

    def why_full(self, more: int = 1) -> Overloaded | None:
        """Return why no *more* queues may receive a number; None if they may."""
        if not more or len(self._by_name) + more <= self._limits.queues:
            return None
        return Overloaded(
            f"queues: {counted(len(self._by_name), 'exists', 'exist')}; the limit is {self._limits.queues:,} (queues)",
            limit="queues",
        )

    def assign_number(self, queue: Queue) -> QueueNumber:
        """Give *queue*, which has none, a number."""
        number = queue.number = queue.id = QueueNumber(self._next_number)
        self._next_number += 1
        self._by_number[number] = queue
        owner = queue.owner
        if owner is None:
            self._by_name[queue.name] = queue
            del self._unnumbered[queue.name]
            self._watch(queue)
            self.names.add(queue.name)
        else:
            assert owner.id is not None, "only items of a queue with a number die"
            queue.dead_of, owner.dead = owner.id, queue
            del self._unnumbered_dead[queue.name]
        return number

    def configure(self, queue: Queue, changes: SettingFields, reset: Collection[str] = ()) -> list[Write]:
        """
        Configure *queue*, which gets a number if it has none, and set the fields in *reset* back to their defaults.

        The caller has checked *changes*, and that a further queue may have a number.

        Returns:
            The writes.
        """
        if queue.number is None:
            self.assign_number(queue)
        configured = {**queue.configured, **changes}
        for wire in reset:
            configured.pop(wire, None)
        self._apply_settings(queue, configured)
        assert queue.id is not None, "a queue with a number has an id"
        return [PutSettings(queue.id, configured) if configured else DeleteSettings(queue.id)]

    def _apply_settings(self, queue: Queue, configured: SettingFields) -> None:
        labels = queue.settings.labels
        queue.apply_settings(self.defaults, configured)
        self.names.relabel(queue.name, labels, queue.settings.labels)
        self._watch(queue)

    def _watch(self, queue: Queue) -> None:
        if queue.settings.idle_ttl_ms or queue.settings.dead_ttl_ms:
            self.watched[queue] = None
        else:
            self.watched.pop(queue, None)

    def retire(self, queue: Queue) -> list[Write]:
        """
        Remove all items of *queue* that are not leased: it goes on under a fresh number.

        Returns:
            The writes.  The caller names the old number as `dropped` in its plan, which deletes the queue's old row.
        """
        old = queue.number
        assert old is not None, "a queue without a number has no items"
        number = QueueNumber(self._next_number)
        self._next_number += 1
        leased = [lease.keys[item_id] for item_id, lease in queue.held.items()]
        queue.restart(number)
        queue.removed = queue.added - len(leased)
        queue.bytes = sum([each.size for each in leased])
        queue.off_time = sum([off_time(each) for each in leased])
        self._by_number[number] = queue
        self._hold_retired(old, queue, {each.id for each in leased})
        assert queue.id is not None, "a queue with a number has an id"
        return [PutRetired(old, queue.id), PutNumbers(QueueNumber(self._next_number))]

    def delete(self, queue: Queue) -> list[Write]:
        """
        Delete *queue* with its dead items and its settings: the object is as one that was only asked for.

        Its leases, and those of its dead items, go to another object that is gone.  The caller ends them.

        Returns:
            The writes.  The caller names the numbers of both as `dropped` in its plan.
        """
        writes: list[Write] = []
        if queue.configured:
            assert queue.id is not None, "a queue with settings has an id"
            writes.append(DeleteSettings(queue.id))
        del self._by_name[queue.name]
        self.names.relabel(queue.name, queue.settings.labels, ())
        self.names.discard(queue.name)
        for line in (queue, queue.dead):
            if line is None:
                continue
            old = line.number
            assert old is not None, "a queue with a row has a number"
            gone = self._gone_line(line.name)
            gone.held = line.held
            for number in (*line.formers, old):
                kept = self.retired[number].kept if number in self.retired else set(line.held)
                self._hold_retired(number, gone, kept)
                writes.append(PutRetired(number, NO_QUEUE))
            line.restart(None)
            self.windows.forget(line)
            line.id, line.dead_of, line.held, line.formers = None, NO_QUEUE, {}, frozenset()
            line.added = line.removed = line.bytes = line.off_time = 0
            line.keyed_until = UNKNOWN_TIME
        if queue.dead is not None:
            self._unnumbered_dead[queue.name], queue.dead = queue.dead, None
        self.watched.pop(queue, None)
        queue.may_expire = False
        queue.apply_settings(self.defaults, NOT_CONFIGURED)
        self._unnumbered[queue.name] = queue
        return [*writes, PutNumbers(QueueNumber(self._next_number))]

    def _gone_line(self, name: str) -> Queue:
        """Return a queue that only holds leases until they end."""
        return Queue(name, Window(HIGHEST, self.windows.meter), gone=True)

    def _hold_retired(self, number: QueueNumber, queue: Queue, kept: set[ItemId]) -> None:
        """Keep a number whose leases are *queue*'s from now on."""
        queue.formers |= {number}
        self._by_number[number] = queue
        self.retired[number] = Retired(number, queue, kept)

    def keep_leased(self, number: QueueNumber, items: Iterable[ItemId]) -> None:
        """Keep rows of a retired number: the items are leased.  Called at start."""
        self.retired[number].kept.update(items)

    def forget_retired(self, number: QueueNumber) -> list[Write]:
        """Forget a retired number that has neither rows nor leases; return the writes."""
        retired = self.retired.pop(number)
        retired.queue.formers -= {number}
        del self._by_number[number]
        return [DeleteRetired(number)]

    def check(self) -> None:
        """Raise AssertionError if the parts disagree.  O(n); for tests."""
        lines = list(self.lines())
        self.windows.check(lines)
        assert self._by_name.keys().isdisjoint(self._unnumbered.keys())
        numbered = {queue.number: queue for queue in lines if queue.number is not None}
        assert self._by_number == numbered | {number: each.queue for number, each in self.retired.items()}
        for queue in lines:
            queue.check()
            assert queue.number is None or queue.number < self._next_number
            assert queue.dead is None or queue.dead.dead_of == queue.id
        for number, retired in self.retired.items():
            assert retired.queue.number != number
            assert number in retired.queue.formers
