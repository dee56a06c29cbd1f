"""
Stress: clients that add, and clients that poll and remove, at full speed or at a given rate.

Each client has a connection of its own.  Pollers extend every tenth lease.
When the time is over, adding and measuring end, and the remaining items are
removed through other connections, so that the queue is empty again.
Only items that the load has added are removed.  Other items go back and end the load.
"""

from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from queueber.client import GIVE_BACK_MS, Batch, Queue
from queueber.errors import Kind, QueueberError
from queueber.loadgen.clients import Fleet, NotEmpty, started, together
from queueber.loadgen.latency import Latency
from queueber.loadgen.progress import LINE_SECONDS, ProgressReporter

WINDOW = 16
"""Adds or polls in flight of one client."""

DRAIN_CLIENTS, DRAIN_WINDOW, DRAIN_BATCH = 2, 4, 100
"""Draining: connections, polls in flight on each, and items in each poll."""

EXTEND_EVERY = 10
LEASE_MS = 60_000
WAIT_MS = 500
DRAIN_SECONDS = 30.0
"""Time without an item after which draining ends."""

TICK_SECONDS = 0.25
RATES = ("adds", "polls", "removes", "extends")


@frozen(kw_only=True)
class Plan:
    """The parameters of a load."""

    polling_clients: int
    adding_clients: int
    rate: float
    """Items per second of all clients together; 0 for full speed."""

    duration: float
    """Seconds."""

    batch: int
    """Items in each add and poll."""

    size: int
    """Bytes in each item."""


@define
class Stress:
    """One run.  Its counts can be read at any time."""

    fleet: Fleet
    plan: Plan
    reporter: ProgressReporter
    counts: Counter[str] = field(factory=Counter)
    """Items added, polled and removed, leases extended, and failures, draining included."""

    latencies: dict[str, Latency] = field(factory=lambda: {name: Latency() for name in ("add", "poll", "remove")})
    """Latencies of calls during the load.  That of a poll includes its wait."""

    cuts: Counter[int] = field(factory=Counter)
    """Number of polls for each deadline of a lease, during the load."""

    polled: int = 0
    """Polls that returned items, during the load."""

    _added: set[bytes] = field(factory=set)
    """Ids of items that were added and not removed."""

    _adding: dict[Deferred[None], None] = field(factory=dict)
    """Adds in flight.  Each fires when its ids are in `_added`."""

    _stopping: bool = False
    _begun: float = 0.0
    _ended: tuple[float, Counter[str]] | None = None
    """Duration and counts of the load, once it has ended."""

    _stirred: float = 0.0
    """Time of the last drained item."""

    _failure: Failure | None = None

    async def run(self) -> "Stress":
        """
        Run the load and drain the queue.

        Raises:
            NotEmpty: a foreign item appeared in the queue.
            QueueberError: the error of the first failed call.
        """
        plan = self.plan
        adders, pollers = self.fleet.more(plan.adding_clients), self.fleet.more(plan.polling_clients)
        self._begun = self.fleet.reactor.seconds()
        lines = [queue for queue in adders for _ in range(WINDOW)]
        until = self._begun + plan.duration
        polling = [self._work(self._poll(queue)) for queue in pollers for _ in range(WINDOW)]
        adding = [self._work(self._add(queue, number, until)) for number, queue in enumerate(lines)]
        try:
            await self._watch()
            self._end()
            await together(adding + polling)
            self._check()
            await self._drain()
        finally:
            self._stopping = True
            self.reporter.end()
        self._check()
        return self

    @property
    def seconds(self) -> float:
        """Return the duration of the load so far, or in all if it has ended."""
        now: float = self.fleet.reactor.seconds()
        return self._ended[0] if self._ended else now - self._begun

    @property
    def counted(self) -> Counter[str]:
        """Return the counts of the load, without draining."""
        return self._ended[1] if self._ended else self.counts

    @property
    def left(self) -> int:
        """Return the number of items that were added and not removed."""
        return max(0, self.counts["adds"] - self.counts["removes"])

    def _work(self, work: Coroutine[Deferred[Any], Any, None]) -> Deferred[None]:
        """Start *work*.  Its failure is kept and ends the run."""
        return started(work).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self._failure = self._failure or failure
        self._end()

    def _end(self) -> None:
        """End the load: start no new calls, and keep its duration and counts."""
        self._stopping = True
        if self._ended is None:
            self._ended = self.seconds, self.counts.copy()

    def _check(self) -> None:
        if self._failure is not None:
            self._failure.raiseException()

    async def _drain(self) -> None:
        """Remove the remaining items, as long as items arrive."""
        total = self.left
        if not total:
            return
        self.reporter.begin("removing the remaining items", total, items=True)
        self._stirred = self.fleet.reactor.seconds()
        queues = self.fleet.more(DRAIN_CLIENTS)
        draining = started(together([self._take_out(queue) for queue in queues for _ in range(DRAIN_WINDOW)]))
        while not draining.called:
            await self.fleet.sleep(TICK_SECONDS)
            self.reporter.at(total - self.left)
        await draining

    def _take_out(self, queue: Queue) -> Deferred[None]:
        now = self.fleet.reactor.seconds

        async def take_out() -> None:
            while self.left and self._failure is None and now() < self._stirred + DRAIN_SECONDS:
                batch = await queue.poll(DRAIN_BATCH, lease_ms=LEASE_MS, wait_ms=WAIT_MS)
                if batch.items:
                    self._stirred = now()
                self.counts["polls"] += len(batch.items)
                await self._check_own(queue, batch)
                await together(self._finish(queue, batch))

        return self._work(take_out())

    async def _add(self, queue: Queue, number: int, until: float) -> None:
        """
        Add until the time *until*, as number *number* of all adding tasks.

        With a rate, each task has a schedule of its own and catches up if it is late.
        """
        plan, now = self.plan, self.fleet.reactor.seconds
        contents = [bytes(plan.size)] * plan.batch
        lines = plan.adding_clients * WINDOW
        pause = plan.batch * lines / plan.rate if plan.rate else 0.0
        turn = now() + pause * number / lines
        while not self._stopping:
            if plan.rate:
                await self.fleet.sleep(min(turn, until) - now())
                turn += pause
            began = now()
            if began >= until:
                return
            if not await self._added_by(queue, contents):
                continue
            self._observe("add", began)
            self.counts["adds"] += plan.batch

    async def _added_by(self, queue: Queue, contents: list[bytes]) -> bool:
        """Add *contents* and return whether the server accepted them.  Pause if it is overloaded."""
        under_way: Deferred[None] = Deferred()
        self._adding[under_way] = None
        try:
            self._added.update(await queue.add(*contents))
        except QueueberError as why:
            if why.kind is not Kind.OVERLOADED:
                raise
            self.counts["overloaded"] += 1
            await self.fleet.sleep(TICK_SECONDS)
            return False
        finally:
            del self._adding[under_way]
            under_way.callback(None)
        return True

    async def _check_own(self, queue: Queue, batch: Batch) -> None:
        """
        Return *batch* to the queue if it has an item that this load has not added.

        Raises:
            NotEmpty: it has a foreign item.
        """
        if not all(item.id in self._added for item in batch.items):
            # An item may arrive before the answer to its add.
            for each in list(self._adding):
                await each
        if not all(item.id in self._added for item in batch.items):
            await queue.extend(batch.lease, GIVE_BACK_MS)
            raise NotEmpty(f"the queue {self.fleet.queue} got an item that this load has not added; it is given back")

    async def _poll(self, queue: Queue) -> None:
        """Poll and remove until the load ends."""
        plan, now = self.plan, self.fleet.reactor.seconds
        while not self._stopping:
            began = now()
            batch = await queue.poll(plan.batch, lease_ms=LEASE_MS, wait_ms=WAIT_MS)
            if not batch.items:
                continue
            self._observe("poll", began)
            self.counts["polls"] += len(batch.items)
            if self._ended is None:
                self.polled += 1
                self.cuts[batch.deadline] += 1
            await self._check_own(queue, batch)
            await together(self._finish(queue, batch))

    def _finish(self, queue: Queue, batch: Batch) -> Iterator[Deferred[None]]:
        """Remove the items of *batch*, and extend every tenth lease."""
        if self._ended is None and not self.polled % EXTEND_EVERY:
            yield queue.extend(batch.lease, LEASE_MS).addCallback(self._did, "extends")
        for item in batch.items:
            began = self.fleet.reactor.seconds()
            yield queue.remove(item.id, batch.lease).addCallback(self._removed, item.id, began)

    def _removed(self, did: bool, item_id: bytes, began: float) -> None:
        if did:
            self._added.discard(item_id)
        self._did(did, "removes", began)

    def _did(self, did: bool, what: str, began: float | None = None) -> None:
        self.counts[what if did else "refused"] += 1
        if began is not None:
            self._observe("remove", began)

    def _observe(self, call: str, began: float) -> None:
        """Record the latency of *call*, unless the load has ended."""
        if self._ended is None:
            self.latencies[call].observe(self.fleet.reactor.seconds() - began)

    async def _watch(self) -> None:
        """Show progress until the load ends."""
        now, began = self.fleet.reactor.seconds, self._begun
        self.reporter.begin("stress", self.plan.duration)
        reported, before = began, Counter[str]()
        while now() < began + self.plan.duration:
            self._check()
            await self.fleet.sleep(min(TICK_SECONDS, began + self.plan.duration - now()))
            self.reporter.at(now() - began)
            if now() - reported >= LINE_SECONDS:
                self.reporter.line(line(now() - began, self.counts - before, now() - reported))
                reported, before = now(), self.counts.copy()

    def shared(self) -> dict[str, float]:
        """
        Return how many polls shared a commit, estimated from their leases.

        Leases of the same length that end in the same millisecond began in the
        same commit, or in two within that millisecond.
        """
        together = sum(count for count in self.cuts.values() if count > 1)
        return {
            "polls": self.polled,
            "commits": len(self.cuts),
            "polls_per_commit": round(self.polled / len(self.cuts), 2) if self.cuts else 0.0,
            "shared": round(together / self.polled, 4) if self.polled else 0.0,
        }


def line(at: float, counts: Mapping[str, int], seconds: float) -> str:
    """Return the rates of the last *seconds* as one line."""
    rates = ", ".join(f"{counts[name] / seconds:,.0f} {name}/s" for name in RATES)
    return f"{at:5.0f} s: {rates}"
