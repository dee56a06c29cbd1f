"""The plans of one commit, and how they are taken from those that wait."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from queueber.broker import Plan, Write
from queueber.broker.model import LeaseId, QueueNumber, QueueRecord
from queueber.broker.storage import DeleteQueue, PutLease, PutQueue
from queueber.limits import Limits

PLAN_BYTES: Final = 640
"""Memory for a pending plan besides its rows, if any: the plan, its reply, and the callback that takes it."""

_new: Final = tuple.__new__
"""Makes a named tuple out of a plain one, in a third of the time that its class takes."""

Pending: TypeAlias = tuple[Plan[Any], Callable[[Any], None], int, dict[LeaseId, PutLease] | None]
"""A plan, the callback that takes its reply, bytes counted for its rows, and its leases if it writes nothing else."""

Reply: TypeAlias = tuple[Plan[Any], Callable[[Any], None]]
"""A plan, and the callback that takes its reply."""


class CommitBatch(NamedTuple):
    """The plans of one commit."""

    replies: list[Reply]
    plans: list[Plan[Any]]
    """The plans with writes."""

    writes: list[Write]
    rows: int
    """Rows of items and leases among *writes*."""

    bytes: int
    """Contents among *writes*."""

    memory: int
    """Bytes that the plans counted in `pending_bytes`."""


def take_batch(pending: deque[Pending], limits: Limits) -> CommitBatch:
    """
    Remove plans from *pending*, up to the limits of a commit, and return them with all their writes in order.

    Only the last record of each queue is written, and only the last one of each lease among plans that write nothing
    but leases.  The lease's record stays in its place: another plan between the two may write this lease, too.
    """
    replies: list[Reply] = []
    plans: list[Plan[Any]] = []
    writes: list[Write] = []
    records: dict[QueueNumber, QueueRecord] = {}
    dropped: list[Write] = []
    last: dict[LeaseId, int] = {}
    superseded: set[int] = set()
    rows = further_rows = size = contents = 0
    while pending and rows < limits.commit_rows and size < limits.commit_bytes:
        plan, take_reply, counted, leases = pending.popleft()
        replies.append((plan, take_reply))
        size += counted
        if not plan.writes:
            # It costs a reply.
            rows += 1
            continue
        plans.append(plan)
        rows += plan.rows
        contents += plan.size
        if leases is None:
            writes += plan.writes
            further_rows += plan.rows - len(plan.writes)  # an add writes many with one write
        else:
            # A lease extended a thousand times is written once; its record is as long as it has items.
            for lease_id, write in leases.items():
                if lease_id in last:
                    superseded.add(last[lease_id])
                last[lease_id] = len(writes)
                writes.append(write)
        for record in plan.records:
            records[record.number] = record
        for number in plan.dropped:
            records.pop(number, None)
            dropped.append(_new(DeleteQueue, (number,)))
    if superseded:
        writes = [write for at, write in enumerate(writes) if at not in superseded]
    written = len(writes) + further_rows
    for record in records.values():
        writes.append(_new(PutQueue, (record,)))
    writes += dropped
    return _new(CommitBatch, (replies, plans, writes, written, contents, size + PLAN_BYTES * len(replies)))


def only_leases(writes: Sequence[Write]) -> dict[LeaseId, PutLease] | None:
    """Return the leases' records if *writes* are nothing else, as those of an extend or a claim; None otherwise."""
    leases: dict[LeaseId, PutLease] = {}
    for write in writes:
        if type(write) is not PutLease or write.id in leases:
            return None
        leases[write.id] = write
    return leases
