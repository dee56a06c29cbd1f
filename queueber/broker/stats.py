"""What there is in a queue and under a lease, as far as that is known without asking the disk."""

from attrs import frozen

from queueber.broker.leases import Lease
from queueber.broker.model import Key
from queueber.broker.queue import Queue
from queueber.units import WallMs


@frozen
class Stats:
    """How much there is of everything, now."""

    queues: int
    items: int
    leases: int
    leased_items: int
    waiting_polls: int
    window_bytes: int
    uncommitted_plans: int


@frozen
class QueueState:
    """A queue's items by state, and who waits for them."""

    name: str
    ready: int
    delayed: int
    leased: int
    """Also those whose lease has ended and that have no new place yet."""

    unread: int
    """Ready or delayed: nobody has read them since they left memory, or since the start."""

    waiting: int
    """Polls in line."""

    oldest: WallMs | None
    """Since when the head is ready; None if none is, or none is known to be."""

    @property
    def items(self) -> int:
        """All of them."""
        return self.ready + self.delayed + self.leased + self.unread


def state_of(queue: Queue, now: WallMs) -> QueueState:
    """
    The state of *queue*.

    O(items in its window): all windows together are bounded, so all queues
    together cost no more than the sum of that bound and their number.
    """
    window = queue.window
    ready = window.count_ready(now)
    delayed, unread = len(window) - ready, 0
    beyond = queue.items - len(queue.held) - len(window)
    if window.covers(now):
        # What lies beyond the window becomes due even later.
        delayed += beyond
    else:
        unread = beyond
    head = window.head(now)
    return QueueState(
        queue.name, ready, delayed, len(queue.held), unread, len(queue.waiters), None if head is None else head.key.due
    )


def queue_line(queue: Queue) -> str:
    """What is known of *queue*, in one line."""
    return (
        f"queue {queue.name!r} number={queue.number} items={queue.items} held={len(queue.held)}"
        f" waiting={len(queue.waiters)} window={len(queue.window)} covered_to={_text(queue.window.covered_to)}"
        f" floor={_text(queue.floor)} refill={'yes' if queue.refill else 'no'}"
    )


def lease_line(lease: Lease) -> str:
    """What is known of *lease*, in one line."""
    return (
        f"lease {lease.id.hex()} queue={lease.queue} {lease.state.value} deadline={lease.deadline}"
        f" items={len(lease.keys)}"
    )


def _text(key: Key) -> str:
    return f"{key.due}/{key.id.hex()}"
