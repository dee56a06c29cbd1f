"""
A simulated shop: producers, and thousands of workers that take their time, extend, and let leases lapse.

All are in one process and share connections.  When the time is over nobody takes
anything new; then all that is left is looked for, at once and again when the
last lease has ended, and every task has to be accounted for.
"""

from collections.abc import Callable, Coroutine
from itertools import count
from random import Random
from typing import Any, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from queueber.client import GIVE_BACK_MS, Batch, OutcomeUnknown, Queue
from queueber.client.blocking import NoAnswer
from queueber.errors import Kind, QueueberError
from queueber.loadgen.clients import CALLS_MAX, Fleet, started, together
from queueber.loadgen.latency import Latency
from queueber.loadgen.ledger import Ledger
from queueber.loadgen.progress import LINE_SECONDS, ProgressReporter
from queueber.units import MS_PER_SECOND, SpanMs, counted

T = TypeVar("T")

TICK_SECONDS = 0.25
BUSY_SECONDS = 0.5
"""How long to leave a server alone that has too much to do."""

ADD_ITEMS_MAX = 100
COUNT_ITEMS = 500
"""Items in a poll that looks for what is left."""

SPARE_SECONDS = 2.0
"""Added to the length of a lease, a server may take so much longer to give its items back."""

COUNT_LEASE_MS = SpanMs(600_000)

MISSED_SECONDS = 2.0
"""Once the shop has closed, a server that leaves a call unanswered for so long is told to be waited for."""

AWAY_SECONDS = 20.0
"""And after so long it is given up."""


@frozen(kw_only=True)
class Plan:
    """What the shop is like; times in seconds."""

    workers: int
    tasks_per_worker: int
    """In each poll, at most."""

    producers: int
    production_rate: float
    """Tasks in a second, of all producers together."""

    min_exec: float
    max_exec: float
    """Each task takes a time between these."""

    extend_prob: float
    """How many workers extend their lease before each task."""

    expiry_prob: float
    """How many forget what they have taken, and let its lease lapse."""

    duration: float
    lease: SpanMs
    seed: int


@define
class Simulation:
    """One simulation; what it counted can be read at any time."""

    fleet: Fleet
    plan: Plan
    teller: ProgressReporter
    mark: str = ""
    """What the names of its tasks begin with, so that they are nobody else's items."""

    ledger: Ledger = field(factory=Ledger)
    latencies: dict[str, Latency] = field(factory=lambda: {name: Latency() for name in ("add", "remove")})
    account: dict[str, int] = field(factory=dict)
    """What came of it all, once it is over."""

    _random: Random = field(init=False)
    _closing: bool = False
    _closes: float = 0.0
    """When it closes, or did."""

    _unanswered: dict[Deferred[Any], float] = field(factory=dict)
    """Calls, polls of workers aside, and when they were made: the oldest first."""

    _polls: dict[Deferred[Batch], None] = field(factory=dict)
    _foreign: list[bytes] = field(factory=list)
    """Leases of items that are no tasks, which were found at the end."""

    _failure: Failure | None = None

    def __attrs_post_init__(self) -> None:
        """Everything that is left to chance follows from the seed."""
        self._random = Random(self.plan.seed)  # noqa: S311  (no secrets here)

    async def run(self) -> "Simulation":
        """
        Do it all.

        Raises:
            NoAnswer: the shop had closed, and the server was silent for too long: the account stays empty.
            QueueberError: the server refused something that it should not.
        """
        plan = self.plan
        self._closes = self.fleet.reactor.seconds() + plan.duration
        queues = self.fleet.more(-(-(plan.workers + plan.producers) // CALLS_MAX))
        names = count()
        working = [self._job(self._worker(queues[index % len(queues)])) for index in range(plan.workers)]
        producing = [
            self._job(self._producer(queues[index % len(queues)], index, names)) for index in range(plan.producers)
        ]
        try:
            await self._open()
            longest = plan.max_exec * plan.tasks_per_worker
            await self._patiently("letting workers finish", longest, self._finish(producing, working))
            self._check()
            await self._count(queues[0])
        finally:
            self._closing = True
            self.teller.end()
        return self

    def _job(self, job: Coroutine[Deferred[Any], Any, None]) -> Deferred[None]:
        return started(job).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self._failure = self._failure or failure

    def _check(self) -> None:
        if self._failure is not None:
            self._failure.raiseException()

    async def _open(self) -> None:
        """Watch for as long as the shop is open."""
        now = self.fleet.reactor.seconds
        began = told = now()
        before = self.ledger.counts.copy()
        self.teller.begin("simulate", self.plan.duration)
        while (left := self._closes - now()) > 0:
            self._check()
            await self.fleet.sleep(min(TICK_SECONDS, left))
            self.teller.at(now() - began)
            if now() - told >= LINE_SECONDS:
                done, before = self.ledger.counts - before, self.ledger.counts.copy()
                rates = (f"{done[name] / (now() - told):,.0f} {name}/s" for name in ("produced", "taken", "removed"))
                busy = self.plan.workers - len(self._polls)
                self.teller.line(f"{now() - began:5.0f} s: {', '.join(rates)}, {counted(busy, 'worker')} busy")
                told = now()
        self._closing = True
        self._check()

    async def _finish(self, producing: list[Deferred[None]], working: list[Deferred[None]]) -> None:
        """Wait for all, none of whom begins anything new."""
        await together(producing)
        for poll in list(self._polls):
            poll.cancel()
        await together(working)

    async def _patiently(
        self,
        what: str,
        total: float,
        work: Coroutine[Deferred[Any], Any, T],
        done: Callable[[], float] | None = None,
    ) -> T:
        """
        The result of *work*, which takes about *total* seconds, or is about so many items, of which *done* are.

        Raises:
            NoAnswer: the server left a call of it unanswered for too long.
        """
        now = self.fleet.reactor.seconds
        began, missed = now(), False
        self.teller.begin(what, total, items=done is not None)
        job = started(work)
        while not job.called:
            await self.fleet.sleep(TICK_SECONDS)
            silence = self._silence()
            if silence >= AWAY_SECONDS:
                job.addErrback(lambda _: None).cancel()
                raise NoAnswer(f"the server has not answered for {silence:.0f} s: the account cannot be closed")
            if (silence >= MISSED_SECONDS) != missed:
                missed = not missed
                if missed:
                    self._tell_of_waiting()
                else:
                    self.teller.begin(what, total, items=done is not None)
            self.teller.at(silence if missed else min(total, done() if done else now() - began))
        return await job

    def _tell_of_waiting(self) -> None:
        self.teller.begin("waiting for the server", AWAY_SECONDS)
        self.teller.line(f"waiting for the server, for {AWAY_SECONDS:.0f} s at most: it does not answer")

    def _ask(self, call: Deferred[T]) -> Deferred[T]:
        """*call*, which counts as unanswered until it is."""
        self._unanswered[call] = self.fleet.reactor.seconds()

        def answered(result: T) -> T:
            self._unanswered.pop(call, None)
            return result

        return call.addBoth(answered)

    def _silence(self) -> float:
        """For how long the oldest call has waited for its answer since the shop closed."""
        now: float = self.fleet.reactor.seconds()
        return now - max(self._closes, next(iter(self._unanswered.values()), now))

    async def _producer(self, queue: Queue, index: int, names: Any) -> None:  # noqa: ANN401
        """Add tasks at an even rate until the shop closes."""
        plan, now, ledger = self.plan, self.fleet.reactor.seconds, self.ledger
        rate = plan.production_rate / plan.producers
        # A few at a time, if it has to be fast.
        batch = min(ADD_ITEMS_MAX, max(1, int(rate / 20)))
        turn = now() + batch / rate * index / plan.producers
        while True:
            # The next turn may be long after closing time.
            await self.fleet.sleep(min(turn, self._closes) - now())
            if self._closing or turn >= self._closes:
                return
            turn += batch / rate
            tasks = [f"{self.mark}{next(names)}".encode() for _ in range(batch)]
            for task in tasks:
                ledger.asked(task)
            began = now()
            try:
                await self._ask(queue.add(*tasks))
            except OutcomeUnknown:
                ledger.counts["adds unknown"] += batch
                continue
            except QueueberError as why:
                for task in tasks:
                    ledger.refused(task)
                if why.kind not in {Kind.OVERLOADED, Kind.DISCONNECTED}:
                    raise
                await self.fleet.sleep(BUSY_SECONDS)
                continue
            self.latencies["add"].observe(now() - began)
            for task in tasks:
                ledger.produced(task)

    async def _worker(self, queue: Queue) -> None:
        """Take tasks and work on them until the shop closes."""
        while not self._closing:
            poll = queue.poll(self.plan.tasks_per_worker, lease_ms=self.plan.lease)
            self._polls[poll] = None
            try:
                batch = await poll
            except CancelledError:
                return
            except QueueberError as why:
                if why.kind not in {Kind.OVERLOADED, Kind.DISCONNECTED}:
                    raise
                await self.fleet.sleep(BUSY_SECONDS)
                continue
            finally:
                self._polls.pop(poll, None)
            for item in batch.items:
                self.ledger.taken(item.contents, batch.deadline, self.plan.lease)
            await self._work(queue, batch)

    async def _work(self, queue: Queue, batch: Batch) -> None:
        plan, chance = self.plan, self._random
        if chance.random() < plan.expiry_prob:
            self.ledger.counts["forgotten"] += len(batch.items)
            return
        for item in batch.items:
            if item.contents not in self.ledger:
                continue  # somebody else's: it goes back when the lease ends
            if chance.random() < plan.extend_prob:
                with_lease = await self._told(queue.extend(batch.lease, plan.lease))
                self.ledger.counts["extended" if with_lease else "extended too late"] += 1
            await self.fleet.sleep(chance.uniform(plan.min_exec, plan.max_exec))
            began = self.fleet.reactor.seconds()
            self.ledger.removing(item.contents)
            did = await self._told(queue.remove(item.id, batch.lease))
            if did is not None:
                self.latencies["remove"].observe(self.fleet.reactor.seconds() - began)
                self.ledger.removed(item.contents, did)

    async def _told(self, call: Deferred[bool]) -> bool | None:
        """What *call* was answered, False if it was not taken; None if it may have taken effect."""
        try:
            return await self._ask(call)
        except OutcomeUnknown:
            return None
        except QueueberError as why:
            if why.kind not in {Kind.OVERLOADED, Kind.DISCONNECTED}:
                raise
            return False

    async def _count(self, queue: Queue) -> None:
        """Look for all that is left, remove the tasks among it, and give back the rest."""
        now, patience = self.fleet.reactor.seconds, self.plan.lease / MS_PER_SECOND + SPARE_SECONDS
        await self._find_all(queue)
        waiting = self.ledger.counts["found"]
        began = now()
        self.teller.begin("waiting for the last leases to end", patience)
        while now() < began + patience:
            await self.fleet.sleep(TICK_SECONDS)
            self.teller.at(now() - began)
        await self._find_all(queue)
        # Held until now, so that they are found once.
        await together([self._ask(queue.extend(lease, GIVE_BACK_MS)) for lease in self._foreign])
        self.account = self.ledger.close(waiting)

    async def _find_all(self, queue: Queue) -> None:
        """Find what is ready, and tell how far that is of what has to be somewhere."""
        counts = self.ledger.counts
        before = counts["found"]
        there = max(0, counts["produced"] - counts["removed"] - before)
        await self._patiently("counting what is left", there, self._find(queue), lambda: counts["found"] - before)

    async def _find(self, queue: Queue) -> None:
        """Find all that is ready, and remove the tasks among it."""
        found = 0
        # A server that finds more than there can be would do so for ever.
        while found <= len(self.ledger):
            batch = await self._ask(queue.poll(COUNT_ITEMS, lease_ms=COUNT_LEASE_MS, wait_ms=0))
            if not batch.items:
                return
            found += len(batch.items)
            own = [item for item in batch.items if item.contents in self.ledger]
            for item in batch.items:
                self.ledger.found(item.contents)
            await together([self._ask(queue.remove(item.id, batch.lease)) for item in own])
            if len(own) < len(batch.items):
                self._foreign.append(batch.lease)
