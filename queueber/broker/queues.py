"""All queues, by name and by number, and the memory budget that their windows share."""

from collections import OrderedDict
from collections.abc import Iterator
from weakref import WeakValueDictionary

from queueber.broker.model import HIGHEST, QueueNumber, QueueRecord
from queueber.broker.queue import Queue
from queueber.broker.window import Meter, Window
from queueber.errors import InvalidRequest, Overloaded
from queueber.limits import QUEUE_NAME_BYTES_MAX, Limits
from queueber.units import counted

# A window smaller than this is dropped whole when memory is short: half of it would free next to nothing.
_TRIM_WHOLE_BYTES = 64 << 10


class Queues:
    """
    The queues that have a row, and those that are only referred to.

    A queue receives its number, and so its row, with its first add.  Until
    then only a weak reference is kept here, so that asking for names uses no
    memory for good.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_name: dict[str, Queue] = {}
        self._by_number: dict[QueueNumber, Queue] = {}
        self._unnumbered: WeakValueDictionary[str, Queue] = WeakValueDictionary()
        self._next_number = 1
        self._meter = Meter(limits.item_overhead)
        # Queues whose windows may hold items, the least recently claimed from first.
        self._lru: OrderedDict[Queue, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Queue]:
        yield from self._by_name.values()
        yield from list(self._unnumbered.values())

    @property
    def window_bytes(self) -> int:
        """The memory that all windows together use."""
        return self._meter.bytes

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
            queue = self._unnumbered[name] = Queue(name, Window(HIGHEST, self._meter))
        return queue

    def by_number(self, number: QueueNumber) -> Queue:
        """Return the queue with that number, which exists."""
        return self._by_number[number]

    def restore(self, record: QueueRecord) -> Queue:
        """Add a queue read from the disk at start, with an empty window."""
        queue = Queue(
            record.name,
            Window(record.floor, self._meter),
            number=record.number,
            id=record.id or record.number,
            dead_of=record.dead_of,
            added=record.added,
            removed=record.removed,
            bytes=record.bytes,
            off_time=record.off_time,
            floor=record.floor,
        )
        self._by_name[record.name] = self._by_number[record.number] = queue
        self._next_number = max(self._next_number, record.number + 1)
        return queue

    def why_full(self) -> Overloaded | None:
        """Return why no further queue may receive a number; None if one may."""
        if len(self._by_name) < self._limits.queues:
            return None
        return Overloaded(
            f"queues: {counted(len(self._by_name), 'exists', 'exist')}; the limit is {self._limits.queues:,} (queues)",
            limit="queues",
        )

    def assign_number(self, queue: Queue) -> QueueNumber:
        """Give *queue*, which has none, a number."""
        number = queue.number = queue.id = QueueNumber(self._next_number)
        self._next_number += 1
        self._by_name[queue.name] = self._by_number[number] = queue
        del self._unnumbered[queue.name]
        return number

    def touch(self, queue: Queue) -> None:
        """Note a claim from *queue*: windows of other queues are dropped before its own."""
        self._lru[queue] = None
        self._lru.move_to_end(queue)

    def enforce_budget(self, queue: Queue) -> None:
        """Drop the tails of windows if that of *queue*, which has grown, or all together exceed a limit."""
        if queue not in self._lru:
            # No claim has been made from it, so its window is the first to be dropped.
            self._lru[queue] = None
            self._lru.move_to_end(queue, last=False)
        if queue.window.bytes > self._limits.queue_window_bytes:
            # To half of the limit and not just below it, so that the next put does not sort everything again.
            # The head stays whatever its size: the claim that waits for it takes it.
            queue.window.trim(self._limits.queue_window_bytes // 2, queue.floor, keep=1)
        while self._meter.bytes > self._limits.window_bytes:
            victim = next(iter(self._lru))
            if victim is queue and len(self._lru) == 1:
                victim.window.trim(self._limits.window_bytes // 2, victim.floor, keep=1)
                break
            half = victim.window.bytes // 2
            victim.window.trim(half if half > _TRIM_WHOLE_BYTES else 0, victim.floor)
            if not victim.window:
                del self._lru[victim]

    def check(self) -> None:
        """Raise AssertionError if the parts disagree.  O(n); for tests."""
        assert self._meter.bytes == sum(queue.window.bytes for queue in self)
        assert self._by_name.keys().isdisjoint(self._unnumbered.keys())
        assert list(self._by_number.values()) == list(self._by_name.values())
        for queue in self:
            queue.check()
            assert not queue.window or queue in self._lru
            assert queue.number is None or queue.number < self._next_number
