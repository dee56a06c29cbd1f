"""The waits between attempts to connect."""

from time import monotonic

import pytest

from queueber.client_core.reconnect import DELAY_SECONDS_MAX, Link


@pytest.mark.parametrize(("seconds", "waited"), [(0, 0), (2.5, 2.5), (1e9, DELAY_SECONDS_MAX), (float("inf"), 86_400)])
def test_a_wait_of_a_retry_policy_is_at_most_a_day(seconds, waited):
    link = Link(limits=None, attempts=None, address=None, retry_policy=lambda _: seconds, clock=monotonic)
    assert link.retry_delay() == waited
