"""A slice of the clocks that are set under a real server."""

import clocks
import pytest

pytestmark = pytest.mark.slow


def test_leases_and_delays_last_as_long_as_was_asked():
    tally = clocks.play(3, "slice")
    assert (tally.n, tally.failures) == (3, [])
