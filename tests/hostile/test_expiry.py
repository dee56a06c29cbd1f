"""Many leases that end in the same moment."""

import pytest

from queueber.limits import DEFAULTS
from tests.hostile.expiry import expire

pytestmark = pytest.mark.slow


def test_items_go_back_in_slices_and_polls_are_served_in_between():
    found = expire(20_000)

    assert found.slices >= 20_000 / DEFAULTS.expiry_slice
    assert found.largest_slice <= DEFAULTS.expiry_slice
    assert 0 <= found.served_within <= 2
    assert found.attempts == {2}
