"""Items whose time to live is over: a claim passes over them, and they die or are dropped."""

from collections import deque
from collections.abc import Sequence

from attrs import define

from queueber.broker.allocation import Budget, ExpiryBudget
from queueber.broker.deaths import DropReason
from queueber.broker.model import LOWEST, Item, Key
from queueber.broker.moves import Changes, Moves
from queueber.broker.queue import Queue
from queueber.broker.settings import QueueConfig
from queueber.limits import Limits
from queueber.units import WallMs
from queueber.values import DeathReason


def is_expired(item: Item, settings: QueueConfig, now: WallMs) -> bool:
    """Return whether *item*, of a queue with these settings, may not be delivered any more."""
    facts = item.facts
    if facts is not None and facts.expires_at:
        return facts.expires_at <= now
    return 0 < settings.ttl_ms <= now - item.added_at


@define(eq=False)
class Unexpired:
    """The head of a window without expired items: a claim takes from it as from the window."""

    _items: deque[Item]
    past: Key
    """A key up to which the window has no item, as far as these are concerned."""

    def pop_due(self, count: int, now: WallMs, bytes_max: int) -> list[Item]:  # noqa: ARG002
        """Do what `Window.pop_due` does; all items are due."""
        items: list[Item] = []
        size = 0
        while self._items and len(items) < count and (not items or size < bytes_max):
            items.append(self._items.popleft())
            size += len(items[-1].contents)
        return items

    def put_back(self, items: Sequence[Item]) -> None:
        """Do what `Window.put_back` does."""
        self._items.extendleft(reversed(items))

    def rest(self) -> Sequence[Item]:
        """Return the items that were not taken, in order."""
        return self._items


@define(eq=False)
class Expirations:
    """Takes expired items out of the way of claims."""

    _moves: Moves
    _limits: Limits

    def sift(self, queue: Queue, count: int, now: WallMs, changes: Changes, budget: Budget) -> Unexpired:
        """
        Take the head of the window of *queue*: about *count* due items that fit *budget*, and expired ones before them.

        Expired items die, or are dropped if the queue says so, in *changes*.  They have a budget of their own; those
        beyond it are left for the next claim.  The caller puts the `rest` back.
        """
        settings, limits = queue.settings, self._limits
        expiring = budget.expiring = budget.expiring or ExpiryBudget(limits.expiry_slice, limits.refill_bytes)
        items = queue.window.pop_due(count + expiring.items, now, budget.bytes + expiring.bytes)
        live: deque[Item] = deque()
        past = LOWEST
        for place, item in enumerate(items):
            if not is_expired(item, settings, now):
                live.append(item)
                continue
            if expiring.exhausted:
                queue.window.put_back(items[place:])
                break
            expiring.items -= 1
            expiring.bytes -= len(item.contents)
            if not live:
                past = item.key
            assert queue.number is not None, "a queue with items has a number"
            if settings.drop_expired:
                self._moves.drop_for(changes, queue.number, item, DropReason.EXPIRED)
            else:
                self._moves.die(changes, queue.number, item, DeathReason.EXPIRED, now)
        return Unexpired(live, past)
