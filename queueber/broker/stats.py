"""Statistics of queues and leases, without reading the disk."""

from attrs import frozen

from queueber.broker.leases import Lease
from queueber.broker.model import Key
from queueber.broker.queue import Queue
from queueber.units import WallMs


@frozen
class Stats:
    """The number of things of each kind."""

    queues: int
    items: int
    leases: int
    leased_items: int
    waiting_polls: int
    window_bytes: int
    uncommitted_plans: int


@frozen
class QueueState:
    """A queue's items by state, and its waiting polls."""

    name: str
    ready: int
    delayed: int
    leased: int
    """Also those whose lease has expired and that have no new key yet."""

    unread: int
    """Ready or delayed: they have not been read since they left memory, or since the start."""

    waiting: int
    """Waiting polls."""

    oldest: WallMs | None
    """The due of the first item if it is ready; None if it is not, or if it was not read."""

    @property
    def items(self) -> int:
        """The number of items in all states."""
        return self.ready + self.delayed + self.leased + self.unread


def state_of(queue: Queue, now: WallMs) -> QueueState:
    """
    Return the state of *queue*.

    The time is proportional to the items in the queue's window.  For all queues it is proportional to the number of
    queues plus the items in all windows, which `Limits.window_bytes` bounds.
    """
    window = queue.window
    ready = window.count_ready(now)
    delayed, unread = len(window) - ready, 0
    beyond = queue.items - len(queue.held) - len(window)
    if window.none_due_beyond(now):
        # The items beyond the window become due even later.
        delayed += beyond
    else:
        unread = beyond
    first = window.first_due()
    oldest = first if first is not None and first <= now else None
    return QueueState(queue.name, ready, delayed, len(queue.held), unread, len(queue.waiters), oldest)


@frozen
class Bounds:
    """The number of ready and of delayed items of a queue: at least and at most."""

    ready: int
    ready_max: int
    delayed: int
    delayed_max: int
    oldest: WallMs | None
    """The due of the first unleased item; None if there is none, or it is not known."""


def bounds_of(queue: Queue, now: WallMs) -> Bounds:
    """
    Return bounds for the unleased items of *queue*: exact if none beyond its window is due, or no item is off its time.

    If an item beyond the window may be due, all items in the window are ready.  An item beyond it can be delayed only
    if its due is not the time in its id, which has passed, and if it is not the first one, known to be due.  The call
    takes time in proportion to the items in the window.
    """
    window = queue.window
    unleased = queue.items - len(queue.held)
    oldest = window.first_due()
    if window.none_due_beyond(now):
        ready = window.count_ready(now)
        return Bounds(ready, ready, unleased - ready, unleased - ready, oldest)
    beyond = unleased - len(window) - (window.beyond_due is not None)
    delayed_max = min(beyond, queue.off_time)
    return Bounds(unleased - delayed_max, unleased, 0, delayed_max, oldest)


def exact_bounds(queue: Queue, ready: int) -> Bounds:
    """Return the bounds for the unleased items of *queue*, if *ready* items were counted as ready."""
    delayed = queue.items - len(queue.held) - ready
    return Bounds(ready, ready, delayed, delayed, queue.window.first_due())


def queue_line(queue: Queue) -> str:
    """Return the state of *queue* as a line of text."""
    return (
        f"queue {queue.name!r} number={queue.number} items={queue.items} held={len(queue.held)}"
        f" waiting={len(queue.waiters)} window={len(queue.window)} covered_to={_text(queue.window.covered_to)}"
        f" floor={_text(queue.floor)} refill={'yes' if queue.refill else 'no'}"
    )


def lease_line(lease: Lease) -> str:
    """Return the state of *lease* as a line of text."""
    return (
        f"lease {lease.id.hex()} queue={lease.queue} {lease.state.name.lower()} deadline={lease.deadline}"
        f" items={len(lease.keys)}"
    )


def _text(key: Key) -> str:
    return f"{key.due}/{key.id.hex()}"
