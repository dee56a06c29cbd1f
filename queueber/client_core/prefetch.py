"""
Prefetched items of an iteration over a queue, without I/O.

An iteration polls for the next items while its program works on the present
one.  A prefetched item whose lease has ended is not returned: the server has given it to another worker, or will.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from queueber.api import Action, Settlement
from queueber.client_core.arguments import integer
from queueber.client_core.delivery import Delivered, DeliveredBatch
from queueber.client_core.held_leases import HeldLeases
from queueber.errors import Overloaded, QueueberError, Stopping
from queueber.units import MS_PER_SECOND

I = TypeVar("I", bound=Delivered)  # noqa: E741  (an item)

PREFETCH_MAX: Final = 1_000

_LEFT: Final = 0.9
"""The part of a lease in which an item is used: the lease began before its reply arrived."""

RETRY_SECONDS: Final = 1.0
"""The wait after a poll that failed for a passing reason."""


class Prefetch(Generic[I]):
    """The prefetched items of one iteration."""

    def __init__(self, count: int, lease_ms: int, clock: Callable[[], float], held: HeldLeases | None = None) -> None:
        """
        Prefetch up to *count* items, with leases of *lease_ms*.  *clock* returns monotonic seconds.

        *held* are the client's session leases, if the polls name a kept session.

        Raises:
            InvalidRequest: *count* is not 0 to 1,000.
        """
        self.count = integer("prefetch", count, 0, PREFETCH_MAX, "items")
        """The most items to prefetch; 0: each is polled for when it is asked for."""

        self._lease_seconds = lease_ms / MS_PER_SECOND
        self._clock = clock
        self._held = held
        self._stock: deque[tuple[I, float | None]] = deque()
        """Items, and the ends of their leases; None for a session lease."""

    def wanted(self) -> int:
        """Return the number of items to poll for now, at least 1 if there are none; 0 for no poll."""
        if len(self._stock) > self.count // 2:
            return 0
        return max(self.count - len(self._stock), 0 if self._stock else 1)

    def put(self, batch: DeliveredBatch[I], arrived: float | None = None) -> None:
        """Add a *batch* that has *arrived* at that time by the clock; None for now."""
        since = self._clock() if arrived is None else arrived
        until = None if batch.session else since + self._lease_seconds * _LEFT
        self._stock.extend((item, until) for item in batch.items)

    def take(self) -> I | None:
        """Return the next item whose lease still lives; None without one."""
        while self._stock:
            item, until = self._stock.popleft()
            if self._clock() < until if until is not None else self._held is None or item.lease in self._held:
                return item
        return None

    def give_back(self) -> list[Settlement]:
        """Drop all items, and return the entries of a `settle` that returns them to their queue."""
        entries = [Settlement(item.lease, item.id, Action.DEFER) for item, _ in self._stock]
        self._stock.clear()
        return entries


def passes(error: QueueberError) -> bool:
    """Return whether an iteration repeats a poll after *error*: the server is stopping or overloaded."""
    return isinstance(error, Stopping | Overloaded)
