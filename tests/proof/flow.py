"""Finds late and disordered deliveries, which show only when several items of a queue are compared."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from math import inf

from attrs import define
from history import Outcome, Poll
from tenure import SWEPT_SECONDS, after_crashes, lag

GONE_SECONDS = 1.0
"""The longest time for which a poll whose peer has disconnected may still take effect."""


@define(eq=False)
class Stay:
    """An item that waits in the queue, from one delivery to the next."""

    delivery: object
    """The next delivery; never None."""

    low: float
    high: float
    """The earliest and latest moment at which it became due."""

    ready: float
    """The moment from which a poll must get it."""


def judge_flow(judge, verdicts, late_seconds):
    """Check all queues of the history of *judge*."""
    polls, stays = defaultdict(list), defaultdict(list)
    for poll in judge.history.of(Poll):
        polls[poll.queue].append(poll)
    lost = {queue: [each for each in asked if each.outcome is Outcome.UNKNOWN] for queue, asked in polls.items()}
    for item in judge.items.values():
        before = None
        for each in item.deliveries:
            stays[item.add.queue].append(_stay(judge.history, lost[item.add.queue], before, each))
            before = each
    for queue, asked in polls.items():
        # A poll whose reply was lost may hold items while it is under way.
        spans = [(each.invoked, each.ended + GONE_SECONDS) for each in asked if each.outcome is Outcome.UNKNOWN]
        unknown = _merged(spans)
        _judge_late(judge, verdicts, asked, stays[queue], late_seconds)
        _judge_empty(judge, verdicts, [each for each in asked if _is_empty(each)], stays[queue], unknown, late_seconds)
        _judge_replies(judge, verdicts, stays[queue])
        _judge_order(judge, verdicts, stays[queue], unknown)


def _stay(history, unknown, before, delivery):
    item = delivery.item
    if _may_be_hidden(history, unknown, before, delivery):
        low, high, ready = -inf, inf, inf
    elif before is None and delivery.attempt == 1:
        low, high = item.add.invoked + item.delay, item.add.ended + item.delay
        ready = high
    elif before is not None and delivery.attempt == before.attempt + 1:
        low, high = before.lease.earliest_end(), before.lease.latest_end()
        high, _ = after_crashes(history.crashes, low, high)
        ready = high
    else:
        # A client that did not get the reply held it meanwhile.
        low, high, ready = -inf, inf, inf
    slack = lag(history.crashes, item.add.invoked, delivery.poll.ended)
    for crash in history.crashes:
        if crash.down < delivery.poll.ended and crash.up > ready:
            ready = crash.up
    ready += 0.0 if before is None else SWEPT_SECONDS
    return Stay(delivery, low - slack, high + slack, ready + slack)


def _may_be_hidden(history, unknown, before, delivery):
    """
    Return whether a client that did not get the reply may have held the item between two deliveries, uncounted.

    A lease that ends while the server is down counts no attempt.
    """
    begin = delivery.item.add.invoked if before is None else before.poll.invoked
    return any(
        crash.down < delivery.poll.ended and begin <= poll.ended + GONE_SECONDS and poll.invoked <= crash.up
        for poll in unknown
        for crash in history.crashes
        if crash.up >= begin
    )


def _judge_late(judge, verdicts, asked, stays, late_seconds):
    long = [each for each in stays if each.delivery.poll.invoked - each.ready > late_seconds]
    for stay in stays:
        poll = stay.delivery.poll
        late = poll.ended - max(stay.ready, poll.invoked)
        if late > late_seconds:
            judge.found(
                verdicts.LATE, f"{stay.delivery.item} was given {late:.1f} s after a poll that waited could have it"
            )
    for poll in asked:
        if poll.items or poll.outcome is not Outcome.OK or poll.ended - poll.invoked <= late_seconds:
            continue
        for stay in long:
            late = min(poll.ended, stay.delivery.poll.invoked) - max(poll.invoked, stay.ready)
            if late > late_seconds:
                judge.found(
                    verdicts.LATE,
                    f"the poll at {poll.invoked:.3f} waited while {stay.delivery.item} was ready for {late:.1f} s",
                )
                break


def _is_empty(poll):
    return poll.outcome is Outcome.OK and not poll.items


def _judge_empty(judge, verdicts, empty, stays, unknown, late_seconds):
    """
    Replies without an item while there certainly was one.

    Of those who wait, each may have waited for less than the bound; together they may not, while the same item is
    ready.  A poll that does not wait gets a correct reply at once.
    """
    covered = Cover(_without(_merged([(each.invoked, each.ended) for each in empty]), unknown))
    for stay in stays:
        begin, end = stay.ready, stay.delivery.poll.invoked
        if end - begin > late_seconds and (late := covered.until(end) - covered.until(begin)) > late_seconds:
            judge.found(
                verdicts.LATE, f"polls in a row got nothing while {stay.delivery.item} was ready for {late:.1f} s"
            )
    stays = sorted(stays, key=lambda stay: stay.ready)
    ready, longest = [stay.ready for stay in stays], [None]
    for stay in stays:
        last = longest[-1]
        longest.append(stay if last is None or stay.delivery.poll.invoked > last.delivery.poll.invoked else last)
    for poll in empty:
        stay = longest[bisect_left(ready, poll.invoked)]
        if (
            poll.no_wait
            and stay is not None
            and stay.delivery.poll.invoked > poll.ended
            and not _overlaps(unknown, poll)
        ):
            judge.found(
                verdicts.LATE, f"the poll at {poll.invoked:.3f} got no item while {stay.delivery.item} was there"
            )


class Cover:
    """Return the part of the time that *spans* cover, which are in order and disjoint."""

    def __init__(self, spans):
        self._begins = [begin for begin, _ in spans]
        self._ends = [end for _, end in spans]
        self._before = [0.0]
        for begin, end in spans:
            self._before.append(self._before[-1] + end - begin)

    def until(self, moment):
        """Return the seconds before *moment*."""
        at = bisect_right(self._begins, moment)
        return self._before[at] - (max(0.0, self._ends[at - 1] - moment) if at else 0.0)


def _without(spans, others):
    """Return the parts of *spans* that none of *others* touches; both are in order and disjoint."""
    left, at = [], 0
    for begin, end in spans:
        while at < len(others) and others[at][1] <= begin:
            at += 1
        now, each = begin, at
        while each < len(others) and others[each][0] < end:
            if others[each][0] > now:
                left.append((now, others[each][0]))
            now = max(now, others[each][1])
            each += 1
        if now < end:
            left.append((now, end))
    return left


def _judge_replies(judge, verdicts, stays):
    """Find disorder within one reply."""
    of_poll = defaultdict(dict)
    for stay in stays:
        of_poll[stay.delivery.poll][stay.delivery.item.id] = stay
    for poll, found in of_poll.items():
        highest = -inf
        for delivered in poll.items:
            stay = found.get(delivered.id)
            if stay is None:
                continue
            if stay.high < highest:
                judge.found(
                    verdicts.OUT_OF_ORDER,
                    f"{stay.delivery.item} came after a later one in the reply at {poll.ended:.3f}",
                )
            highest = max(highest, stay.low)


def _judge_order(judge, verdicts, stays, unknown):
    """Find disorder over replies: an item stayed in the queue, ready, and one that became due later was taken."""
    later = sorted((stay for stay in stays if stay.high < inf), key=lambda stay: stay.delivery.poll.invoked)
    begins = [stay.delivery.poll.invoked for stay in later]
    # Of all that were handed out from there on, the one that was ready first, and the one that was due first.
    first_ready, first_due = [None] * (len(later) + 1), [None] * (len(later) + 1)
    for at in range(len(later) - 1, -1, -1):
        first_ready[at] = min(later[at], first_ready[at + 1] or later[at], key=lambda stay: stay.ready)
        first_due[at] = min(later[at], first_due[at + 1] or later[at], key=lambda stay: stay.high)
    for stay in later:
        poll = stay.delivery.poll
        at = bisect_right(begins, poll.ended)
        for passed in (first_ready[at], first_due[at]):
            if passed is None or passed.ready >= poll.invoked or passed.high >= stay.low or _overlaps(unknown, poll):
                continue
            judge.found(
                verdicts.OUT_OF_ORDER,
                f"{stay.delivery.item} was given at {poll.ended:.3f}, and {passed.delivery.item} before it only at"
                f" {passed.delivery.poll.ended:.3f}",
            )
            break


def _merged(spans):
    merged = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _overlaps(merged, poll):
    at = bisect_right(merged, (poll.ended, inf)) - 1
    return at >= 0 and merged[at][1] >= poll.invoked
