"""
Stress: clients that add and clients that poll and remove, as fast as asked.

Each client has a connection of its own.  Pollers extend every tenth lease.
When the time is over nothing more is added or measured, and what is left is taken
out again through other connections, so that a queue that was empty before is empty after.
Only items that the load has added are removed: others are given back, and end it.
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
"""Adds, or polls, that one client has under way at once."""

DRAIN_CLIENTS, DRAIN_WINDOW, DRAIN_BATCH = 2, 4, 100
"""What takes out what is left: connections, polls under way on each, and items in each poll."""

EXTEND_EVERY = 10
LEASE_MS = 60_000
WAIT_MS = 500
DRAIN_SECONDS = 30.0
"""When nothing has come out for so long, what is left stays."""

TICK_SECONDS = 0.25
RATES = ("adds", "polls", "removes", "extends")


@frozen(kw_only=True)
class Plan:
    """What to do."""

    polling_clients: int
    adding_clients: int
    rate: float
    """Items in a second, of all clients together; 0 for as many as there can be."""

    duration: float
    """Seconds."""

    batch: int
    """Items in each add and poll."""

    size: int
    """Bytes in each item."""


@define
class Stress:
    """One run; what it counted can be read at any time."""

    fleet: Fleet
    plan: Plan
    teller: ProgressReporter
    counts: Counter[str] = field(factory=Counter)
    """Items added, polled and removed, leases extended, and what failed: to the end."""

    latencies: dict[str, Latency] = field(factory=lambda: {name: Latency() for name in ("add", "poll", "remove")})
    """Of the calls, until the load ended; a poll's from the question to the answer, waiting included."""

    cuts: Counter[int] = field(factory=Counter)
    """How many polls were given leases at each moment of the server's, until the load ended."""

    polled: int = 0
    """Polls that brought something, until then."""

    _added: set[bytes] = field(factory=set)
    """The ids of items that were added and not removed."""

    _adding: dict[Deferred[None], None] = field(factory=dict)
    """Adds under way, each fired when its ids are in `_added`."""

    _stopping: bool = False
    _begun: float = 0.0
    _ended: tuple[float, Counter[str]] | None = None
    """When the load had ended: its seconds, and what was counted in them."""

    _stirred: float = 0.0
    """When something was taken out last."""

    _failure: Failure | None = None

    async def run(self) -> "Stress":
        """
        Do it all.

        Raises:
            NotEmpty: the queue got an item that is not the load's.
            QueueberError: the first call that failed.
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
            self.teller.end()
        self._check()
        return self

    @property
    def seconds(self) -> float:
        """For how long the load has lasted, or did last."""
        now: float = self.fleet.reactor.seconds()
        return self._ended[0] if self._ended else now - self._begun

    @property
    def counted(self) -> Counter[str]:
        """What was counted in that time."""
        return self._ended[1] if self._ended else self.counts

    @property
    def left(self) -> int:
        """How many items that were added were not removed."""
        return max(0, self.counts["adds"] - self.counts["removes"])

    def _work(self, work: Coroutine[Deferred[Any], Any, None]) -> Deferred[None]:
        """Begin *work*; its failure is kept, and is the end of all."""
        return started(work).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self._failure = self._failure or failure
        self._end()

    def _end(self) -> None:
        """The load is over: nothing new is begun, and what it was like stays as it is."""
        self._stopping = True
        if self._ended is None:
            self._ended = self.seconds, self.counts.copy()

    def _check(self) -> None:
        if self._failure is not None:
            self._failure.raiseException()

    async def _drain(self) -> None:
        """Take out what is left, as long as something comes out."""
        total = self.left
        if not total:
            return
        self.teller.begin("taking out what is left", total, items=True)
        self._stirred = self.fleet.reactor.seconds()
        queues = self.fleet.more(DRAIN_CLIENTS)
        draining = started(together([self._take_out(queue) for queue in queues for _ in range(DRAIN_WINDOW)]))
        while not draining.called:
            await self.fleet.sleep(TICK_SECONDS)
            self.teller.at(total - self.left)
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
        Add until *until*, as line *number* of all that do.

        With a rate each has its turns, and one that is late catches up.
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
        """Whether the server took the add: if it has too much to do, that is counted, and some time given."""
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
        Give *batch* back if it has an item that this load has not added.

        Raises:
            NotEmpty: it has.
        """
        if not all(item.id in self._added for item in batch.items):
            # An item may come before the answer to its add.
            for each in list(self._adding):
                await each
        if not all(item.id in self._added for item in batch.items):
            await queue.extend(batch.lease, GIVE_BACK_MS)
            raise NotEmpty(f"the queue {self.fleet.queue} got an item that this load has not added; it is given back")

    async def _poll(self, queue: Queue) -> None:
        """Take and remove until it is over."""
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
        """Remove what was taken, and extend its lease now and then."""
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
        """*call* was answered; what is answered after the load has ended tells nothing about it."""
        if self._ended is None:
            self.latencies[call].observe(self.fleet.reactor.seconds() - began)

    async def _watch(self) -> None:
        """Tell how far it is, until nothing more is to be added."""
        now, began = self.fleet.reactor.seconds, self._begun
        self.teller.begin("stress", self.plan.duration)
        told, before = began, Counter[str]()
        while now() < began + self.plan.duration:
            self._check()
            await self.fleet.sleep(min(TICK_SECONDS, began + self.plan.duration - now()))
            self.teller.at(now() - began)
            if now() - told >= LINE_SECONDS:
                self.teller.line(line(now() - began, self.counts - before, now() - told))
                told, before = now(), self.counts.copy()

    def shared(self) -> dict[str, float]:
        """
        How many polls shared a commit, as far as their leases tell.

        Leases of the same length that end in the same millisecond began at the
        same cut, or at two within that millisecond.
        """
        together = sum(count for count in self.cuts.values() if count > 1)
        return {
            "polls": self.polled,
            "commits": len(self.cuts),
            "polls_per_commit": round(self.polled / len(self.cuts), 2) if self.cuts else 0.0,
            "shared": round(together / self.polled, 4) if self.polled else 0.0,
        }


def line(at: float, counts: Mapping[str, int], seconds: float) -> str:
    """What was done in the last *seconds*, in one line."""
    rates = ", ".join(f"{counts[name] / seconds:,.0f} {name}/s" for name in RATES)
    return f"{at:5.0f} s: {rates}"
