"""The layout of ids, and their order."""

import os
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from queueber.server.ids import RandomIds
from queueber.units import WallMs


@given(st.lists(st.integers(0, 2**47), min_size=1, max_size=50))
def test_items_are_strictly_increasing_whatever_the_clock_does(times):
    ids = RandomIds()
    made = [ids.item(WallMs(now)) for now in times for _ in range(3)]

    assert made == sorted(set(made))
    assert all(UUID(bytes=each).version == 7 for each in made)
    assert all(each[8] >> 6 == 2 for each in made)


def test_items_tell_their_time():
    assert int.from_bytes(RandomIds().item(WallMs(1_700_000_000_123))[:6], "big") == 1_700_000_000_123


def test_an_overflow_runs_ahead_of_time():
    ids = RandomIds(lambda count: b"\xff" * count)
    ids.item(WallMs(5))
    ids._last = ids._highest

    assert int.from_bytes(ids.item(WallMs(5))[:6], "big") == 6


def test_leases_are_random_and_version_4():
    ids = RandomIds(os.urandom)
    made = {ids.lease() for _ in range(1000)}

    assert len(made) == 1000
    assert all(UUID(bytes=each).version == 4 for each in made)
