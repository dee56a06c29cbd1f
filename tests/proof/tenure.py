"""
The time for which a lease was held, as far as a client can observe.

The server counts a lease from a moment between a poll's call and its reply, and
an extension from one between the call and the reply of `extend`.  So the end of
each lease has an earliest and a latest moment.  An error must be one for all
moments in between.

A session lease lasts as long as its session is attached to a connection, and
for the session's grace after that.
"""

from math import inf

from attrs import define, evolve, field
from history import Outcome, Poll

SKEW_SECONDS = 0.002
"""The most that a restart may move queue time ahead: a time mark is exact to a millisecond."""

LAG_SECONDS = 0.02
"""The most that queue time may lag: a thread may be delayed between two readings of clocks."""

RESTART_GRACE_SECONDS = 0.5
"""The longest time after a start for which a lease may last that ended meanwhile."""

SWEPT_SECONDS = 1.0
"""The time within which the items of an expired lease must be back."""

SWEEP_TURNS = 4
"""A sweep waits for the reactor, a thread and a commit: on a busy machine each may take as long as a call."""

DOUBT_SECONDS = 1.0
"""The most that a crash may delay the end of a lease, with room to spare."""

GONE_SECONDS = 1.0
"""The longest time for which a call or a session whose peer has disconnected may still take effect."""

DOWN_SECONDS = 0.2
"""The longest time for which a server may have served on after the noted beginning of a crash."""

SESSION_RESTART_SECONDS = 2.0
"""The least time after a start for which a session lease lasts, as `serverhost` sets it."""


@define(eq=False)
class Lease:
    """One poll's hold on its items, and the calls made with it."""

    poll: Poll
    extends: list = field(factory=list)
    exits: list = field(factory=list)
    """Removes and entries of settles, one for each item."""

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

    def without(self, extend):
        """Return the lease as it would be without *extend*."""
        return evolve(self, extends=[each for each in self.extends if each is not extend])

    def may_end_at_a_start(self, crashes):
        """Return whether it may have ended while the server was down, which counts no attempt."""
        return after_crashes(crashes, self.earliest_end(), self.latest_end())[1]


@define(eq=False)
class SessionLease(Lease):
    """A poll's hold on its items that lasts as long as its session."""

    attaches: list = field(factory=list)
    """All attaches of the session, in the order in which they began."""

    history: object = None

    def _end_of(self, connection):
        return self.history.ends.get(connection, inf)

    @property
    def _grace(self):
        return min((each.grace for each in self.attaches), default=0.0)

    def _crashes(self):
        return [crash for crash in self.history.crashes if crash.up > self.poll.invoked]

    def earliest_end(self, before=inf, leaving_out=None):
        """Return the moment up to which it was certainly held, without the evidence of the attach *leaving_out*."""
        end = self._certain_loss(self.poll.connection) + self._grace
        later = [each for each in self.attaches if each is not leaving_out and each.invoked > self.poll.invoked]
        events = [(each.ended, each) for each in later if each.outcome is Outcome.OK]
        events += [(each.invoked, each) for each in later if each.outcome is Outcome.UNKNOWN]
        events += [(crash.down + DOWN_SECONDS, crash) for crash in self._crashes()]
        for moment, each in sorted(events, key=lambda pair: pair[0]):
            if moment > end:
                break
            if not hasattr(each, "connection"):
                end = max(end, each.down + max(self._grace, SESSION_RESTART_SECONDS))
                continue
            there = self._certain_loss(each.connection) + self._grace
            # One without a reply may have moved the session to its connection, or not.
            end = there if each.outcome is Outcome.OK else min(end, there)
        return end

    def _certain_loss(self, connection):
        """Return the moment up to which *connection* was certainly there for the server."""
        end = self._end_of(connection)
        # A client hears late of the end of a server.
        return min([end, *[crash.down for crash in self.history.crashes if crash.down <= end <= crash.up]])

    def latest_end(self):
        """Return the moment from which it has certainly ended."""
        end = self._end_of(self.poll.connection) + GONE_SECONDS + self._grace
        events = [(each.invoked, each) for each in self.attaches if each.outcome is not Outcome.REFUSED]
        events += [(crash.down, crash) for crash in self._crashes()]
        known = set()
        for moment, each in sorted(events, key=lambda pair: pair[0]):
            if moment > end:
                break
            if not hasattr(each, "connection"):
                # The deadline counts from the time at which the server listens, before it answers anything.
                up = max(each.up, self.history.served_from(each.up))
                end = max(end, up + GONE_SECONDS + max(self._grace, SESSION_RESTART_SECONDS))
                continue
            first = each.connection not in known and each.connection != self.poll.connection
            known.add(each.connection)
            if first and each.outcome is Outcome.OK and each.invoked > self.poll.ended and not self._is_in(each):
                # The session has it no more.
                return min(end, each.ended)
            end = max(end, self._end_of(each.connection) + GONE_SECONDS + self._grace)
        return end

    def _is_in(self, attach):
        return any(each.lease == self.poll.lease for each in attach.leases)

    def may_end_at_a_start(self, crashes):
        """Return whether it may have ended while the server was down, which counts no attempt."""
        high = self.latest_end()
        return any(self.poll.invoked <= crash.up and crash.down <= high for crash in crashes)


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
        swept = high + SWEPT_SECONDS + SWEEP_TURNS * crash.busy + lag(crashes, low, crash.up)
        if crash.down <= swept and low <= crash.up + RESTART_GRACE_SECONDS:
            down = down or low <= crash.up
            high = max(high, crash.up + RESTART_GRACE_SECONDS)
    return high, down


def latest_end(lease, crashes, seen):
    """Return the moment from which *lease* has certainly ended, crashes and the delays up to *seen* included."""
    return after_crashes(crashes, lease.earliest_end(), lease.latest_end())[0] + lag(crashes, lease.poll.invoked, seen)


def _between(crashes, begin, end):
    return sum(1 for crash in crashes if crash.down < end and crash.up > begin)
