"""Late, and out of order: what can be told only by looking at several items of a queue."""

from bisect import bisect_right
from collections import defaultdict
from math import inf

from attrs import define
from history import Outcome, Poll
from tenure import lag

SWEPT_SECONDS = 1.0
"""How soon the items of a lease that ran out must be back."""

GONE_SECONDS = 1.0
"""How long a poll whose peer has gone may still be at work."""


@define(eq=False)
class Stay:
    """An item in line, from one delivery to the next."""

    delivery: object
    """The next; never None."""

    low: float
    high: float
    """The bounds of when it became due."""

    ready: float
    """From here on a poll must get it."""


def judge_flow(judge, verdicts, late_seconds):
    """Look at all queues of the history of *judge*."""
    polls, stays = defaultdict(list), defaultdict(list)
    for poll in judge.history.of(Poll):
        polls[poll.queue].append(poll)
    for item in judge.items.values():
        before = None
        for each in item.deliveries:
            stays[item.add.queue].append(_stay(judge.history, before, each))
            before = each
    for queue, asked in polls.items():
        _judge_late(judge, verdicts, asked, stays[queue], late_seconds)
        _judge_replies(judge, verdicts, stays[queue])
        _judge_order(judge, verdicts, asked, stays[queue])


def _stay(history, before, delivery):
    item = delivery.item
    if before is None and delivery.attempt == 1:
        low, high = item.add.invoked + item.delay, item.add.ended + item.delay
        ready = high
    elif before is not None and delivery.attempt == before.attempt + 1:
        low, high = before.lease.earliest_end(), before.lease.latest_end()
        ready = high + SWEPT_SECONDS
    else:
        # Somebody who never got it had it meanwhile.
        low, high, ready = -inf, inf, inf
    slack = lag(history.crashes, item.add.invoked, delivery.poll.ended)
    for crash in history.crashes:
        if crash.down < delivery.poll.ended and crash.up > ready:
            ready = crash.up
    return Stay(delivery, low - slack, high + slack, ready + slack)


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
            beside = min(poll.ended, stay.delivery.poll.invoked) - max(poll.invoked, stay.ready)
            if beside > late_seconds:
                judge.found(
                    verdicts.LATE,
                    f"the poll at {poll.invoked:.3f} slept beside {stay.delivery.item} for {beside:.1f} s",
                )
                break


def _judge_replies(judge, verdicts, stays):
    """Within one reply."""
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
                    f"{stay.delivery.item} came behind a later one in the reply at {poll.ended:.3f}",
                )
            highest = max(highest, stay.low)


def _judge_order(judge, verdicts, asked, stays):
    """Over replies: an item was left in line, ready, and one that became due later was taken."""
    first = [stay for stay in stays if stay.delivery.attempt == 1]
    later = sorted(first, key=lambda stay: stay.delivery.poll.invoked)
    begins = [stay.delivery.poll.invoked for stay in later]
    # The earliest that was ready of all that were handed out from there on.
    earliest = [None] * (len(later) + 1)
    for at in range(len(later) - 1, -1, -1):
        after = earliest[at + 1]
        earliest[at] = later[at] if after is None or later[at].ready < after.ready else after
    unknown = _merged([(each.invoked, each.ended + GONE_SECONDS) for each in asked if each.outcome is Outcome.UNKNOWN])
    for stay in first:
        poll = stay.delivery.poll
        passed = earliest[bisect_right(begins, poll.ended)]
        if passed is None or passed.ready >= min(poll.invoked, stay.low) or _overlaps(unknown, poll):
            continue
        judge.found(
            verdicts.OUT_OF_ORDER,
            f"{stay.delivery.item} was given at {poll.ended:.3f}, and {passed.delivery.item} before it only at"
            f" {passed.delivery.poll.ended:.3f}",
        )


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
