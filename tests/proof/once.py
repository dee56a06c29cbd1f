"""Judges adds that are to happen once: calls that were sent again, and deduplication keys."""

from collections import defaultdict
from itertools import pairwise

from attrs import evolve
from expiries import may_be_dead_by
from history import Add, Outcome, Settle
from settling import is_refused
from tenure import lag, skew

WINDOW_SECONDS = 300.0
"""The default of `dedupWindowMs`."""


def merged_adds(history, judge, verdicts):
    """Return the adds, those of settles too; calls with one request id are one add."""
    adds, requests = [], defaultdict(list)
    for add in history.of(Add):
        if add.request:
            requests[add.request].append(add)
        else:
            adds.append(add)
    adds += [_one_of(calls, judge, verdicts) for calls in requests.values()]
    for settle in history.of(Settle):
        if settle.contents:
            outcome = settle.outcome
            if outcome is Outcome.OK and (is_refused(settle) or not settle.ids):
                outcome = Outcome.REFUSED
            adds.append(
                Add(
                    queue=settle.to,
                    invoked=settle.invoked,
                    ended=settle.ended,
                    outcome=outcome,
                    contents=settle.contents,
                    delays=settle.delays,
                    ids=settle.ids,
                )
            )
    return adds


def _one_of(calls, judge, verdicts):
    """Return the add that *calls* are."""
    answered = sorted((each for each in calls if each.outcome is Outcome.OK), key=lambda call: call.ended)
    for each in answered[1:]:
        if (each.ids, each.duplicates) != (answered[0].ids, answered[0].duplicates):
            judge.found(verdicts.TWICE, f"the add at {each.invoked:.3f} was answered differently the second time")
    made = [each for each in calls if each.outcome is not Outcome.REFUSED]
    if not made:
        return calls[0]
    ended = answered[0].ended if answered else max(each.ended for each in made)
    return evolve((answered or made)[0], invoked=min(each.invoked for each in made), ended=ended)


def judge_once(judge, verdicts):
    """Find items that were added although their key was taken, and such as were not although it was free."""
    fresh = defaultdict(list)
    for item in judge.items.values():
        if not item.key or item.add.outcome is not Outcome.OK:
            continue
        if item.is_duplicate:
            _judge_duplicate(judge, verdicts, item)
        else:
            fresh[item.add.queue, item.key].append(item)
    for items in fresh.values():
        items.sort(key=lambda item: item.add.invoked)
        for one, other in pairwise(items):
            if one.add is other.add or _certainly_taken(judge, one, other):
                judge.found(verdicts.TWICE, f"{one} and {other} have the same key")


def _window(judge, item):
    return judge.history.setting(item.add.queue, "dedup_window_ms", WINDOW_SECONDS * 1_000) / 1_000


def _certainly_taken(judge, one, other):
    """Return whether the key of two items that were added was certainly taken when the second was decided."""
    if one.add.until_removed:
        return one.add.ended < other.add.invoked and not _may_be_gone_by(one, other.add.ended)
    span = _window(judge, one) - skew(judge.history.crashes, one.add.invoked, other.add.ended)
    return other.add.ended < one.add.invoked + span and one.add.ended < other.add.invoked + span


def _may_be_gone_by(item, moment):
    """Return whether the item may have been removed, or have died, before *moment*."""
    return (
        any((each.done or each.maybe) and each.invoked < moment for each in item.exits if each.action != "defer")
        or any(each.action == "cancel" and each.invoked < moment for each in item.operations)
        or any(purge.invoked < moment for purge in item.judge.purges[item.add.line])
        or may_be_dead_by(item, moment)
    )


def _judge_duplicate(judge, verdicts, item):
    add, number = item.add, item.add.ids[item.place]
    first = judge.by_id.get(number)
    if first is None:
        others = [each for each in judge.items.values() if each.key == item.key and each.add.queue == add.queue]
        if not any(each.add.outcome is Outcome.UNKNOWN for each in others):
            judge.found(verdicts.UNEXPECTED, f"{item} is a duplicate of {number.hex()}, which no client added")
        return
    if first.key != item.key or first.add.queue != add.queue:
        judge.found(verdicts.WITHHELD, f"{item} is no duplicate of {first}, which has another key")
    elif first.add is not add and first.add.outcome is Outcome.OK:
        late = lag(judge.history.crashes, first.add.invoked, add.ended)
        if first.add.until_removed:
            removed = [each.ended for each in first.exits if each.done and each.action == "remove"]
            removed += [each.ended for each in first.operations if each.done and each.action == "cancel"]
            over = any(ended + late < add.invoked for ended in removed)
        else:
            over = first.add.ended + _window(judge, first) + late < add.invoked
        if over:
            judge.found(verdicts.WITHHELD, f"{item} was held for a duplicate of {first}, whose key was free")
