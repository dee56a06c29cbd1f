"""
Plans, from the moment they are made until they are durable, and the scans that must know of them.

A scan reads a snapshot that the disk takes at some moment after it was asked
for.  What the disk lacked then, or may have lacked, is the writes of the
plans that were not durable when it was asked for and of those made since: the
scan's log.  `window.overlay` puts the two together.
"""

from collections import deque
from typing import Any, TypeVar

from attrs import define, field

from queueber.broker.model import QueueNumber
from queueber.broker.plan import Plan
from queueber.broker.port import Scan, Write
from queueber.broker.queue import Queue, Refill
from queueber.broker.queues import Queues
from queueber.broker.window import overlay

T = TypeVar("T")


@define(eq=False)
class UncommittedPlans:
    """The only maker of plans."""

    _queues: Queues
    _undurable: deque[Plan[Any]] = field(factory=deque, init=False)
    _asked_for: list[Refill] = field(factory=list, init=False)

    def __len__(self) -> int:
        """How many plans with writes are not durable."""
        return len(self._undurable)

    def plan(self, queue: Queue, writes: list[Write], reply: T, *, size: int = 0) -> Plan[T]:
        """A plan for *queue*, which has been changed accordingly; *size* is that of the contents it writes, bytes."""
        if not writes:
            return Plan(writes, None, reply)
        plan = Plan(writes, queue.record(), reply, size)
        self._undurable.append(plan)
        if queue.refill is not None:
            queue.refill.log += writes
        return plan

    def committed(self, plan: Plan[Any]) -> None:
        """*plan*, of those with writes the earliest that was not durable, is."""
        assert self._undurable[0] is plan, "plans become durable in the order in which they were made"
        self._undurable.popleft()

    def start_refill(self, queue: Queue) -> None:
        """Ask for a scan of what lies above the queue's window, unless one is on its way."""
        if queue.refill is not None or queue.number is None:
            return
        log = [write for plan in self._undurable if _concerns(plan, queue.number) for write in plan.writes]
        queue.refill = Refill(queue, queue.number, queue.window.covered_to, log)
        self._asked_for.append(queue.refill)

    def take_refills(self) -> list[Refill]:
        """The scans that were asked for since the last time."""
        asked_for, self._asked_for = self._asked_for, []
        return asked_for

    def finish_refill(self, refill: Refill, scan: Scan | None) -> None:
        """The scan has come back, or failed (None).  A new one may start."""
        queue = refill.queue
        queue.refill = None
        if scan is None or queue.window.covered_to != refill.after:
            # Items were dropped from the window's tail meanwhile: the stretch in between was not scanned.
            return
        items, covered_to = overlay(scan, above=refill.after, log=refill.log, held=queue.held)
        queue.window.extend(items, covered_to)
        queue.pass_over(scan.gaps)
        queue.refilled = True
        # Somebody waits for these: they are not the ones to drop if memory is short.
        self._queues.claimed_from(queue)
        self._queues.grown(queue)


def _concerns(plan: Plan[Any], number: QueueNumber) -> bool:
    return plan.record is not None and plan.record.number == number
