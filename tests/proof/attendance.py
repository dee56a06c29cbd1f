"""Judges sessions: the leases that an attach and a ping report."""

from math import inf

from history import Attach, Outcome, Ping
from tenure import latest_end


def judge_sessions(judge, verdicts):
    """Find leases that a session has although they are over, and leases that it has lost although they are not."""
    for attach in attaches(judge.history):
        _judge_kept(judge, verdicts, attach)
        _judge_missing(judge, verdicts, attach)
    for ping in judge.history.of(Ping):
        for number in ping.leases:
            lease = judge.leases.get(number)
            if lease is not None and lease.earliest_end() > ping.ended and _holds_some(judge, lease, ping.ended):
                judge.found(verdicts.SHORT, f"the ping at {ping.ended:.3f} reports the end of a lease that is alive")


def attaches(history):
    """Return the attaches that list leases: the first over each connection that was answered."""
    first = {}
    for attach in history.of(Attach):
        first.setdefault((attach.session, attach.connection), attach)
    return [each for each in first.values() if each.outcome is Outcome.OK]


def unseen_leases(history, known):
    """Return the leases, and the ids of their items, that sessions have and that no poll's reply showed."""
    leases, ids = set(), set()
    for attach in attaches(history):
        for kept in attach.leases:
            if kept.lease not in known:
                leases.add(kept.lease)
                ids.update(kept.ids)
    return leases, ids


def _judge_kept(judge, verdicts, attach):
    for kept in attach.leases:
        lease = judge.leases.get(kept.lease)
        if lease is None:
            continue
        if lease.poll.session != attach.session or kept.queue != lease.poll.queue:
            judge.found(verdicts.STALE, f"the attach at {attach.invoked:.3f} returned another session's lease")
        if attach.invoked > latest_end(lease, judge.history.crashes, attach.ended):
            judge.found(
                verdicts.STALE,
                f"the session of the poll at {lease.poll.invoked:.3f} still had its lease at {attach.invoked:.3f}",
            )
        left = {each.id for each in lease.exits if each.done and each.ended < attach.invoked}
        if not left.isdisjoint(kept.ids):
            judge.found(
                verdicts.RESURRECTED, f"the attach at {attach.invoked:.3f} returned an item that had left its lease"
            )


def _judge_missing(judge, verdicts, attach):
    listed = {kept.lease for kept in attach.leases}
    for lease in judge.leases.values():
        if lease.poll.session != attach.session or lease.poll.lease in listed or lease.poll.ended >= attach.invoked:
            continue
        if lease.earliest_end(leaving_out=attach) > attach.ended and _holds_some(judge, lease, attach.ended):
            judge.found(
                verdicts.SHORT,
                f"the lease of the poll at {lease.poll.invoked:.3f} was lost at the attach at {attach.ended:.3f}",
            )


def _holds_some(judge, lease, moment):
    """Return whether an item of *lease* was certainly there at *moment*."""
    items = [judge.by_id[each.id] for each in lease.poll.items if each.id in judge.by_id]
    return any(not item.may_have_left(lease, moment) for item in items) if items else moment < -inf
