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
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from queueber.client import GIVE_BACK_MS, Batch, Queue
from queueber.errors import Kind, QueueberError
from queueber.loadgen.clients import (
    BUSY_SECONDS,
    LINE_SECONDS,
    PROGRESS_SECONDS,
    Fleet,
    NotEmpty,
    ProgressReporter,
    started,
    together,
)
from queueber.loadgen.results import Latency

IN_FLIGHT = 16
"""Adds or polls in flight of one client."""

DRAIN_CLIENTS, DRAIN_IN_FLIGHT, DRAIN_BATCH = 2, 4, 100
"""Draining: connections, polls in flight on each, and items in each poll."""

EXTEND_EVERY = 10
STRESS_LEASE_MS = 60_000
WAIT_MS = 500
DRAIN_SECONDS = 30.0
"""Time without an item after which draining ends."""

RATES = ("adds", "polls", "removes", "extends")


@frozen(kw_only=True)
class StressOptions:
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
    options: StressOptions
    reporter: ProgressReporter
    counts: Counter[str] = field(factory=Counter)
    """Items added, polled and removed, leases extended, and failures, draining included."""

    latencies: dict[str, Latency] = field(factory=lambda: {name: Latency() for name in ("add", "poll", "remove")})
    """Latencies of calls during the load.  That of a poll includes its wait."""

    polls_by_deadline: Counter[int] = field(factory=Counter)
    """Number of polls for each deadline of a lease, during the load."""

    polled: int = 0
    """Polls that returned items, during the load."""

    added: set[bytes] = field(factory=set)
    """Ids of items that were added and not removed."""

    adding: dict[Deferred[None], None] = field(factory=dict)
    """Adds in flight.  Each fires when its ids are in `added`."""

    _sleeps: set[Deferred[None]] = field(factory=set)
    """The pauses of adding tasks before their next adds."""

    _stopping: bool = False
    _begun: float = 0.0
    _ended: tuple[float, Counter[str]] | None = None
    """Duration and counts of the load, once it has ended."""

    _drained_at: float = 0.0
    """Time of the last drained item."""

    _failure: Failure | None = None

    async def run(self) -> "Stress":
        """
        Run the load and drain the queue.

        Raises:
            NotEmpty: a foreign item appeared in the queue.
            QueueberError: the error of the first failed call.
        """
        options = self.options
        adders, pollers = self.fleet.more(options.adding_clients), self.fleet.more(options.polling_clients)
        self._begun = self.fleet.reactor.seconds()
        lines = [queue for queue in adders for _ in range(IN_FLIGHT)]
        until = self._begun + options.duration
        polling = [self._work(self._poll(queue)) for queue in pollers for _ in range(IN_FLIGHT)]
        adding = [self._work(self._add(queue, number, until)) for number, queue in enumerate(lines)]
        try:
            await self._report()
            self._check()
            self._end()
            await together(adding + polling)
            self._check()
            await self._empty()
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

    def stop(self) -> None:
        """End the load now and remove the remaining items.  `run` returns after that."""
        self._end()

    def _end(self) -> None:
        """End the load: start no new calls, and keep its duration and counts."""
        self._stopping = True
        if self._ended is None:
            self._ended = self.seconds, self.counts.copy()
        for sleep in list(self._sleeps):
            sleep.cancel()

    def _check(self) -> None:
        if self._failure is not None:
            self._failure.raiseException()

    async def _empty(self) -> None:
        """Remove the remaining items, as long as items arrive."""
        total = self.left
        if not total:
            return
        self.reporter.begin("removing the remaining items", total, items=True)
        self._drained_at = self.fleet.reactor.seconds()
        queues = self.fleet.more(DRAIN_CLIENTS)
        draining = started(
            together([self._remove_until_empty(queue) for queue in queues for _ in range(DRAIN_IN_FLIGHT)])
        )
        while not draining.called:
            await self.fleet.sleep(PROGRESS_SECONDS)
            self.reporter.at(total - self.left)
        await draining

    def _remove_until_empty(self, queue: Queue) -> Deferred[None]:
        now = self.fleet.reactor.seconds

        async def remove_until_empty() -> None:
            while self.left and self._failure is None and now() < self._drained_at + DRAIN_SECONDS:
                batch = await queue.poll(DRAIN_BATCH, lease_ms=STRESS_LEASE_MS, wait_ms=WAIT_MS)
                if batch.items:
                    self._drained_at = now()
                self.counts["polls"] += len(batch.items)
                await self._check_own(queue, batch)
                await together(self._removes(queue, batch))

        return self._work(remove_until_empty())

    async def _add(self, queue: Queue, number: int, until: float) -> None:
        """
        Add until the time *until*, as number *number* of all adding tasks.

        With a rate, each task has a schedule of its own and catches up if it is late.
        """
        options, now = self.options, self.fleet.reactor.seconds
        contents = [bytes(options.size)] * options.batch
        lines = options.adding_clients * IN_FLIGHT
        pause = options.batch * lines / options.rate if options.rate else 0.0
        due = now() + pause * number / lines
        while not self._stopping:
            if options.rate:
                await self._sleep(min(due, until) - now())
                due += pause
            began = now()
            if began >= until:
                return
            if not await self._add_once(queue, contents):
                continue
            self._observe("add", began)
            self.counts["adds"] += options.batch

    async def _sleep(self, seconds: float) -> None:
        """Sleep, at most until the load ends."""
        sleep = self.fleet.sleep(seconds)
        self._sleeps.add(sleep)
        try:
            await sleep
        except CancelledError:
            return
        finally:
            self._sleeps.discard(sleep)

    async def _add_once(self, queue: Queue, contents: list[bytes]) -> bool:
        """Add *contents* and return whether the server accepted them.  Pause if it is overloaded."""
        under_way: Deferred[None] = Deferred()
        self.adding[under_way] = None
        try:
            self.added.update(await queue.add(*contents))
        except QueueberError as why:
            if why.kind is not Kind.OVERLOADED:
                raise
            self.counts["overloaded"] += 1
            await self.fleet.sleep(BUSY_SECONDS)
            return False
        finally:
            del self.adding[under_way]
            under_way.callback(None)
        return True

    async def _check_own(self, queue: Queue, batch: Batch) -> None:
        """
        Return *batch* to the queue if it has an item that this load has not added.

        Raises:
            NotEmpty: it has a foreign item.
        """
        if not all(item.id in self.added for item in batch.items):
            # An item may arrive before the answer to its add.
            for each in list(self.adding):
                await each
        if not all(item.id in self.added for item in batch.items):
            await queue.extend(batch.lease, GIVE_BACK_MS)
            raise NotEmpty(f"the queue {self.fleet.queue} got an item that this load has not added; it is given back")

    async def _poll(self, queue: Queue) -> None:
        """Poll and remove until the load ends."""
        options, now = self.options, self.fleet.reactor.seconds
        while not self._stopping:
            began = now()
            batch = await queue.poll(options.batch, lease_ms=STRESS_LEASE_MS, wait_ms=WAIT_MS)
            if not batch.items:
                continue
            self._observe("poll", began)
            self.counts["polls"] += len(batch.items)
            if self._ended is None:
                self.polled += 1
                self.polls_by_deadline[batch.deadline] += 1
            await self._check_own(queue, batch)
            await together(self._removes(queue, batch))

    def _removes(self, queue: Queue, batch: Batch) -> Iterator[Deferred[None]]:
        """Remove the items of *batch*, and extend every tenth lease."""
        if self._ended is None and not self.polled % EXTEND_EVERY:
            yield queue.extend(batch.lease, STRESS_LEASE_MS).addCallback(self._count, "extends")
        for item in batch.items:
            began = self.fleet.reactor.seconds()
            yield queue.remove(item.id, batch.lease).addCallback(self._removed, item.id, began)

    def _removed(self, did: bool, item_id: bytes, began: float) -> None:
        if did:
            self.added.discard(item_id)
        self._count(did, "removes", began)

    def _count(self, did: bool, what: str, began: float | None = None) -> None:
        self.counts[what if did else "refused"] += 1
        if began is not None:
            self._observe("remove", began)

    def _observe(self, call: str, began: float) -> None:
        """Record the latency of *call*, unless the load has ended."""
        if self._ended is None:
            self.latencies[call].observe(self.fleet.reactor.seconds() - began)

    async def _report(self) -> None:
        """Show progress until the load ends."""
        now, began = self.fleet.reactor.seconds, self._begun
        self.reporter.begin("stress", self.options.duration)
        reported, before = began, Counter[str]()
        while not self._stopping and now() < began + self.options.duration:
            self._check()
            await self.fleet.sleep(min(PROGRESS_SECONDS, began + self.options.duration - now()))
            self.reporter.at(now() - began)
            if now() - reported >= LINE_SECONDS:
                self.reporter.line(rates_line(now() - began, self.counts - before, now() - reported))
                reported, before = now(), self.counts.copy()

    def commit_sharing(self) -> dict[str, float]:
        """
        Return how many polls shared a commit, estimated from their leases.

        Leases of the same length that end in the same millisecond began in the
        same commit, or in two within that millisecond.
        """
        shared = sum(count for count in self.polls_by_deadline.values() if count > 1)
        return {
            "polls": self.polled,
            "commits": len(self.polls_by_deadline),
            "polls_per_commit": round(self.polled / len(self.polls_by_deadline), 2) if self.polls_by_deadline else 0.0,
            "shared": round(shared / self.polled, 4) if self.polled else 0.0,
        }


def rates_line(at: float, counts: Mapping[str, int], seconds: float) -> str:
    """Return the rates of the last *seconds* as one line."""
    rates = ", ".join(f"{counts[name] / seconds:,.0f} {name}/s" for name in RATES)
    return f"{at:5.0f} s: {rates}"
