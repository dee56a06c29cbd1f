"""
How what is ready is shared among the polls that wait for it.

One claim serves many polls with one commit.  They take turns, one item a
turn, each until it has what it wanted: six items over polls of 5, 3 and 1
give 3, 2 and 1.  A claim is bounded in polls, items and bytes, each after at
least one whole poll, so that one commit and one turn of the reactor stay
short however much is ready; what is left over is the next claim's.
"""

from collections.abc import Iterator

from attrs import define, field, frozen

from queueber.broker.model import Item
from queueber.broker.waiter import Waiter
from queueber.broker.window import Window
from queueber.units import MIB, WallMs


@frozen(kw_only=True)
class ClaimBounds:
    """What one claim may hand out."""

    polls: int = 64
    items: int = 512
    bytes: int = 16 * MIB
    """Contents, after at least one item."""


@define
class Budget:
    """What is left of the bounds while a claim goes from queue to queue."""

    polls: int
    items: int
    bytes: int
    room: int
    """Items that may still become leased; this bound gives way to nobody."""

    full_replies: int = 0
    """Polls that would have got more if their replies could hold more bytes."""

    spent: bool = False
    """Whether a poll has been served: until then the bounds give way to it."""

    @property
    def exhausted(self) -> bool:
        """Whether another poll has to wait for the next claim."""
        return self.room <= 0 or (self.spent and (self.polls <= 0 or self.no_more_items))

    @property
    def no_more_items(self) -> bool:
        """Whether the polls of this claim have to make do with what they have."""
        return self.room <= 0 or self.items <= 0 or self.bytes <= 0


@define(eq=False)
class Allocation:
    """What one poll gets out of a claim."""

    waiter: Waiter
    items: list[Item] = field(factory=list)
    bytes: int = 0

    def take(self, item: Item) -> None:
        """Get one item more."""
        self.items.append(item)
        self.bytes += len(item.contents)

    def has_room(self, item: Item, bytes_max: int) -> bool:
        """Whether the poll's reply can hold *item* too; the first always fits."""
        return not self.items or self.bytes + len(item.contents) <= bytes_max


def allocate_round_robin(
    window: Window, waiters: Iterator[Waiter], *, now: WallMs, budget: Budget, reply_bytes_max: int
) -> list[Allocation]:
    """
    Take ready items out of *window* and deal them to *waiters*, who are asked for in the order of their line.

    Only as many waiters are looked at as are given something, so the cost
    follows the items.  The shares come in the order of the line, none empty.
    """
    allocations: list[Allocation] = []
    turn: list[Allocation] = []
    while window.head(now) is not None and not budget.exhausted:
        waiter = next(waiters, None)
        if waiter is None:
            break
        if not budget.spent:
            # The first poll may have all it wants, and however many there are then, they share alike.
            budget.items = max(budget.items, waiter.wanted)
        allocation = Allocation(waiter)
        allocations.append(allocation)
        budget.polls -= 1
        budget.spent = True
        _deal(window, allocation, budget)
        if waiter.wanted > 1:
            turn.append(allocation)
    if _deal_rest(window, turn, now, budget, reply_bytes_max):
        return allocations
    while turn:
        turn = [allocation for allocation in turn if _next_turn(window, allocation, now, budget, reply_bytes_max)]
    return allocations


def _deal_rest(window: Window, turn: list[Allocation], now: WallMs, budget: Budget, reply_bytes_max: int) -> bool:
    """
    Deal all that those in *turn* still want, as turns would, if that can be done in one step: whether it was.

    It can if they want alike and no bound is near, which is the rule where there is much to do.
    """
    if not turn:
        return True
    wanted = turn[0].waiter.wanted - 1
    count = len(turn) * wanted
    if count > min(budget.items, budget.room) or any(allocation.waiter.wanted != wanted + 1 for allocation in turn):
        return False
    # If all of them together fit in one reply, each fits in its own.
    bytes_max = min(budget.bytes - 1, reply_bytes_max) - max([allocation.bytes for allocation in turn])
    items = window.take(count, now, bytes_max)
    if not items:
        return False
    for at, allocation in enumerate(turn):
        more = items[at :: len(turn)]
        size = sum([len(item.contents) for item in more])
        allocation.items += more
        allocation.bytes += size
        budget.bytes -= size
    budget.items -= count
    budget.room -= count
    return True


def _next_turn(window: Window, allocation: Allocation, now: WallMs, budget: Budget, reply_bytes_max: int) -> bool:
    """Deal one more item to *share*; return whether it is to have another turn."""
    item = window.head(now)
    if item is None or budget.no_more_items:
        return False
    if not allocation.has_room(item, reply_bytes_max):
        budget.full_replies += 1
        return False
    _deal(window, allocation, budget)
    return len(allocation.items) < allocation.waiter.wanted


def _deal(window: Window, allocation: Allocation, budget: Budget) -> None:
    item = window.pop()
    allocation.take(item)
    budget.items -= 1
    budget.room -= 1
    budget.bytes -= len(item.contents)
