"""The memory budget that the windows of all queues share."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from queueber.broker.queue import Queue
from queueber.broker.window import Meter
from queueber.limits import Limits

_TRIM_WHOLE_BYTES: Final = 64 << 10
"""A window smaller than this is dropped whole when memory is short: half of it would free next to nothing."""


class WindowBudget:
    """
    The memory of all windows, and the order in which they are dropped: the least recently claimed from first.

    A window that drops items lowers its `covered_to`, so the disk has them again.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.meter = Meter(limits.item_overhead)
        """Counts the bytes of all windows that were made with it."""

        self._lru: OrderedDict[Queue, None] = OrderedDict()
        """Queues whose windows may hold items."""

    @property
    def bytes(self) -> int:
        """The memory that all windows together use."""
        return self.meter.bytes

    def touch(self, queue: Queue) -> None:
        """Note a claim from *queue*: windows of other queues are dropped before its own."""
        self._lru[queue] = None
        self._lru.move_to_end(queue)

    def forget(self, queue: Queue) -> None:
        """Forget *queue*, whose window is empty."""
        self._lru.pop(queue, None)

    def enforce(self, queue: Queue) -> None:
        """Drop the tails of windows if that of *queue*, which has grown, or all together exceed a limit."""
        if queue not in self._lru:
            # No claim has been made from it, so its window is the first to be dropped.
            self._lru[queue] = None
            self._lru.move_to_end(queue, last=False)
        if queue.window.bytes > self._limits.queue_window_bytes:
            # To half of the limit and not just below it, so that the next put does not sort everything again.
            # The head stays whatever its size: the claim that waits for it takes it.
            queue.window.trim(self._limits.queue_window_bytes // 2, queue.floor, keep=1)
        # Other windows that the same plan has grown may not be in the order yet: their turn comes.
        while self._lru and self.meter.bytes > self._limits.window_bytes:
            victim = next(iter(self._lru))
            if victim is queue and len(self._lru) == 1:
                victim.window.trim(self._limits.window_bytes // 2, victim.floor, keep=1)
                break
            half = victim.window.bytes // 2
            victim.window.trim(half if half > _TRIM_WHOLE_BYTES else 0, victim.floor)
            if not victim.window:
                del self._lru[victim]

    def check(self, queues: Iterable[Queue]) -> None:
        """Raise AssertionError if *queues*, which are all, have other windows.  O(n); for tests."""
        queues = list(queues)
        assert self.meter.bytes == sum(queue.window.bytes for queue in queues)
        assert all(queue in self._lru for queue in queues if queue.window)
