"""Finds late and disordered deliveries, which show only when several items of a queue are compared."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from math import inf

from attrs import define
from history import Outcome, Poll
from tenure import GONE_SECONDS, SWEPT_SECONDS, after_crashes, lag, skew


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

    asked: bool = False
    """Whether a client asked for that moment, so that no poll may get it earlier."""


NEVER = (-inf, inf, inf)
"""The bounds of a stay about which nothing is known."""


class Unknown:
    """The polls of a history without a reply, which may have held items."""

    def __init__(self, history):
        self.polls = defaultdict(list)
        for poll in history.of(Poll):
            if poll.outcome is Outcome.UNKNOWN:
                for line in poll.lines:
                    self.polls[line].append(poll)
        self._spans = {
            line: _merged([(each.invoked, each.ended + GONE_SECONDS) for each in polls])
            for line, polls in self.polls.items()
        }

    def spans(self, line):
        """Return when such polls of *line* were under way, in order and disjoint."""
        return self._spans.get(line, [])

    def may_have_had(self, delivery, begin):
        """Return whether one of them may have taken the item of *delivery* between *begin* and that."""
        spans = self.spans(delivery.poll.line)
        at = bisect_right(spans, (delivery.poll.ended, inf)) - 1
        return at >= 0 and spans[at][1] >= begin

    def may_hold(self, line, call):
        """Return whether one of them may have held items while *call* was under way."""
        return any(
            each.invoked < call.ended and (each.session or each.ended + GONE_SECONDS + each.span > call.invoked)
            for each in self.polls[line]
        )


def judge_flow(judge, verdicts, late_seconds):
    """Check all queues of the history of *judge*."""
    polls, stays = defaultdict(list), defaultdict(list)
    for poll in judge.history.of(Poll):
        for line in [poll.line] if poll.items else poll.lines:
            polls[line].append(poll)
    for item in judge.items.values():
        before = stay = None
        for each in item.deliveries:
            stay = _stay(judge, before, stay, each)
            stays[each.poll.line].append(stay)
            before = each
    for line, asked in polls.items():
        # A poll whose reply was lost may hold items while it is under way.
        unknown = judge.unknown.spans(line)
        _judge_early(judge, verdicts, stays[line])
        _judge_late(judge, verdicts, asked, stays[line], late_seconds)
        _judge_empty(judge, verdicts, [each for each in asked if _is_empty(each)], stays[line], unknown, late_seconds)
        _judge_replies(judge, verdicts, stays[line])
        _judge_order(judge, verdicts, stays[line], unknown)
    _judge_strict(judge, verdicts, stays)


def _stay(judge, before, last, delivery):
    history, item = judge.history, delivery.item
    asked, swept = False, 0.0
    begin = item.add.ended if before is None else before.poll.ended
    # Dead items count no attempts, which would show that another client held one meanwhile.
    uncounted = delivery.poll.dead and judge.unknown.may_have_had(delivery, begin)
    hidden = item.hidden or uncounted
    if hidden or _may_be_hidden(history, judge.unknown.polls[delivery.poll.line], before, delivery):
        bounds = NEVER
    elif before is None:
        # A client that did not get the reply held it meanwhile, unless this is its first attempt; or it has died of its
        # expiry.
        due = item.add.invoked + item.delay, item.add.ended + item.delay, item.add.ended + item.delay
        bounds = due if delivery.attempt == 1 and not delivery.delivered.died_at else NEVER
    elif (left := _left(before)) and before.life == delivery.life:
        bounds, asked = _after_settle(judge, before, last, delivery, left)
    elif delivery.poll.dead and not before.poll.dead and left and left[0].done and left[0].died:
        bounds = left[0].invoked, left[0].ended, left[0].ended
    elif before.life == delivery.life and delivery.attempt == before.attempt + (not delivery.poll.dead):
        low, high = before.lease.earliest_end(), before.lease.latest_end()
        high, _ = after_crashes(history.crashes, low, high)
        bounds, swept = (low, high, high), SWEPT_SECONDS
    else:
        bounds = NEVER
    bounds, asked = _after_operations(bounds, item, begin, delivery, asked=asked)
    low, high, ready = bounds
    slack = lag(history.crashes, item.add.invoked, delivery.poll.ended)
    for crash in history.crashes:
        if crash.down < delivery.poll.ended and crash.up > ready:
            ready = crash.up
    ready += swept
    return Stay(delivery, low - slack, high + slack, ready + slack, asked)


def _left(before):
    """Return the calls by which an item that came back may have left the lease of the delivery *before*."""
    return [each for each in before.exits if each.done or (each.maybe and each.action != "remove")]


def _after_settle(judge, before, last, delivery, left):
    """Return the bounds of an item that was settled, and whether its moment was asked for."""
    one = left[0]
    counts = one.action == "fail" and not before.poll.dead
    if len(left) > 1 or not one.done or one.outcome is not Outcome.OK or one.action not in {"fail", "defer"}:
        return NEVER, False
    if (delivery.failures - before.failures, delivery.losses) != (int(counts), before.losses):
        # A client that did not get the reply held it meanwhile.
        return NEVER, False
    if one.delay is not None:
        high = one.ended + one.delay
        return (one.invoked + one.delay, high, high), True
    if one.action == "defer":
        return (last.low, last.high, one.ended), False
    queue, setting = delivery.item.add.queue, judge.history.setting
    base, cap = (
        setting(queue, name, default) / 1_000
        for name, default in (("backoff_base_ms", 1_000), ("backoff_cap_ms", 3_600_000))
    )
    high = one.ended + min(cap, base * 2 ** (max(1, delivery.failures) - 1))
    return (one.invoked, high, high), False


def _after_operations(bounds, item, begin, delivery, *, asked):
    """Return the bounds after the operators' calls in this stay, and whether the moment was asked for."""
    moved = [
        each
        for each in item.operations
        if each.action != "cancel"
        and (each.done or each.outcome is Outcome.UNKNOWN)
        and each.invoked < delivery.poll.ended
        and each.ended > begin
    ]
    if not moved or bounds == NEVER:
        return bounds, asked and bounds != NEVER
    last = moved[-1]
    certain = last.done and len(moved) == 1 and begin < last.invoked and last.ended < delivery.poll.invoked
    if not certain:
        return NEVER, False
    low, high, ready = bounds
    if last.action == "kick":
        return (min(low, last.invoked), min(high, last.ended), min(ready, last.ended)), asked
    due = max(last.high, last.ended)
    return (max(last.low, last.invoked), due, due), True


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


def _judge_early(judge, verdicts, stays):
    """Find items that came back before the moment that a settle or an operator had asked for."""
    for stay in stays:
        poll = stay.delivery.poll
        slack = skew(judge.history.crashes, stay.delivery.item.add.invoked, poll.ended)
        if stay.asked and poll.ended < stay.low - slack:
            judge.found(
                verdicts.EARLY, f"{stay.delivery.item} was given {stay.low - poll.ended:.3f} s before it was due again"
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
    there = There(stays)
    for poll in empty:
        stay = there.during(poll)
        if poll.no_wait and stay is not None and not _overlaps(unknown, poll):
            judge.found(
                verdicts.LATE, f"the poll at {poll.invoked:.3f} got no item while {stay.delivery.item} was there"
            )


class There:
    """The items of a line that were ready for the whole duration of a poll."""

    def __init__(self, stays):
        stays = sorted(stays, key=lambda stay: stay.ready)
        self._ready, self._longest = [stay.ready for stay in stays], [None]
        for stay in stays:
            last = self._longest[-1]
            later = last is None or stay.delivery.poll.invoked > last.delivery.poll.invoked
            self._longest.append(stay if later else last)

    def during(self, poll):
        """Return the stay of an item that was ready before *poll* and was not taken before its end; None without."""
        stay = self._longest[bisect_left(self._ready, poll.invoked)]
        return stay if stay is not None and stay.delivery.poll.invoked > poll.ended else None


def _judge_strict(judge, verdicts, stays):
    """Find polls of several queues that got items of one although an earlier one had some."""
    there = {}
    for poll in judge.history.of(Poll):
        if not (poll.strict and poll.items):
            continue
        for line in poll.lines[: poll.queues.index(poll.queue)]:
            if line not in there:
                there[line] = There(stays[line])
            stay = there[line].during(poll)
            if stay is not None and not _overlaps(judge.unknown.spans(line), poll):
                judge.found(
                    verdicts.OUT_OF_ORDER,
                    f"the poll at {poll.invoked:.3f} got items of {poll.queue!r} while {stay.delivery.item} was ready",
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
