"""Items whose time to live is over: a claim passes over them, and they die or are dropped."""

from collections import deque
from collections.abc import Sequence

from attrs import define

from queueber.broker.model import LOWEST, Item, Key
from queueber.broker.moves import Changes, Moves
from queueber.broker.queue import Queue
from queueber.broker.settings import Settings
from queueber.limits import Limits
from queueber.units import WallMs
from queueber.values import DeathReason


def is_expired(item: Item, settings: Settings, now: WallMs) -> bool:
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


@define
class ExpiryBudget:
    """The expired items that a claim may still take out of the way, in all its queues together."""

    items: int
    bytes: int

    @property
    def exhausted(self) -> bool:
        """Whether further expired items have to wait for the next claim."""
        return self.items <= 0 or self.bytes <= 0


@define(eq=False)
class Expirations:
    """Takes expired items out of the way of claims."""

    _moves: Moves
    _limits: Limits

    def budget(self) -> ExpiryBudget:
        """Return that of one claim."""
        return ExpiryBudget(self._limits.expiry_slice, self._limits.refill_bytes)

    def sift(
        self, queue: Queue, count: int, bytes_max: int, now: WallMs, changes: Changes, budget: ExpiryBudget
    ) -> Unexpired:
        """
        Take the head of the window of *queue*: about *count* due items of *bytes_max*, and expired ones before them.

        Expired items die, or are dropped if the queue says so, in *changes*.  Those beyond *budget* are left for the
        next claim.  The caller puts the `rest` back.
        """
        settings = queue.settings
        items = queue.window.pop_due(count + budget.items, now, bytes_max + budget.bytes)
        live: deque[Item] = deque()
        past = LOWEST
        for place, item in enumerate(items):
            if not is_expired(item, settings, now):
                live.append(item)
                continue
            if budget.exhausted:
                queue.window.put_back(items[place:])
                break
            budget.items -= 1
            budget.bytes -= len(item.contents)
            if not live:
                past = item.key
            assert queue.number is not None, "a queue with items has a number"
            if settings.drop_expired:
                self._moves.drop(changes, queue.number, item)
            else:
                self._moves.die(changes, queue.number, item, DeathReason.EXPIRED, now)
        return Unexpired(live, past)
