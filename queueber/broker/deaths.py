"""
Deaths: items move to the dead line of their queue.

A queue's *dead line* is a queue of its own, whose items are ordered by the
moment of their death.  It is made with the first death.  Items of a dead line
do not die again.
"""

from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Final, TypeAlias

from attrs import define, field

from queueber.broker.model import TIME_BYTES, UNKNOWN_TIME, Facts, Item, Key, off_time
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.units import WallMs
from queueber.values import Death, DeathReason

NO_FACTS: Final = Facts()

COUNTED_QUEUES_MAX: Final = 100
"""Queues whose deaths and drops are counted apart.  Each makes up to six time series in a monitoring system."""


class DropReason(StrEnum):
    """Why the server removed an item that no worker has finished and no operator has removed."""

    EXPIRED = "expired"
    """Not delivered in time, in a queue with `drop_expired`."""

    DEAD_TTL = "dead_ttl"
    """Among the dead items for `dead_ttl_ms`."""


OnDeath: TypeAlias = Callable[[Queue, Item, DeathReason | DropReason], None]
"""Takes the queue in which an item died or is dropped, the item, and the reason.  The plan is not durable yet."""


def ignore_death(queue: Queue, item: Item, reason: DeathReason | DropReason) -> None:
    """Do nothing."""


@define(eq=False)
class Deaths:
    """Moves items to dead lines, and counts them and the items that are dropped."""

    _queues: Queues
    _on_death: OnDeath = ignore_death
    counts: Counter[tuple[str, DeathReason]] = field(factory=Counter, init=False)
    """
    Deaths since the start, by the name of the queue and the reason; items that were dropped are not among them.

    Queues beyond the first `COUNTED_QUEUES_MAX` that had any, or drops, are counted together under an empty name.
    """

    drops: Counter[tuple[str, DropReason]] = field(factory=Counter, init=False)
    """Items that were dropped since the start, in the same way."""

    _counted: set[str] = field(factory=set, init=False)

    def die(self, queue: Queue, item: Item, reason: DeathReason, now: WallMs) -> tuple[Queue, Item]:
        """
        Add *item*, which has left *queue*, to its dead items in memory.

        The caller deletes the item's old row, writes the new one, and includes the dead line in its plan.

        Returns:
            The dead line, and the item as it is in there.
        """
        dead = self._queues.dead_line(queue)
        if dead.number is None:
            self._queues.assign_number(dead)
        # Later than the time in the id, so that an item in a dead line never is where its id says.
        added = int.from_bytes(item.key.id[:TIME_BYTES], "big")
        due = max(now, WallMs(added + 1))
        facts = (item.facts or NO_FACTS)._replace(expires_at=UNKNOWN_TIME, death=Death(reason, now, queue.name))
        died = item._replace(key=Key(due, item.key.id), facts=facts)
        dead.added += 1
        dead.bytes += len(item.contents)
        dead.off_time += off_time(died.key)
        dead.put(died)
        self.counts[self._counted_as(queue.name), reason] += 1
        self._on_death(queue, died, reason)
        return dead, died

    def note_drop(self, queue: Queue, item: Item, reason: DropReason) -> None:
        """Count *item* of *queue*, or of its dead line, which is dropped."""
        self.drops[self._counted_as(queue.name), reason] += 1
        self._on_death(queue, item, reason)

    def _counted_as(self, name: str) -> str:
        if name not in self._counted:
            if len(self._counted) >= COUNTED_QUEUES_MAX:
                return ""
            self._counted.add(name)
        return name
