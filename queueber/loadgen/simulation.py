"""
A simulation of producers, and of thousands of workers that take their time, extend leases and let some expire.

All are in one process and share connections.  When the time is over, workers
take no new tasks.  Then the remaining tasks are counted, at once and again after
the last lease has ended, and every task has to be accounted for.
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
from queueber.loadgen.clients import (
    BUSY_SECONDS,
    CALLS_MAX,
    LINE_SECONDS,
    PROGRESS_SECONDS,
    Fleet,
    ProgressReporter,
    started,
    together,
)
from queueber.loadgen.ledger import Ledger
from queueber.loadgen.results import Latency
from queueber.units import MS_PER_SECOND, SpanMs, counted

T = TypeVar("T")

ADD_ITEMS_MAX = 100
COUNT_ITEMS = 500
"""Items in a poll of the final count."""

SPARE_SECONDS = 2.0
"""Time that a server may need to return the items of an expired lease."""

COUNT_LEASE_MS = SpanMs(600_000)

SILENCE_SECONDS_SHOWN = 2.0
"""Silence of the server after the end of production after which the display says that it does not answer."""

SILENCE_SECONDS_MAX = 20.0
"""Silence of the server after which the simulation gives up."""


@frozen(kw_only=True)
class SimulationOptions:
    """The parameters of a simulation; times in seconds."""

    workers: int
    tasks_per_worker: int
    """Most tasks in a poll."""

    producers: int
    production_rate: float
    """Tasks per second of all producers together."""

    min_exec: float
    max_exec: float
    """Upper bound of the time for a task; *min_exec* is the lower."""

    extend_prob: float
    """Probability that a worker extends its lease before a task."""

    expiry_prob: float
    """Probability that a worker lets the lease of a poll expire."""

    duration: float
    lease: SpanMs
    seed: int


@define
class Simulation:
    """One simulation.  Its counts can be read at any time."""

    fleet: Fleet
    options: SimulationOptions
    reporter: ProgressReporter
    mark: str = ""
    """Prefix of the tasks' names, which distinguishes them from other items."""

    ledger: Ledger = field(factory=Ledger)
    latencies: dict[str, Latency] = field(factory=lambda: {name: Latency() for name in ("add", "remove")})
    account: dict[str, int] = field(factory=dict)
    """The account, once the simulation is complete."""

    _random: Random = field(init=False)
    _ended: bool = False
    """Producers add no more, and workers take no more tasks."""

    _ends: float = 0.0
    """When production is to end."""

    _unanswered: dict[Deferred[Any], float] = field(factory=dict)
    """Calls without an answer and their start times, the oldest first.  Without the workers' polls."""

    _polls: dict[Deferred[Any], None] = field(factory=dict)
    _leases: dict[bytes, float] = field(factory=dict)
    """Leases of workers that may not have ended, and when they were received; the oldest first."""

    _stopped: bool = False
    _foreign: list[bytes] = field(factory=list)
    """Leases of foreign items that the final count found."""

    _failure: Failure | None = None

    def __attrs_post_init__(self) -> None:
        """Seed the random numbers."""
        self._random = Random(self.options.seed)  # noqa: S311  (no secrets here)

    async def run(self) -> "Simulation":
        """
        Run the simulation.

        Raises:
            NoAnswer: the server was silent for too long after the end of production; the account stays empty.
            QueueberError: the server refused a call without a cause.
        """
        options = self.options
        self._ends = self.fleet.reactor.seconds() + options.duration
        queues = self.fleet.more(-(-(options.workers + options.producers) // CALLS_MAX))
        names = count()
        working = [self._job(self._worker(queues[index % len(queues)])) for index in range(options.workers)]
        producing = [
            self._job(self._producer(queues[index % len(queues)], index, names)) for index in range(options.producers)
        ]
        try:
            await self._report_until_end()
            if self._stopped:
                await self._remove_all(queues[0], [*producing, *working])
                return self
            longest = options.max_exec * options.tasks_per_worker
            await self._with_progress("letting workers finish", longest, self._finish(producing, working))
            self._check()
            await self._count(queues[0])
        finally:
            self._ended = True
            self.reporter.end()
        return self

    def stop(self) -> None:
        """End the simulation now without an account, and remove its tasks.  `run` returns after that."""
        self._stopped = True
        self._ends = min(self._ends, self.fleet.reactor.seconds())

    async def _remove_all(self, queue: Queue, jobs: list[Deferred[None]]) -> None:
        """End *jobs* and their leases, and remove all tasks."""
        for job in jobs:
            job.cancel()
        await together([self._track(queue.extend(lease, GIVE_BACK_MS)) for lease in self._leases])
        # Twice, because the server needs a moment to return the items of a lease.
        for _ in range(2):
            await self.fleet.sleep(PROGRESS_SECONDS)
            await self._find_all(queue)
        await self._give_back_foreign(queue)

    async def _give_back_foreign(self, queue: Queue) -> None:
        await together([self._track(queue.extend(lease, GIVE_BACK_MS)) for lease in self._foreign])

    def _job(self, job: Coroutine[Deferred[Any], Any, None]) -> Deferred[None]:
        return started(job).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self._failure = self._failure or failure

    def _check(self) -> None:
        if self._failure is not None:
            self._failure.raiseException()

    async def _report_until_end(self) -> None:
        """Show progress until production ends."""
        now = self.fleet.reactor.seconds
        began = reported = now()
        before = self.ledger.counts.copy()
        self.reporter.begin("simulate", self.options.duration)
        while (left := self._ends - now()) > 0:
            self._check()
            await self.fleet.sleep(min(PROGRESS_SECONDS, left))
            self.reporter.at(now() - began)
            if now() - reported >= LINE_SECONDS:
                done, before = self.ledger.counts - before, self.ledger.counts.copy()
                rates = (
                    f"{done[name] / (now() - reported):,.0f} {name}/s" for name in ("produced", "taken", "removed")
                )
                busy = self.options.workers - len(self._polls)
                self.reporter.line(f"{now() - began:5.0f} s: {', '.join(rates)}, {counted(busy, 'worker')} busy")
                reported = now()
        self._ended = True
        self._check()

    async def _finish(self, producing: list[Deferred[None]], working: list[Deferred[None]]) -> None:
        """Wait for producers and workers to finish their current work."""
        await together(producing)
        for poll in list(self._polls):
            poll.cancel()
        await together(working)

    async def _with_progress(
        self,
        what: str,
        total: float,
        work: Coroutine[Deferred[Any], Any, T],
        done: Callable[[], float] | None = None,
    ) -> T:
        """
        Return the result of *work*, of about *total* seconds, or of *total* items if *done* returns those complete.

        Raises:
            NoAnswer: the server left a call unanswered for too long.
        """
        now = self.fleet.reactor.seconds
        began, silent = now(), False
        self.reporter.begin(what, total, items=done is not None)
        job = started(work)
        while not job.called:
            await self.fleet.sleep(PROGRESS_SECONDS)
            silence = self._silence()
            if silence >= SILENCE_SECONDS_MAX:
                job.addErrback(lambda _: None).cancel()
                raise NoAnswer(f"the server has not answered for {silence:.0f} s: the account cannot be closed")
            if (silence >= SILENCE_SECONDS_SHOWN) != silent:
                silent = not silent
                if silent:
                    self._show_waiting()
                else:
                    self.reporter.begin(what, total, items=done is not None)
            self.reporter.at(silence if silent else min(total, done() if done else now() - began))
        return await job

    def _show_waiting(self) -> None:
        self.reporter.begin("waiting for the server", SILENCE_SECONDS_MAX)
        self.reporter.line(f"waiting for the server, for {SILENCE_SECONDS_MAX:.0f} s at most: it does not answer")

    def _track(self, call: Deferred[T]) -> Deferred[T]:
        """Count *call* as unanswered until it has an answer, and return it."""
        self._unanswered[call] = self.fleet.reactor.seconds()

        def answered(result: T) -> T:
            self._unanswered.pop(call, None)
            return result

        return call.addBoth(answered)

    def _silence(self) -> float:
        """Return the seconds since the end of production that the oldest unanswered call has waited."""
        now: float = self.fleet.reactor.seconds()
        return now - max(self._ends, next(iter(self._unanswered.values()), now))

    async def _producer(self, queue: Queue, index: int, names: Any) -> None:  # noqa: ANN401
        """Add tasks at an even rate until production ends."""
        options, now, ledger = self.options, self.fleet.reactor.seconds, self.ledger
        rate = options.production_rate / options.producers
        # At a high rate, several tasks in one add.
        batch = min(ADD_ITEMS_MAX, max(1, int(rate / 20)))
        due = now() + batch / rate * index / options.producers
        while True:
            # The next add may be due long after the end of production.
            await self.fleet.sleep(min(due, self._ends) - now())
            if self._ended or due >= self._ends:
                return
            due += batch / rate
            tasks = [f"{self.mark}{next(names)}".encode() for _ in range(batch)]
            for task in tasks:
                ledger.asked(task)
            began = now()
            try:
                await self._track(queue.add(*tasks))
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
        """Take tasks and work on them until production ends."""
        while not self._ended:
            poll = queue.poll(self.options.tasks_per_worker, lease_ms=self.options.lease)
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
            self._remember(batch.lease)
            for item in batch.items:
                self.ledger.taken(item.contents, batch.deadline, self.options.lease)
            await self._work(queue, batch)

    def _remember(self, lease: bytes) -> None:
        """Note a new lease, and forget those that have ended even if each of their items was extended."""
        now, options = self.fleet.reactor.seconds(), self.options
        longest = options.tasks_per_worker * options.max_exec + 2 * options.lease / MS_PER_SECOND
        while self._leases and next(iter(self._leases.values())) + longest < now:
            del self._leases[next(iter(self._leases))]
        self._leases[lease] = now

    async def _work(self, queue: Queue, batch: Batch) -> None:
        options, chance = self.options, self._random
        if chance.random() < options.expiry_prob:
            self.ledger.counts["forgotten"] += len(batch.items)
            return
        for item in batch.items:
            if item.contents not in self.ledger:
                continue  # a foreign item, which goes back when the lease ends
            if chance.random() < options.extend_prob:
                extended = await self._answer_of(queue.extend(batch.lease, options.lease))
                self.ledger.counts["extended" if extended else "extended too late"] += 1
            await self.fleet.sleep(chance.uniform(options.min_exec, options.max_exec))
            began = self.fleet.reactor.seconds()
            self.ledger.removing(item.contents)
            did = await self._answer_of(queue.remove(item.id, batch.lease))
            if did is not None:
                self.latencies["remove"].observe(self.fleet.reactor.seconds() - began)
                self.ledger.removed(item.contents, did)

    async def _answer_of(self, call: Deferred[bool]) -> bool | None:
        """Return the answer to *call*, False if it was refused, or None if it may have taken effect."""
        try:
            return await self._track(call)
        except OutcomeUnknown:
            return None
        except QueueberError as why:
            if why.kind not in {Kind.OVERLOADED, Kind.DISCONNECTED}:
                raise
            return False

    async def _count(self, queue: Queue) -> None:
        """Count the remaining items, remove the tasks among them, and return the others."""
        now, wait = self.fleet.reactor.seconds, self.options.lease / MS_PER_SECOND + SPARE_SECONDS
        await self._find_all(queue)
        waiting = self.ledger.counts["found"]
        began = now()
        self.reporter.begin("waiting for the last leases to end", wait)
        while now() < began + wait:
            await self.fleet.sleep(PROGRESS_SECONDS)
            self.reporter.at(now() - began)
        await self._find_all(queue)
        # Leased until now, so that each is found once.
        await self._give_back_foreign(queue)
        self.account = self.ledger.close(waiting)

    async def _find_all(self, queue: Queue) -> None:
        """Find the ready items, and show progress towards the expected number."""
        counts = self.ledger.counts
        before = counts["found"]
        expected = max(0, counts["produced"] - counts["removed"] - before)
        await self._with_progress(
            "counting the remaining tasks", expected, self._find(queue), lambda: counts["found"] - before
        )

    async def _find(self, queue: Queue) -> None:
        """Find all ready items, and remove the tasks among them."""
        found = 0
        # Bounded, because a faulty server could deliver items for ever.
        while found <= len(self.ledger):
            batch = await self._track(queue.poll(COUNT_ITEMS, lease_ms=COUNT_LEASE_MS, wait_ms=0))
            if not batch.items:
                return
            found += len(batch.items)
            own = [item for item in batch.items if item.contents in self.ledger]
            for item in batch.items:
                self.ledger.found(item.contents)
            await together([self._track(queue.remove(item.id, batch.lease)) for item in own])
            if len(own) < len(batch.items):
                self._foreign.append(batch.lease)
