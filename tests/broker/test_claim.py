"""How ready items are shared, against the plainest way to deal them."""

from attrs import define, field
from hypothesis import example, given, settings
from hypothesis import strategies as st

from queueber.broker import Item, ItemId, Key, Queue, Waiter
from queueber.broker.claim import Budget, allocate_round_robin
from queueber.broker.model import HIGHEST
from queueber.broker.window import Meter, Window

NOW = 5


def make_window(sizes, delayed=0, out_of_order=frozenset()):
    """Those whose numbers are in *strays* come by themselves, the others in a row."""
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
class Hand:
    """What one poll has been dealt in the model."""

    wanted: int
    sizes: list[int] = field(factory=list)


def deal(sizes, wants, *, polls, items, room, bytes_max, reply_bytes_max):
    """
    One item a turn, the head first, to each who may have another.

    In the first turn those come who may take part; a bound closes it for all that come later.
    """
    ready = list(sizes)
    items = max(items, wants[0]) if wants else items
    hands: list[Hand] = []
    dealt = dealt_bytes = 0

    def closed():
        return dealt >= room or dealt >= items or dealt_bytes >= bytes_max

    for wanted in wants:
        if not ready or dealt >= room or (hands and (len(hands) >= polls or closed())):
            break
        hands.append(Hand(wanted, [ready.pop(0)]))
        dealt += 1
        dealt_bytes += hands[-1].sizes[-1]
    playing = list(hands)
    while playing:
        for hand in list(playing):
            fits = ready and sum(hand.sizes) + ready[0] <= reply_bytes_max
            if len(hand.sizes) >= hand.wanted or closed() or not fits:
                playing.remove(hand)
                continue
            hand.sizes.append(ready.pop(0))
            dealt += 1
            dealt_bytes += hand.sizes[-1]
    return [hand.sizes for hand in hands]


@settings(max_examples=300, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), max_size=20),
    delayed=st.integers(0, 3),
    out_of_order=st.sets(st.integers(1, 25)),
    wants=st.one_of(
        st.lists(st.integers(1, 8), max_size=6),
        st.builds(lambda wanted, count: [wanted] * count, st.integers(2, 5), st.integers(1, 4)),
    ),
    polls=st.integers(1, 5),
    items=st.integers(1, 15),
    room=st.integers(0, 15),
    bytes_max=st.integers(1, 60),
    reply_bytes_max=st.integers(0, 20),
)
@example(
    sizes=[1] * 6,
    delayed=0,
    out_of_order=set(),
    wants=[5, 3, 1],
    polls=9,
    items=99,
    room=99,
    bytes_max=999,
    reply_bytes_max=999,
)
@example(
    sizes=[0] * 8, delayed=0, out_of_order=set(), wants=[4, 4], polls=9, items=8, room=8, bytes_max=1, reply_bytes_max=0
)
@example(
    sizes=[1] * 8,
    delayed=0,
    out_of_order=set(),
    wants=[4, 4],
    polls=9,
    items=99,
    room=99,
    bytes_max=9,
    reply_bytes_max=99,
)
def test_everybody_takes_turns(sizes, delayed, out_of_order, wants, polls, items, room, bytes_max, reply_bytes_max):
    delayed = min(delayed, len(sizes))
    ready = sizes[: len(sizes) - delayed]
    window, waiters = make_window(sizes, delayed, out_of_order), make_waiters(wants)
    budget = Budget(polls, items, bytes_max, room)

    allocations = allocate_round_robin(window, iter(waiters), now=NOW, budget=budget, reply_bytes_max=reply_bytes_max)

    dealt = [[len(item.contents) for item in allocation.items] for allocation in allocations]
    assert dealt == deal(
        ready, wants, polls=polls, items=items, room=room, bytes_max=bytes_max, reply_bytes_max=reply_bytes_max
    )
    assert [allocation.waiter for allocation in allocations] == waiters[: len(allocations)]
    assert [allocation.bytes for allocation in allocations] == [sum(each) for each in dealt]
    assert budget.room == room - sum(len(each) for each in dealt)
    assert len(window) == len(sizes) - sum(len(each) for each in dealt)
    window.check()


def test_only_as_many_are_looked_at_as_are_given_something():
    waiters = iter(make_waiters([1] * 5))

    allocate_round_robin(make_window([1, 1]), waiters, now=NOW, budget=Budget(9, 9, 9, 9), reply_bytes_max=9)

    assert len(list(waiters)) == 3


def test_a_budget_goes_on_from_queue_to_queue():
    budget = Budget(polls=2, items=9, bytes=99, room=99)
    first = allocate_round_robin(make_window([1]), iter(make_waiters([1])), now=NOW, budget=budget, reply_bytes_max=9)
    second = allocate_round_robin(
        make_window([1, 1]), iter(make_waiters([1, 1])), now=NOW, budget=budget, reply_bytes_max=9
    )

    assert (len(first), len(second)) == (1, 1)
    assert budget.exhausted
