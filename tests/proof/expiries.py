"""Judges items that expire: none is delivered after its end, and none is accepted that can only come too late."""

from history import Outcome
from tenure import SKEW_SECONDS, lag


def may_be_in_vain(add):
    """Return whether an item of *add* may have become due only when it had expired, so that it must be refused."""
    return any(
        expiry and add.ended + delay + SKEW_SECONDS >= expiry[0]
        for delay, expiry in zip(add.delays, add.expiries, strict=False)
    )


def may_be_dead_by(item, moment):
    """Return whether *item* may have expired before *moment*."""
    return item.expiry is not None and item.expiry[0] < moment


def has_expired(item, delivery):
    """Return whether a dead item, which is delivered, may have died of its expiry: once, and not before that."""
    earlier = [each.delivered.died_at for each in item.deliveries if each.life < delivery.life]
    died_at = delivery.delivered.died_at
    return item.expiry is not None and died_at >= item.expiry[2] and not any(0 < each < died_at for each in earlier)


def judge_expiries(judge, verdicts):
    """Find items that were delivered although they had expired, and adds that were accepted and could do nothing."""
    for item in judge.items.values():
        add, expiry = item.add, item.expiry
        if expiry is None:
            continue
        if add.outcome is Outcome.OK and not item.is_duplicate and add.invoked + item.delay > expiry[1] + SKEW_SECONDS:
            judge.found(verdicts.IN_VAIN, f"{item} was accepted, and expired before it was due")
        for each in item.deliveries:
            late = lag(judge.history.crashes, add.invoked, each.poll.ended)
            if not each.delivered.died_at and each.poll.invoked > expiry[1] + late:
                judge.found(
                    verdicts.EXPIRED, f"{item} was given {each.poll.invoked - expiry[1]:.3f} s after it had expired"
                )
