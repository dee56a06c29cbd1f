"""All queues, by name and by number, and the memory their windows may take together."""

from collections import OrderedDict
from collections.abc import Iterator
from weakref import WeakValueDictionary

from queueber.broker.model import HIGHEST, QueueNumber, QueueRecord
from queueber.broker.queue import Queue
from queueber.broker.window import Meter, Window
from queueber.errors import InvalidRequest, Overloaded
from queueber.limits import QUEUE_NAME_BYTES_MAX, Limits
from queueber.units import counted

# A window below this is dropped whole when memory is short: halving it again would free next to nothing.
_TRIM_WHOLE_BYTES = 64 << 10


class Queues:
    """
    The queues that have a row, and those that somebody merely holds.

    A queue gets its number, and so its row, with its first add.  Until then
    only a weak reference is kept here, so that asking for names costs nothing
    that lasts.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_name: dict[str, Queue] = {}
        self._by_number: dict[QueueNumber, Queue] = {}
        self._unnumbered: WeakValueDictionary[str, Queue] = WeakValueDictionary()
        self._next_number = 1
        self._meter = Meter(limits.item_overhead)
        # Whose windows hold something, the one least recently claimed from first.
        self._lru: OrderedDict[Queue, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Queue]:
        yield from self._by_name.values()
        yield from list(self._unnumbered.values())

    @property
    def window_bytes(self) -> int:
        """What all windows together cost in memory."""
        return self._meter.bytes

    def named(self, name: str) -> Queue:
        """
        The queue of that name, which may be new.

        Raises:
            InvalidRequest: the name is empty or too long.
        """
        queue = self._by_name.get(name) or self._unnumbered.get(name)
        if queue is None:
            size = len(name.encode())
            if not 1 <= size <= QUEUE_NAME_BYTES_MAX:
                raise InvalidRequest(f"name is {size} bytes of UTF-8; it must be 1 to {QUEUE_NAME_BYTES_MAX}")
            # There is nothing of it on the disk, so its window knows everything.
            queue = self._unnumbered[name] = Queue(name, Window(HIGHEST, self._meter))
        return queue

    def by_number(self, number: QueueNumber) -> Queue:
        """The queue with that number, which exists."""
        return self._by_number[number]

    def restore(self, record: QueueRecord) -> Queue:
        """A queue found at start-up.  Nothing of its items is known yet."""
        queue = Queue(
            record.name,
            Window(record.floor, self._meter),
            number=record.number,
            added=record.added,
            removed=record.removed,
            floor=record.floor,
        )
        self._by_name[record.name] = self._by_number[record.number] = queue
        self._next_number = max(self._next_number, record.number + 1)
        return queue

    def check_queue_limit(self, queue: Queue) -> None:
        """
        Make sure that *queue* may become durable.

        Raises:
            Overloaded: there are as many queues as there may be, and it is none of them.
        """
        if queue.number is None and len(self._by_name) >= self._limits.queues:
            raise Overloaded(
                f"queues: {counted(len(self._by_name), 'exists', 'exist')};"
                f" the limit is {self._limits.queues:,} (queues)",
                limit="queues",
            )

    def assign_number(self, queue: Queue) -> QueueNumber:
        """The queue's number, which it gets now if it has none yet."""
        if queue.number is None:
            queue.number = QueueNumber(self._next_number)
            self._next_number += 1
            self._by_name[queue.name] = self._by_number[queue.number] = queue
            del self._unnumbered[queue.name]
        return queue.number

    def touch(self, queue: Queue) -> None:
        """Keep the queue's window for longer than those of others."""
        self._lru[queue] = None
        self._lru.move_to_end(queue)

    def enforce_budget(self, queue: Queue) -> None:
        """Make room if the window of *queue* has outgrown a bound."""
        if queue not in self._lru:
            # Nobody has claimed from it: of all windows it is the one that is missed least.
            self._lru[queue] = None
            self._lru.move_to_end(queue, last=False)
        if queue.window.bytes > self._limits.queue_window_bytes:
            # To half and not just below, so that the next put does not sort it all again.
            # The head stays whatever it costs: a claim that waits for it gets it.
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
