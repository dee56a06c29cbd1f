"""
The allocation of ready items to the polls that wait for them.

One claim serves many polls with one commit.  They take turns, one item a
turn, each until it has as many as it wants: six items over polls of 5, 3 and
1 give 3, 2 and 1.  A claim is bounded in polls, items and bytes, so that one
commit and one turn of the reactor stay short however much is ready.  The
first poll of a claim is served whole whatever the bounds.  The next claim
takes what is left.
"""

from collections.abc import Sequence
from typing import TypeAlias

from attrs import define, frozen

from queueber.broker.model import Item
from queueber.broker.waiter import Waiter
from queueber.broker.window import Window
from queueber.units import MIB, WallMs


@frozen(kw_only=True)
class ClaimBounds:
    """The bounds of one claim."""

    polls: int = 64
    items: int = 512
    bytes: int = 16 * MIB
    """Contents, after at least one item."""


@define
class Budget:
    """The rest of a claim's bounds, while it goes from queue to queue."""

    polls: int
    items: int
    bytes: int
    leases: int
    """Items that may still become leased.  Unlike the other bounds, this one holds for the first poll too."""

    full_replies: int = 0
    """Polls that would have received more items if their replies could hold more bytes."""

    used: bool = False
    """Whether a poll has been served."""

    @property
    def exhausted(self) -> bool:
        """Whether further polls have to wait for the next claim."""
        return self.leases <= 0 or (self.used and (self.polls <= 0 or self.items <= 0 or self.bytes <= 0))


Allocation: TypeAlias = tuple[Waiter, list[Item], int]
"""A poll, the items that it receives, and the size of their contents."""


def allocate_round_robin(
    window: Window, waiters: Sequence[Waiter], *, now: WallMs, budget: Budget, reply_bytes_max: int
) -> list[Allocation]:
    """
    Remove ready items from *window* and deal them to the first of *waiters*, one item a turn.

    Returns:
        An allocation for each poll that receives an item, in the order of *waiters*.
    """
    if not waiters:
        return []
    # The first poll of a claim may have all that it wants, and the others share the raised bound.
    items_max = budget.items if budget.used else max(budget.items, waiters[0].wanted)
    count = min(len(waiters), budget.polls, items_max, budget.leases)
    if count <= 0 or (budget.used and budget.bytes <= 0):
        return []
    hands: list[list[Item]] = []
    sizes: list[int] = []
    more = 0
    for item, waiter in zip(window.pop_due(count, now, budget.bytes), waiters, strict=False):
        hands.append([item])
        sizes.append(len(item.contents))
        more += waiter.wanted - 1
    if not hands:
        return []
    budget.used = True
    budget.polls -= len(hands)
    budget.items = items_max - len(hands)
    budget.leases -= len(hands)
    budget.bytes -= sum(sizes)
    count = min(more, budget.items, budget.leases)
    if count > 0 and budget.bytes > 0:
        items = window.pop_due(count, now, budget.bytes)
        if items:
            left = _deal_turns(items, waiters, hands, sizes, budget, reply_bytes_max)
            if left:
                window.put_back(left)
    return list(zip(waiters, hands, sizes, strict=False))


def _deal_turns(
    items: list[Item],
    waiters: Sequence[Waiter],
    hands: list[list[Item]],
    sizes: list[int],
    budget: Budget,
    reply_bytes_max: int,
) -> list[Item]:
    """
    Deal *items* to *hands*, each of which has its first item, until no hand may have another.

    Returns:
        The rest of *items*.
    """
    size = sum([len(item.contents) for item in items])
    wanted = [waiter.wanted for waiter in waiters[: len(hands)]]
    dealt = 0
    if size + max(sizes) <= reply_bytes_max and min(wanted) == max(wanted):
        # All want alike and no reply can become full, as is usual where there is much to deal: turns would give every
        # hand each n-th item.
        for place, hand in enumerate(hands):
            share = items[place :: len(hands)]
            hand.extend(share)
            sizes[place] += sum([len(item.contents) for item in share])
        dealt = len(items)
    turn = [place for place in range(len(hands)) if wanted[place] > 1]
    while turn and dealt < len(items):
        next_turn = []
        for place in turn:
            if dealt == len(items):
                break
            item, hand = items[dealt], hands[place]
            if sizes[place] + len(item.contents) > reply_bytes_max:
                budget.full_replies += 1
                continue
            hand.append(item)
            sizes[place] += len(item.contents)
            dealt += 1
            if len(hand) < wanted[place]:
                next_turn.append(place)
        turn = next_turn
    left = items[dealt:]
    budget.items -= dealt
    budget.leases -= dealt
    budget.bytes -= size - sum([len(item.contents) for item in left])
    return left
