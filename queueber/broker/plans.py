"""
Plans, from the moment they are made until they are durable, and the scans that must know of them.

A scan reads a snapshot that the disk takes at some moment after it was asked
for.  What the disk lacked then, or may have lacked, is the writes of the
plans that were not durable when it was asked for and of those made since: the
scan's log.  `window.overlay` puts the two together.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from attrs import define, field

from queueber.broker.model import QueueNumber, QueueRecord
from queueber.broker.queue import Queue, Refill
from queueber.broker.queues import Queues
from queueber.broker.storage import Scan, Write
from queueber.broker.window import overlay

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@define(eq=False)
class Plan(Generic[T_co]):
    """Writes, and the reply that may be given once they are durable."""

    writes: list[Write]
    """In the order in which they apply; no plan's are ever split over two commits."""

    record: QueueRecord | None
    """The queue's row after this plan; of all the plans in one commit only the last need be written."""

    reply: T_co

    size: int = 0
    """Contents among the writes, bytes."""


@define(eq=False)
class UncommittedPlans:
    """The only maker of plans."""

    _queues: Queues
    _plans: deque[Plan[Any]] = field(factory=deque, init=False)
    _refill_requests: list[Refill] = field(factory=list, init=False)

    def __len__(self) -> int:
        """How many plans with writes are not durable."""
        return len(self._plans)

    def plan(self, queue: Queue, writes: list[Write], reply: T, *, size: int = 0) -> Plan[T]:
        """A plan for *queue*, which has been changed accordingly; *size* is that of the contents it writes, bytes."""
        if not writes:
            return Plan(writes, None, reply)
        plan = Plan(writes, queue.record(), reply, size)
        self._plans.append(plan)
        if queue.refill is not None:
            queue.refill.log += writes
        return plan

    def committed(self, plans: Iterable[Plan[Any]]) -> None:
        """Note that *plans*, the earliest ones with writes that were not durable, are durable now."""
        uncommitted = self._plans
        for plan in plans:
            assert uncommitted[0] is plan, "plans become durable in the order in which they were made"
            uncommitted.popleft()

    def start_refill(self, queue: Queue) -> None:
        """Ask for a scan of what lies above the queue's window, unless one is on its way."""
        if queue.refill is not None or queue.number is None:
            return
        log = [write for plan in self._plans if _concerns(plan, queue.number) for write in plan.writes]
        queue.refill = Refill(queue, queue.number, queue.window.covered_to, log)
        self._refill_requests.append(queue.refill)

    def take_refills(self) -> list[Refill]:
        """The scans that were asked for since the last time."""
        requests, self._refill_requests = self._refill_requests, []
        return requests

    def finish_refill(self, refill: Refill, scan: Scan | None) -> None:
        """The scan has come back, or failed (None).  A new one may start."""
        queue = refill.queue
        queue.refill = None
        if scan is None or queue.window.covered_to != refill.after:
            # Items were dropped from the window's tail meanwhile: the stretch in between was not scanned.
            return
        items, covered_to = overlay(scan, above=refill.after, log=refill.log, held=queue.held)
        queue.window.extend(items, covered_to)
        queue.note_unreadable(scan.gaps)
        queue.refilled = True
        # Somebody waits for these: they are not the ones to drop if memory is short.
        self._queues.touch(queue)
        self._queues.enforce_budget(queue)


def _concerns(plan: Plan[Any], number: QueueNumber) -> bool:
    return plan.record is not None and plan.record.number == number
