"""Judges settles: the calls by which items leave their leases, what they count, and deaths."""

from expiries import has_expired
from history import Extend, Outcome, Settle
from items import Exit


def is_refused(settle):
    """Return whether an answered settle was all or nothing and did nothing."""
    conditional = settle.all_or_nothing or settle.contents
    return bool(conditional) and any(each.result != "done" for each in settle.entries)


def has_happened(settle, judge):
    """Return whether *settle* took effect; None if that is not known."""
    if settle.outcome is not Outcome.UNKNOWN:
        return settle.outcome is Outcome.OK and not is_refused(settle)
    if not settle.contents:
        return None
    if any(judge.items[each].deliveries for each in settle.contents):
        return True
    return None if judge.history.drained == float("inf") or judge.purges[settle.to, False] else False


def take_settle(judge, settle):
    """Record the entries of *settle* with their leases and items."""
    happened = has_happened(settle, judge)
    if happened is False and settle.outcome is Outcome.UNKNOWN:
        return
    for entry in settle.entries:
        lease = judge.leases.get(entry.lease)
        if entry.action == "extend":
            _take_extend(judge, settle, entry, lease)
            continue
        done = happened is True and entry.result in {"done", ""}
        decided = settle.outcome is Outcome.OK and not is_refused(settle)
        more = {"is_decided": decided, "delay": entry.delay, "error": entry.error}
        if entry.id:
            died = entry.died if done and entry.result else None
            judge.take_exit(Exit(settle, entry.lease, entry.id, entry.action, done=done, died=died, **more))
        elif lease is not None and (happened is None or done):
            _take_whole(judge, settle, entry, lease, done=done, more=more)


def _take_extend(judge, settle, entry, lease):
    queue = lease.poll.queue if settle.everywhere and lease is not None else settle.queue
    times = {"invoked": settle.invoked, "ended": settle.ended, "outcome": settle.outcome}
    done = entry.result == "done" and not is_refused(settle)
    if done or settle.outcome is Outcome.UNKNOWN:
        judge.take_extend(Extend(queue=queue, lease=entry.lease, span=entry.delay, done=done, **times))


def _take_whole(judge, settle, entry, lease, *, done, more):
    """Record an entry for all items of a lease: those that had not left it before."""
    for each in lease.poll.items:
        item = judge.by_id.get(each.id)
        if item is None:
            continue
        others = [one for one in item.exits if one.lease == entry.lease]
        if any(one.done for one in others):
            continue
        certain = done and not others
        more["is_decided"] = False
        judge.take_exit(Exit(settle, entry.lease, each.id, entry.action, done=certain, maybe=not certain, **more))


def judge_settles(judge, verdicts):
    """Find settles that were all or nothing and were done in part."""
    for settle in judge.history.of(Settle):
        if settle.outcome is not Outcome.OK or not (settle.all_or_nothing or settle.contents):
            continue
        if is_refused(settle):
            if settle.changed or settle.ids:
                judge.found(verdicts.TORN, f"the settle at {settle.invoked:.3f} was refused and changed something")
        elif len(settle.ids) != len(settle.contents) or (settle.entries and not settle.changed):
            judge.found(verdicts.TORN, f"the settle at {settle.invoked:.3f} was done and added {len(settle.ids)} items")


def judge_counts(judge, verdicts, item):
    """Find failures and losses that were not counted, or counted twice, and errors that were not kept."""
    before = None
    for each in item.deliveries:
        sound = each.delivered.losses is None or each.attempt == 1 + each.failures + each.delivered.losses
        hidden = item.hidden or judge.unknown.may_have_had(
            each, item.add.invoked if before is None else before.poll.invoked
        )
        if before is not None and before.life == each.life:
            steps = _steps(judge, before)
            sound = sound and (
                not steps
                or any(
                    each.failures - before.failures == failed
                    and (each.losses - before.losses == lost or (hidden and each.losses - before.losses >= lost))
                    for failed, lost in steps
                )
            )
            _judge_error(judge, verdicts, before, each)
        elif not each.poll.dead:
            # The first of a life.
            sound = sound and not each.failures and (hidden or each.attempt == 1)
        if not sound:
            seen = "nothing" if before is None else f"{before.failures} failures and {before.losses} losses"
            judge.found(
                verdicts.MISCOUNTED,
                f"{item}: attempt {each.attempt} with {each.failures} failures and {each.losses} losses after {seen}",
            )
        before = each


def _steps(judge, before):
    """Return what the end of a delivery may count: pairs of failures and losses; none if the item cannot come back."""
    if before.poll.dead:
        return {(0, 0)}
    counted = {"fail": (1, 0), "defer": (0, 0)}
    done = [each for each in before.exits if each.done]
    if done:
        return {counted[each.action] for each in done if each.action in counted}
    steps = {(0, 1)} | {counted[each.action] for each in before.exits if each.maybe and each.action in counted}
    if before.lease.may_end_at_a_start(judge.history.crashes):
        steps.add((0, 0))
    return steps


def _judge_error(judge, verdicts, before, each):
    """Find an error that is not that of the last failure."""
    if each.delivered.losses is None or any(one.maybe for one in before.exits):
        return
    failed = [one for one in before.exits if one.done and (one.action == "fail" or (before.poll.dead and one.error))]
    if any(one.done and one.action == "defer" for one in before.exits):
        failed = []
    expected = failed[0].error if failed else before.delivered.error
    if each.delivered.error != expected:
        judge.found(
            verdicts.MISREPORTED, f"{each.item} came back with the error {each.delivered.error!r}, not {expected!r}"
        )


def judge_deaths(judge, verdicts, item):
    """Find items that died without a cause, that live on although they died, and that did not die when they had to."""
    most = judge.history.setting(item.add.queue, "max_attempts")
    for each in item.deliveries:
        if not each.poll.dead and 0 < most < each.attempt:
            judge.found(verdicts.UNDEAD, f"{item} was given for attempt {each.attempt} of {most}")
        if each.poll.dead and not _has_cause(item, each, most):
            judge.found(verdicts.UNDEAD, f"{item} is dead without a cause: {each.delivered.death}")
        for left in each.exits:
            if not left.done or left.died is None:
                continue
            dies = left.action == "reject" or (left.action == "fail" and 0 < most <= each.attempt)
            if left.died != (dies and not each.poll.dead):
                judge.found(verdicts.UNDEAD, f"{item} was settled at {left.invoked:.3f}; it died: {left.died}")
            if left.died and any(one.life == each.life and one.order > each.order for one in item.deliveries):
                judge.found(verdicts.UNDEAD, f"{item} died at {left.ended:.3f} and was handed out as if it had not")


def _has_cause(item, delivery, most):
    """Return whether the history has a cause for the death of a delivered dead item."""
    actions = {each.action for each in item.exits if each.done or each.maybe}
    match delivery.delivered.death:
        case "rejected":
            return "reject" in actions
        case "attempts":
            return most > 0 and "fail" in actions
        case "lost":
            return most > 0
        case "expired":
            return has_expired(item, delivery)
        case _:
            return False
