"""The time for which an item waits after a failure or a loss."""

from collections.abc import Callable

from queueber.units import SpanMs

_DOUBLINGS_MAX = 63
"""More would double nothing but the length of a number: the cap is far below."""


def backoff(count: int, base: SpanMs, cap: SpanMs, below: Callable[[int], int]) -> SpanMs:
    """
    Return a random span of at least 0 and at most `min(cap, base * 2**(count - 1))`.

    The whole span is random (full jitter), so that items that failed together do not come back together.

    Args:
        count: how often the item has failed, or how often its leases have ended; at least 1.
        base: the longest wait after the first time.
        cap: the longest wait.
        below: returns a random integer of at least 0 and below its argument, as `Ids.below`.
    """
    longest = min(cap, base << min(count - 1, _DOUBLINGS_MAX))
    return SpanMs(below(longest + 1))
