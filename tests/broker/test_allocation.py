"""The allocation of ready items to polls, compared with the simplest way."""

import pytest
from attrs import define, field
from hypothesis import example, given, settings
from hypothesis import strategies as st

from queueber.broker import Item, ItemId, Key, Queue, Waiter
from queueber.broker.allocation import Budget, allocate_round_robin
from queueber.broker.model import HIGHEST
from queueber.broker.window import Meter, Window
from tests.support.examples import examples

NOW = 5


def make_window(sizes, delayed=0, out_of_order=frozenset()):
    """A window with items of those sizes: the last *delayed* are not due, and the *out_of_order* are put singly."""
    window, row = Window(HIGHEST, Meter(0)), []
    for number, size in enumerate(sizes, start=1):
        due = NOW if number <= len(sizes) - delayed else NOW + 1
        item = Item(Key(due, ItemId(number.to_bytes(16, "big"))), b"x" * size, 0)
        if number in out_of_order:
            window.put(item)
        else:
            row.append(item)
    if row:
        window.append(row, sum(len(item.contents) for item in row))
    return window


def make_waiters(wants):
    queue = Queue("q", Window(HIGHEST, Meter(0)))
    return [Waiter(queue, wanted, 1, None, None) for wanted in wants]


@define
class Reply:
    """The sizes of the items that one poll receives in the model."""

    wanted: int
    sizes: list[int] = field(factory=list)


@define
class ModelClaim:
    """A claim that allocates one item a turn and checks every bound before each item."""

    polls: int
    items: int
    bytes: int
    leases: int
    reply_bytes_max: int
    used: bool = False
    full_replies: int = 0

    def closed(self):
        return self.leases <= 0 or self.items <= 0 or self.bytes <= 0

    def give(self, reply, ready):
        reply.sizes.append(ready.pop(0))
        self.items -= 1
        self.leases -= 1
        self.bytes -= reply.sizes[-1]

    def allocate(self, sizes, wants):
        """Allocate to the polls of one queue.  A bound reached in the first turn ends it for all polls that follow."""
        ready, replies = list(sizes), []
        for wanted in wants:
            if not ready or self.leases <= 0 or (self.used and (self.polls <= 0 or self.closed())):
                break
            if not self.used:
                self.items = max(self.items, wanted)
            self.used = True
            self.polls -= 1
            replies.append(Reply(wanted))
            self.give(replies[-1], ready)
        turn = list(replies)
        while turn:
            for reply in list(turn):
                if len(reply.sizes) >= reply.wanted or self.closed() or not ready:
                    turn.remove(reply)
                elif sum(reply.sizes) + ready[0] > self.reply_bytes_max:
                    self.full_replies += 1
                    turn.remove(reply)
                else:
                    self.give(reply, ready)
        return [reply.sizes for reply in replies]


@st.composite
def queues(draw):
    """The arguments of `make_window`, and how many items the polls want."""
    sizes = draw(st.lists(st.integers(0, 9), max_size=20))
    alike = st.builds(lambda wanted, count: [wanted] * count, st.integers(2, 5), st.integers(1, 4))
    wants = draw(st.lists(st.integers(1, 8), max_size=6) | alike)
    return sizes, min(draw(st.integers(0, 3)), len(sizes)), draw(st.sets(st.integers(1, 25))), wants


@pytest.mark.parametrize("budget", [Budget(9, 9, 9, 0), Budget(9, 9, 0, 9, used=True)], ids=["leases", "bytes"])
def test_a_used_up_budget_leaves_all_items(budget):
    window = make_window([1, 1])

    assert allocate_round_robin(window, make_waiters([1]), now=NOW, budget=budget, reply_bytes_max=9) == []
    assert len(window) == 2


@settings(max_examples=examples(150), deadline=None)
@given(
    served=st.lists(queues(), min_size=1, max_size=2),
    polls=st.integers(1, 5),
    items=st.integers(1, 15),
    leases=st.integers(0, 15),
    bytes_max=st.integers(1, 60),
    reply_bytes_max=st.integers(0, 20),
)
@example(served=[([1] * 6, 0, set(), [5, 3, 1])], polls=9, items=99, leases=99, bytes_max=999, reply_bytes_max=999)
@example(served=[([0] * 8, 0, set(), [4, 4])], polls=9, items=8, leases=8, bytes_max=1, reply_bytes_max=0)
@example(served=[([1] * 8, 0, set(), [4, 4])], polls=9, items=99, leases=99, bytes_max=9, reply_bytes_max=99)
def test_polls_take_turns(served, polls, items, leases, bytes_max, reply_bytes_max):
    """Two queues of one claim share its budget."""
    budget = Budget(polls, items, bytes_max, leases)
    model = ModelClaim(polls, items, bytes_max, leases, reply_bytes_max)
    for sizes, delayed, out_of_order, wants in served:
        window, waiters = make_window(sizes, delayed, out_of_order), make_waiters(wants)

        allocations = allocate_round_robin(window, waiters, now=NOW, budget=budget, reply_bytes_max=reply_bytes_max)

        sizes_of_replies = [[len(item.contents) for item in items] for _, items, _ in allocations]
        assert sizes_of_replies == model.allocate(sizes[: len(sizes) - delayed], wants)
        assert [waiter for waiter, _, _ in allocations] == waiters[: len(allocations)]
        assert [size for _, _, size in allocations] == [sum(each) for each in sizes_of_replies]
        assert budget == Budget(model.polls, model.items, model.bytes, model.leases, model.full_replies, model.used)
        assert len(window) == len(sizes) - sum(len(each) for each in sizes_of_replies)
        window.check()
