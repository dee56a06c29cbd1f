"""
Plans, from the decision until they are durable, and the scans that need their writes.

Memory changes when a plan is made, so nothing may fail between the first
change and the plan: an exception from the broker is a bug and ends the
process, as a failed write does.  No peer may see the reply before the writes,
and those of every earlier plan, are durable: after a crash in between, the call
must look to the client as if it had never arrived.  That holds for a plan
without writes too, because its reply may depend on something that is not on
the disk yet.

A scan reads a snapshot that is taken at some moment after its request.  The
snapshot may lack the writes of the plans that were not durable at the request
or were made since.  They are the scan's log, and `window.overlay` adds them to
its result.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from attrs import define, field

from queueber.broker.model import QueueNumber, QueueRecord, new_tuple
from queueber.broker.queue import Queue, Refill
from queueber.broker.queues import Queues
from queueber.broker.storage import Scan, Write
from queueber.broker.window import overlay

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@define(eq=False)
class Plan(Generic[T_co]):
    """A decision: its writes, and the reply that may be sent once they are durable."""

    writes: list[Write]
    """In the order in which they apply.  The writes of one plan are never split over two commits."""

    records: tuple[QueueRecord, ...]
    """
    The rows of the queues that it changes, as they are after it; none without writes.

    A commit needs only the last record of each queue.
    """

    reply: T_co

    size: int = 0
    """The size of the contents among the writes, bytes."""

    rows: int = 0
    """The number of rows that the writes put or delete."""

    dropped: tuple[QueueNumber, ...] = ()
    """Numbers that were retired: the rows of their queues are deleted.  No later plan has a record of theirs."""

    def with_reply(self, reply: Any) -> "Plan[Any]":  # noqa: ANN401
        """Replace the reply, before the plan is submitted, and return the plan."""
        self.reply = reply
        return self


class Follower(Protocol):
    """A read in progress, whose snapshot may lack the writes of some plans."""

    def note(self, writes: Sequence[Write]) -> None:
        """Note the writes of one plan."""


@define(eq=False)
class UncommittedPlans:
    """Makes plans, and keeps those with writes until they are durable."""

    _queues: Queues
    _plans: deque[Plan[Any]] = field(factory=deque, init=False)
    _refill_requests: list[Refill] = field(factory=list, init=False)
    _followers: list[Follower] = field(factory=list, init=False)

    def __len__(self) -> int:
        """Return how many plans with writes are not durable."""
        return len(self._plans)

    def __iter__(self) -> Iterator[Plan[Any]]:
        """Yield the plans that are not durable, in order."""
        return iter(self._plans)

    def plan(
        self,
        queue: Queue,
        writes: list[Write],
        reply: T,
        size: int = 0,
        rows: int | None = None,
        others: Iterable[Queue] = (),
        dropped: tuple[QueueNumber, ...] = (),
    ) -> Plan[T]:
        """
        Make the plan for a change of *queue* and *others*, which has been made in memory.

        *size* is that of its contents.  *rows* is the number of rows; by default, one for each write.
        """
        if not writes:
            return Plan(writes, (), reply)
        records: list[QueueRecord] = []
        for each in (queue, *others):
            if each.number is None:
                # It was deleted: only its items leave their leases.
                continue
            fields = each.number, each.name, each.added, each.removed, each.floor, each.bytes, each.id, each.dead_of
            records.append(new_tuple(QueueRecord, (*fields, each.off_time)))
            if each.refill is not None:
                each.refill.log += writes
        plan = Plan(writes, tuple(records), reply, size, len(writes) if rows is None else rows, dropped)
        self._plans.append(plan)
        if self._followers:
            for follower in self._followers:
                follower.note(writes)
        return plan

    def with_more(self, plan: Plan[Any], queue: Queue, writes: list[Write], reply: T) -> Plan[T]:
        """Return *plan*, the last one, with the reply *reply* and with *writes*, which are not of items or leases."""
        if not plan.writes:
            return self.plan(queue, writes, reply)
        plan.writes += writes
        plan.rows += len(writes)
        plan.reply = reply
        for follower in self._followers:
            follower.note(writes)
        return plan

    def plan_rows(self, writes: list[Write], reply: T) -> Plan[T]:
        """Make a plan for rows that belong to no queue's items."""
        plan = Plan(writes, (), reply, rows=len(writes))
        if writes:
            self._plans.append(plan)
            for follower in self._followers:
                follower.note(writes)
        return plan

    def join(self, plans: Sequence[Plan[Any]], reply: T) -> Plan[T]:
        """Make one plan of *plans*, the last ones that were made, so that they are durable together or not at all."""
        made = [plan for plan in plans if plan.writes]
        records = {record.number: record for plan in made for record in plan.records}
        dropped = tuple(number for plan in made for number in plan.dropped)
        writes = [write for plan in made for write in plan.writes]
        size, rows = sum(plan.size for plan in made), sum(plan.rows for plan in made)
        joined = Plan(writes, tuple(records.values()), reply, size, rows, dropped)
        for plan in reversed(made):
            last = self._plans.pop()
            assert last is plan, "only the last plans can be joined"
        if made:
            self._plans.append(joined)
        return joined

    def committed(self, plans: Iterable[Plan[Any]]) -> None:
        """Note that *plans*, the earliest ones with writes that were not durable, are durable now."""
        uncommitted = self._plans
        for plan in plans:
            assert uncommitted[0] is plan, "plans become durable in the order in which they were made"
            uncommitted.popleft()

    def follow(self, follower: Follower) -> None:
        """Let *follower* note all plans that are not durable, and all that are made from now on, until `unfollow`."""
        for plan in self._plans:
            follower.note(plan.writes)
        self._followers.append(follower)

    def unfollow(self, follower: Follower) -> None:
        """Let *follower* note no further plans."""
        self._followers.remove(follower)

    def start_refill(self, queue: Queue) -> None:
        """Request a scan of the rows above the queue's window, unless one is in progress."""
        if queue.refill is not None or queue.number is None:
            return
        log = [write for plan in self._plans if _concerns(plan, queue.number) for write in plan.writes]
        queue.refill = Refill(queue, queue.number, queue.window.covered_to, log)
        self._refill_requests.append(queue.refill)

    def take_refills(self) -> list[Refill]:
        """Return the scans requested since the last call."""
        requests, self._refill_requests = self._refill_requests, []
        return requests

    def finish_refill(self, refill: Refill, scan: Scan | None) -> None:
        """Add the result of a scan to the queue's window; None for a scan that failed.  Another one may start."""
        queue = refill.queue
        if queue.refill is not refill:
            # The number was retired meanwhile.
            return
        queue.refill = None
        if scan is None or queue.window.covered_to != refill.after:
            # The window's tail was dropped meanwhile, and the rows between its new end and the scan were not read.
            return
        items, covered_to = overlay(scan, queue=refill.number, above=refill.after, log=refill.log, held=queue.held)
        queue.window.extend(items, covered_to)
        queue.may_expire = queue.may_expire or any(each.facts is not None and each.facts.expires_at for each in items)
        queue.note_unreadable(scan.gaps)
        queue.refilled = True
        # Polls wait for these items, so other windows are dropped first if memory is short.
        self._queues.windows.touch(queue)
        self._queues.windows.enforce(queue)


def _concerns(plan: Plan[Any], number: QueueNumber) -> bool:
    return any(record.number == number for record in plan.records)
