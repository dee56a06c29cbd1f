"""Leases as they go on after a start."""

from collections.abc import Mapping
from itertools import repeat

from queueber.broker.leases import GRACE_USED, Lease, LeaseState, LeaseTable
from queueber.broker.model import NO_GRACE, Leased, LeaseId, LeaseRecord
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.broker.sessions import Sessions
from queueber.broker.storage import DeleteLease, PutLease, Write
from queueber.units import SpanMs, WallMs


def restore_leases(
    recovered: Mapping[LeaseId, LeaseRecord],
    queues: Queues,
    leases: LeaseTable,
    sessions: Sessions,
    uncommitted: UncommittedPlans,
    now: WallMs,
    grace: SpanMs,
) -> list[Plan[None]]:
    """
    Add the leases that were read from the disk, at *now*, to *leases* and their queues.

    Returns:
        Plans, one for each queue, that write changed records and delete those of leases without items.
    """
    writes: dict[Queue, list[Write]] = {}
    for lease_id, found in recovered.items():
        queue = queues.by_number(found.queue)
        if not found.keys:
            writes.setdefault(queue, []).append(DeleteLease(lease_id))
            continue
        lease = _restored(lease_id, found)
        if queue.gone:
            leases.end(lease, now)
        # One that an operator ended counts a loss, before and after a crash.
        lease.excused = lease.deadline <= now and lease.grace != GRACE_USED
        if lease.session:
            if queue.settings.max_lease_ms and lease.leased_at:
                lease.latest_end = WallMs(lease.leased_at + queue.settings.max_lease_ms)
            if not queue.gone:
                # `Sessions.started` gives it a deadline.  A sweep may come before that.
                lease.deadline = lease.latest_end
            sessions.restore(lease)
        elif not queue.gone and _give_grace(lease, now, grace):
            writes.setdefault(queue, []).append(PutLease(lease.id, lease.record()))
        leases.restore(lease)
        queue.held.update(zip(lease.keys, repeat(lease)))
        if found.queue in queues.retired:
            queues.keep_leased(found.queue, lease.keys)
    return [uncommitted.plan(queue, each, None) for queue, each in writes.items()]


def _restored(lease_id: LeaseId, found: LeaseRecord) -> Lease:
    sizes = found.sizes or repeat(0)
    keys = {key.id: Leased(*key, size) for key, size in zip(found.keys, sizes, strict=False)}
    lease = Lease(lease_id, found.queue, found.deadline, keys, found.leased_at, state=LeaseState.LIVE)
    lease.session, lease.grace = found.session, found.grace
    # Known sizes let a sweep take many leases at once.
    lease.size = sum(found.sizes) if found.sizes else None
    return lease


def _give_grace(lease: Lease, now: WallMs, grace: SpanMs) -> bool:
    """
    Let *lease*, which has a deadline of its own, end a while after a start; return whether its record changed.

    An outage is no worker's failure: a lease that ended meanwhile counts no loss.  A lease gets its grace once, and no
    more than its own length, so that short leases do not become long ones.
    """
    if lease.grace:
        return False
    if lease.leased_at:
        grace = min(grace, SpanMs(lease.deadline - lease.leased_at))
    deadline = WallMs(now + grace)
    if grace <= NO_GRACE or deadline <= lease.deadline:
        return False
    lease.deadline, lease.grace = deadline, grace
    return True
