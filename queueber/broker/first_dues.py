"""
The dues of first items that are not in memory, for statistics alone.

After a start no window has items, and a queue without polls would never show
its age.  So the key of its first row is read, and nothing else: its due goes to
`Window.beyond_due`, and the row stays on the disk.  A refill would fill the
window with rows that no poll wants, and a poll that came meanwhile would get no
more than those.

A snapshot may lack the writes of plans, so a read follows all that were not
durable when it began and all made since, as counts do.  Its result is dropped
if the window has moved meanwhile: no claim waits for it.
"""

from collections.abc import Iterable, Sequence
from itertools import islice, takewhile
from typing import Final

from attrs import define, field

from queueber.broker.model import HIGHEST, Key, QueueNumber
from queueber.broker.plans import UncommittedPlans
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.broker.storage import DeleteItem, PutItems, Write
from queueber.units import MINUTE, SpanMs, WallMs

QUEUES_MAX: Final = 64
"""The most queues of one read."""

KEYS: Final = 4
"""Keys read per queue in the first slice.  Nearly always one is enough: few rows above a floor are leased."""

KEYS_MAX: Final = 4_000
"""The most keys of one slice, over all its queues: so that it holds the interpreter for milliseconds only."""

ROWS_MAX: Final = 64_000
"""
The most rows of leased items that a read keeps after a slice, for they take memory.

A queue with more is left out.  If several have more together, the last of them wait for a later read.
"""

RETRY_DELAY: Final = SpanMs(MINUTE)
"""The time between two reads of a queue whose first key cannot be read, or has too many leased items before it."""


@define(eq=False)
class _Unread:
    """One queue in a read."""

    queue: Queue
    start: Key
    """The window's `covered_to` when the read began."""

    after: Key
    """Rows up to this key were read: those of leased items."""

    rows: list[Key] = field(factory=list, init=False)
    """The rows that were read.  An item that is given back keeps its row, and no plan writes it."""

    log: dict[Key, bool] = field(factory=dict, init=False)
    """Keys that were written since, and whether there is a row now."""

    def unleased(self, keys: Iterable[Key]) -> list[Key]:
        """Return those of *keys* that still have a row and are not leased."""
        return [key for key in keys if self.log.get(key, True) and key.id not in self.queue.held]


@define(eq=False)
class FirstDueRead:
    """
    A read of the first unleased keys of some queues.

    The caller reads `keys_max` keys for each of `places`, a slice, and passes them, until there are no places.
    """

    _unread: dict[QueueNumber, _Unread] = field(factory=dict, init=False)
    keys_max: int = field(default=KEYS, init=False)
    """The keys to read of each queue in the next slice."""

    left_out: list[Queue] = field(factory=list, init=False)
    """The queues with more than `ROWS_MAX` rows of leased items before their first key."""

    put_off: list[Queue] = field(factory=list, init=False)
    """The queues that are read from the start by a later read."""

    @property
    def places(self) -> list[tuple[QueueNumber, Key]]:
        """The queues to read, and the key above which to read each."""
        return [(number, each.after) for number, each in self._unread.items()]

    def begin(self, number: QueueNumber, queue: Queue) -> None:
        """Add *queue*, before the first slice."""
        start = queue.window.covered_to
        self._unread[number] = _Unread(queue, start, start)

    def note(self, writes: Sequence[Write]) -> None:
        """Note the writes of a plan."""
        for write in writes:
            if isinstance(write, PutItems):
                if (unread := self._unread.get(write.queue)) is not None:
                    unread.log.update((item.key, True) for item in write.items)
            elif isinstance(write, DeleteItem) and (unread := self._unread.get(write.queue)) is not None:
                unread.log[write.key] = False

    def add(self, number: QueueNumber, keys: Sequence[Key]) -> None:
        """Add the next *keys* of a queue, in order; fewer than `keys_max` if there are none above them."""
        unread = self._unread[number]
        queue, window = unread.queue, unread.queue.window
        if queue.number != number or window.covered_to != unread.start or window.beyond_due is not None:
            del self._unread[number]
            return
        unread.rows += keys
        unread.after = HIGHEST if len(keys) < self.keys_max else keys[-1]
        written = [key for key in unread.log if unread.start < key <= unread.after]
        if unread.after == HIGHEST or unread.unleased([*keys, *written]):
            first = min(unread.unleased([*unread.rows, *written]), default=None)
            window.note_beyond(None if first is None else first.due)
            del self._unread[number]
        elif len(unread.rows) > ROWS_MAX:
            self.left_out.append(self.drop(number))

    def end_slice(self) -> None:
        """Read more keys in the next slice, of as many queues as there is room for: all so far are of leased items."""
        rows = sum(len(each.rows) for each in self._unread.values())
        while rows > ROWS_MAX:
            _, last = self._unread.popitem()
            rows -= len(last.rows)
            self.put_off.append(last.queue)
        self.keys_max = KEYS_MAX // max(1, len(self._unread))

    def drop(self, number: QueueNumber) -> Queue:
        """Read a queue no further, and return it."""
        return self._unread.pop(number).queue


@define(eq=False)
class FirstDues:
    """
    The queues whose first key will be read.

    At start these are the queues with items, later those whose first due statistics could not report.
    """

    _queues: Queues
    _uncommitted: UncommittedPlans
    _postponed: dict[Queue, WallMs] = field(factory=dict, init=False)
    """The queues whose read failed or left them out, and when they are read again, in order of these times."""

    def want(self, queue: Queue) -> None:
        """Schedule a read of the first key of *queue*, never a dead line, unless its due is known."""
        if _is_unknown(queue) and queue not in self._postponed:
            self._queues.unread[queue] = None

    def begin(self, now: WallMs) -> FirstDueRead | None:
        """Return a read of the next queues; it may have no places.  None if no queue waits."""
        unread = self._queues.unread
        for queue, _ in list(takewhile(lambda each: each[1] <= now, self._postponed.items())):
            del self._postponed[queue]
            unread[queue] = None
        if not unread:
            return None
        read = FirstDueRead()
        for queue in list(islice(unread, QUEUES_MAX)):
            del unread[queue]
            # A queue may have been wanted during the read that postponed it.
            if queue in self._postponed or queue.number is None or not _is_unknown(queue):
                continue
            if queue.items == len(queue.held):
                queue.window.note_beyond(None)
            else:
                read.begin(queue.number, queue)
        self._uncommitted.follow(read)
        return read

    def fail(self, read: FirstDueRead, number: QueueNumber, now: WallMs) -> Queue:
        """Postpone a queue of *read* that cannot be read, and return it."""
        queue = read.drop(number)
        self._postpone(queue, now)
        return queue

    def end(self, read: FirstDueRead, now: WallMs) -> None:
        """End *read*, which has no places any more, and schedule the queues that it has not read."""
        self._uncommitted.unfollow(read)
        for queue in reversed(read.put_off):
            self.want(queue)
        for queue in read.left_out:
            self._postpone(queue, now)

    def _postpone(self, queue: Queue, now: WallMs) -> None:
        # The order of times is that of insertion.
        self._postponed.pop(queue, None)
        self._postponed[queue] = WallMs(now + RETRY_DELAY)


def _is_unknown(queue: Queue) -> bool:
    """Return whether the due of the first unleased item of *queue* is not known."""
    window = queue.window
    return not window and window.beyond_due is None and window.covered_to != HIGHEST
