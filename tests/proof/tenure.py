"""
The time for which a lease was held, as far as a client can observe.

The server counts a lease from a moment between a poll's call and its reply, and
an extension from one between the call and the reply of `extend`.  So the end of
each lease has an earliest and a latest moment.  An error must be one for all
moments in between.
"""

from math import inf

from attrs import define, field
from history import Outcome, Poll

SKEW_SECONDS = 0.002
"""The most that a restart may move queue time ahead: a time mark is exact to a millisecond."""

LAG_SECONDS = 0.02
"""The most that queue time may lag: a thread may be delayed between two readings of clocks."""

RESTART_GRACE_SECONDS = 0.5
"""The longest time after a start for which a lease may last that ended meanwhile."""

SWEPT_SECONDS = 1.0
"""The time within which the items of an expired lease must be back."""

DOUBT_SECONDS = 1.0
"""The most that a crash may delay the end of a lease, with room to spare."""


@define(eq=False)
class Lease:
    """One poll's hold on its items, and the calls made with it."""

    poll: Poll
    extends: list = field(factory=list)
    removes: list = field(factory=list)

    def earliest_end(self, before=inf):
        """Return the moment up to which it was certainly held, by extensions that began before *before*."""
        end, last, floor = self.poll.invoked + self.poll.span, -inf, inf
        for extend in self.extends:
            if extend.invoked >= before or extend.outcome is Outcome.REFUSED or extend.queue != self.poll.queue:
                continue
            until = extend.invoked + extend.span
            if extend.outcome is Outcome.UNKNOWN:
                # Whenever it takes effect, if it does, it leaves at least this.
                floor = min(floor, until)
            elif extend.done:
                end = until if extend.invoked >= last else min(end, until)
                last = max(last, extend.ended)
        return min(end, floor)

    def latest_end(self):
        """Return the moment from which it has certainly ended."""
        end, last = self.poll.ended + self.poll.span, -inf
        for extend in self.extends:
            if extend.done:
                until = extend.ended + extend.span
                end = until if extend.invoked >= last else max(end, until)
                last = max(last, extend.ended)
        unknown = [each.invoked for each in self.extends if each.outcome is Outcome.UNKNOWN]
        # What came when it was over did nothing; anything else may have, at any later moment.
        return inf if any(each <= end + DOUBT_SECONDS for each in unknown) else end


def skew(crashes, begin, end):
    """Return how much earlier than it should a lease or a delay may seem to end between two moments."""
    return SKEW_SECONDS * (1 + _between(crashes, begin, end))


def lag(crashes, begin, end):
    """Return how much later."""
    return SKEW_SECONDS + LAG_SECONDS * (1 + _between(crashes, begin, end))


def after_crashes(crashes, low, high):
    """
    Return the latest end of a lease that ends between *low* and *high*, and whether that may be during a crash.

    A lease whose end comes while the server is down, or soon after, may last for a grace after the start.
    """
    down = False
    for crash in crashes:
        if crash.down <= high + SWEPT_SECONDS + lag(crashes, low, crash.up) and low <= crash.up + RESTART_GRACE_SECONDS:
            down = down or low <= crash.up
            high = max(high, crash.up + RESTART_GRACE_SECONDS)
    return high, down


def latest_end(lease, crashes, seen):
    """Return the moment from which *lease* has certainly ended, crashes and the delays up to *seen* included."""
    return after_crashes(crashes, lease.earliest_end(), lease.latest_end())[0] + lag(crashes, lease.poll.invoked, seen)


def _between(crashes, begin, end):
    return sum(1 for crash in crashes if crash.down < end and crash.up > begin)
