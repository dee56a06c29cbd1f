"""The ways in which an item leaves its lease for another place, in memory and as writes of a plan, and its backoff."""

from collections.abc import Callable
from typing import TypeVar

from attrs import define, field

from queueber.broker.deaths import Deaths, DropReason
from queueber.broker.model import Item, Key, QueueNumber, off_time
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.polls import Polls
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.broker.storage import DeleteItem, PutItems, Write
from queueber.units import SpanMs, WallMs
from queueber.values import DeathReason

T = TypeVar("T")

_DOUBLINGS_MAX = 63
"""More would double nothing but the length of a number: the cap is far below."""


@define(eq=False)
class Changes:
    """The changes of a plan so far."""

    queue: Queue
    """The queue from which items move."""

    writes: list[Write] = field(factory=list)
    others: dict[Queue, None] = field(factory=dict)
    """Other queues that changed."""

    size: int = 0
    """Contents among the writes, bytes."""


@define(eq=False)
class Moves:
    """Moves items that have left their lease or their queue's window."""

    _queues: Queues
    _polls: Polls
    _uncommitted: UncommittedPlans
    _deaths: Deaths

    def come_back(self, changes: Changes, number: QueueNumber, item: Item, key: Key) -> None:
        """Put *item*, whose row is under *number*, back into its queue at *key*, or drop it if the queue is deleted."""
        queue = changes.queue
        changes.writes.append(DeleteItem(number, item.key))
        if queue.gone:
            return
        queue.off_time += off_time(key) - off_time(item.key)
        again = item._replace(key=key)
        assert queue.number is not None, "a queue with items has a number"
        changes.writes.append(PutItems(queue.number, [again]))
        changes.size += len(item.contents)
        queue.put(again)

    def die(self, changes: Changes, number: QueueNumber, item: Item, reason: DeathReason, now: WallMs) -> None:
        """Move *item*, whose row is under *number*, to the dead line."""
        self.drop(changes, number, item)
        line, dead = self._deaths.die(changes.queue, item, reason, now)
        assert line.number is not None, "a queue with items has a number"
        changes.writes.append(PutItems(line.number, [dead]))
        changes.size += len(item.contents)
        changes.others[line] = None

    def drop(self, changes: Changes, number: QueueNumber, item: Item) -> None:
        """Remove *item*, whose row is under *number*, for ever."""
        queue = changes.queue
        changes.writes.append(DeleteItem(number, item.key))
        queue.removed += 1
        queue.bytes -= len(item.contents)
        queue.off_time -= off_time(item.key)

    def drop_for(self, changes: Changes, number: QueueNumber, item: Item, reason: DropReason) -> None:
        """Do what `drop` does, and count it: neither a worker nor an operator removes *item*."""
        self.drop(changes, number, item)
        self._deaths.note_drop(changes.queue, item, reason)

    def plan(self, changes: Changes, reply: T) -> Plan[T]:
        """Make the plan."""
        queue = changes.queue
        for each in (queue, *changes.others):
            self._queues.windows.enforce(each)
            self._polls.mark_runnable(each)
        return self._uncommitted.plan(queue, changes.writes, reply, changes.size, others=changes.others)


def backoff(count: int, base: SpanMs, cap: SpanMs, below: Callable[[int], int]) -> SpanMs:
    """
    Return a random span of at least 0 and at most `min(cap, base * 2**(count - 1))`.

    The whole span is random (full jitter), so that items that failed together do not come back together.

    Args:
        count: how often the item has failed, or how often its leases have ended; at least 1.
        base: the longest wait after the first time.
        cap: the longest wait.
        below: returns a random integer of at least 0 and below its argument, as `Ids.below`.
    """
    longest = min(cap, base << min(count - 1, _DOUBLINGS_MAX))
    return SpanMs(below(longest + 1))
