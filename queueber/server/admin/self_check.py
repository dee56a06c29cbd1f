"""
Comparing what is in memory with itself, which nothing else may happen beside.

What is compared can be as much as there are leased items, so there is a bound on what is done unless somebody insists.
"""

import traceback
from collections.abc import Callable

from attrs import frozen

from queueber.broker import Broker
from queueber.limits import Limits
from queueber.units import MS_PER_SECOND

CHECKED_MAX = 50_000
"""Things that are looked at without being forced to: about a tenth of a second."""


@frozen
class SelfCheck:
    """What came of it."""

    finding: str
    """What disagrees, and where that was noticed; empty if nothing does."""

    error: AssertionError | None
    took_ms: float


def size_of(broker: Broker, limits: Limits) -> int:
    """How many things there are to be looked at."""
    size = len(broker.queues) + broker.leases.items + broker.polls.waiting
    # All windows together are bounded, but not to nothing.
    return size + broker.queues.window_bytes // limits.item_overhead


def check(broker: Broker, seconds: Callable[[], float]) -> SelfCheck:
    """Compare all parts of *broker*; the caller stands still meanwhile, as long as *seconds* says."""
    began = seconds()
    finding, error = "", None
    try:
        broker.check()
    except AssertionError as why:
        error = why
        where = traceback.extract_tb(why.__traceback__)[-1]
        finding = f"{str(why) or 'the parts of the server disagree'} ({where.name}: {where.line})"
    return SelfCheck(finding, error, (seconds() - began) * MS_PER_SECOND)
