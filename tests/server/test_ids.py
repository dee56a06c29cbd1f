"""The layout of ids, and their order."""

import os
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from queueber.server.core.ids import RandomIds
from queueber.units import WallMs


@given(st.lists(st.integers(0, 2**47), min_size=1, max_size=50))
def test_items_are_strictly_increasing_whatever_the_clock_does(times):
    ids = RandomIds()
    made = [each for count, now in enumerate(times) for each in ids.items(WallMs(now), count % 7 or 600)]

    assert made == sorted(set(made))
    assert all(UUID(bytes=each).version == 7 for each in made)
    assert all(each[8] >> 6 == 2 for each in made)


def test_an_item_id_contains_its_time():
    assert int.from_bytes(RandomIds().items(WallMs(1_700_000_000_123), 1)[0][:6], "big") == 1_700_000_000_123


def test_an_overflow_runs_ahead_of_time(monkeypatch):
    monkeypatch.setattr("queueber.server.core.ids.COUNTER_MAX", (1 << 34) - 1)
    ids = RandomIds(lambda count: b"\xff" * count)

    # A counter of 34 bits, begun in the middle, has room for two steps of 32 bits.
    assert [int.from_bytes(ids.items(WallMs(5), 1)[0][:6], "big") for _ in range(5)] == [5, 5, 6, 6, 7]


def test_leases_are_random_and_version_4():
    ids = RandomIds(os.urandom)
    made = {ids.lease() for _ in range(1000)}

    assert len(made) == 1000
    assert all(UUID(bytes=each).version == 4 for each in made)


@given(st.integers(1, 2**64))
def test_random_numbers_are_below_their_bound(bound):
    ids = RandomIds()

    assert all(0 <= ids.below(bound) < bound for _ in range(20))


def test_random_numbers_reach_every_value():
    ids = RandomIds(os.urandom)

    assert {ids.below(5) for _ in range(1_000)} == set(range(5))
