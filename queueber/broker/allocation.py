"""
The allocation of ready items to the polls that wait for them.

One claim serves many polls with one commit.  They take turns, one item a
turn, each until it has as many as it requested: six items over polls of 5, 3 and
1 give 3, 2 and 1.  A claim is bounded in polls, items and bytes, so that one
commit and one turn of the reactor stay short however much is ready.  The
first poll of a claim is served whole whatever the bounds.  The next claim
takes what is left.
"""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from attrs import define, frozen

from queueber.broker.model import Item, full_size, full_sizes
from queueber.broker.waiter import Waiter
from queueber.units import MIB, WallMs


@frozen(kw_only=True)
class ClaimBounds:
    """The bounds of one claim."""

    polls: int = 64
    items: int = 512
    bytes: int = 16 * MIB
    """Contents, after at least one item."""


@define
class ExpiryBudget:
    """The expired items that a claim may still take out of the way, in all its queues together."""

    items: int
    bytes: int

    @property
    def exhausted(self) -> bool:
        """Whether further expired items have to wait for the next claim."""
        return self.items <= 0 or self.bytes <= 0


@define
class Budget:
    """The rest of a claim's bounds, while it goes from queue to queue."""

    polls: int
    items: int
    bytes: int
    leases: int
    """Items that may still become leased.  Unlike the other bounds, this one holds for the first poll too."""

    full_replies: int = 0
    """Polls whose replies would hold more items if they could hold more bytes."""

    used: bool = False
    """Whether a poll has been served."""

    expiring: ExpiryBudget | None = None
    """The budget of expired items; None before the first queue that may have any."""

    @property
    def exhausted(self) -> bool:
        """Whether further polls have to wait for the next claim."""
        if self.expiring is not None and self.expiring.exhausted:
            return True
        return self.leases <= 0 or (self.used and (self.polls <= 0 or self.items <= 0 or self.bytes <= 0))


Allocation: TypeAlias = tuple[Waiter, list[Item], int]
"""A poll, the items that it receives, and the size of their contents."""


class Head(Protocol):
    """The first items of a queue."""

    def pop_due(self, count: int, now: WallMs, bytes_max: int) -> list[Item]:
        """Do what `Window.pop_due` does."""

    def put_back(self, items: Sequence[Item]) -> None:
        """Do what `Window.put_back` does."""


def allocate_round_robin(
    window: Head, waiters: Sequence[Waiter], *, now: WallMs, budget: Budget, reply_bytes_max: int
) -> list[Allocation]:
    """
    Remove ready items from *window* and allocate them to the first of *waiters*, one item a turn.

    Returns:
        An allocation for each poll that receives an item, in the order of *waiters*.
    """
    if not waiters:
        return []
    # The first poll of a claim may take all the items that it requested, and the others share the raised bound.
    items_max = budget.items if budget.used else max(budget.items, waiters[0].wanted)
    count = min(len(waiters), budget.polls, items_max, budget.leases)
    if count <= 0 or (budget.used and budget.bytes <= 0):
        return []
    replies: list[list[Item]] = []
    sizes: list[int] = []
    more = 0
    for item, waiter in zip(window.pop_due(count, now, budget.bytes), waiters, strict=False):
        replies.append([item])
        sizes.append(len(item.contents) if item.facts is None else full_size(item))
        more += waiter.wanted - 1
    if not replies:
        return []
    budget.used = True
    budget.polls -= len(replies)
    budget.items = items_max - len(replies)
    budget.leases -= len(replies)
    budget.bytes -= sum(sizes)
    count = min(more, budget.items, budget.leases)
    if count > 0 and budget.bytes > 0:
        items = window.pop_due(count, now, budget.bytes)
        if items:
            left = _allocate_turns(items, waiters, replies, sizes, budget, reply_bytes_max)
            if left:
                window.put_back(left)
    return list(zip(waiters, replies, sizes, strict=False))


def _allocate_turns(
    items: list[Item],
    waiters: Sequence[Waiter],
    replies: list[list[Item]],
    sizes: list[int],
    budget: Budget,
    reply_bytes_max: int,
) -> list[Item]:
    """
    Add *items* to *replies*, one item to each reply in turn, until no reply may have another.

    Each reply has its first item already.

    Returns:
        The rest of *items*.
    """
    item_sizes = full_sizes(items)
    size = sum(item_sizes)
    wanted = [waiter.wanted for waiter in waiters[: len(replies)]]
    allocated = 0
    if size + max(sizes) <= reply_bytes_max and min(wanted) == max(wanted):
        # All polls want the same number and no reply can become full, as is usual for large claims: of n replies, turns
        # would give each one every n-th item.
        for place, reply in enumerate(replies):
            share = items[place :: len(replies)]
            reply.extend(share)
            sizes[place] += sum(item_sizes[place :: len(replies)])
        allocated = len(items)
    turn = [place for place in range(len(replies)) if wanted[place] > 1]
    while turn and allocated < len(items):
        next_turn = []
        for place in turn:
            if allocated == len(items):
                break
            item, reply = items[allocated], replies[place]
            if sizes[place] + item_sizes[allocated] > reply_bytes_max:
                budget.full_replies += 1
                continue
            reply.append(item)
            sizes[place] += item_sizes[allocated]
            allocated += 1
            if len(reply) < wanted[place]:
                next_turn.append(place)
        turn = next_turn
    left = items[allocated:]
    budget.items -= allocated
    budget.leases -= allocated
    budget.bytes -= size - sum(item_sizes[allocated:])
    return left
