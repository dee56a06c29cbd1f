"""The fixed scenarios of ``queueber bench``, run through the client that programs use."""

from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from queueber.client import Queue
from queueber.loadgen.clients import Fleet, started, together
from queueber.loadgen.latency import Latency
from queueber.loadgen.progress import ProgressReporter

LEASE_MS = 600_000
PRELOAD_BATCH = 100
PRELOAD_PER_SECOND = 8_000
"""Items to preload for each second, more than this client can take.  A trial without items left ends early."""

TICK_SECONDS = 0.25
OVERHEAD_SHARE = 1.0
"""Estimated time to fill and empty a queue, as a part of the measurement, until a trial is finished."""


@frozen
class Scenario:
    """One scenario."""

    name: str
    adding: int
    """Connections that add."""

    taking: int
    """Connections that poll, and remove each item."""

    window: int
    """Adds, or polls with their removes, in flight on each connection."""

    items: int
    """Items in each add and poll."""

    size: int = 64


TRIALS = (
    Scenario("add, one at a time", 1, 0, 1, 1),
    Scenario("add, 4 x 64 at once", 4, 0, 64, 1),
    Scenario("add, 4 x 4 of 100 items", 4, 0, 4, 100),
    Scenario("add, 4 x 4 of 64 KiB", 4, 0, 4, 1, 65_536),
    Scenario("take 10, remove each", 0, 4, 16, 10),
    Scenario("add and take at once", 2, 2, 16, 1),
)


@define
class Result:
    """The result of a trial."""

    trial: Scenario
    items: int = 0
    """Items added, or removed in trials that take."""

    seconds: float = 0.0
    latency: Latency = field(factory=Latency)
    """Latency of adds, or of polls and removes."""

    @property
    def rate(self) -> float:
        """Return items per second."""
        return self.items / self.seconds if self.seconds else 0.0


@define
class Bench:
    """Run all trials, one after the other, each in a queue of its own."""

    fleet: Fleet
    seconds: float
    """Duration of each trial."""

    reporter: ProgressReporter
    name: str
    """Prefix of the queues' names."""

    results: list[Result] = field(factory=list)
    """Results of the finished trials."""

    _until: float = 0.0
    _began: float = 0.0
    _finished: float = 0.0
    """Seconds that the finished trials took."""

    async def run(self) -> list[Result]:
        """
        Run all trials.

        Raises:
            QueueberError: the error of the first failed call.
        """
        now = self.fleet.reactor.seconds
        self._began = now()
        self.reporter.begin("bench", self.expected())
        ticking = started(self._tick())
        try:
            for number, trial in enumerate(TRIALS):
                fleet = Fleet(self.fleet.reactor, self.fleet.connect, f"{self.name}-{number}", self.fleet.clients)
                self.results.append(await self._try(fleet, trial))
                self._finished = now() - self._began
        finally:
            ticking.addErrback(lambda _: None).cancel()
            self.reporter.end()
        return self.results

    def expected(self) -> float:
        """Estimate the seconds of all trials from the average of the finished ones."""
        finished = len(self.results)
        elapsed: float = self.fleet.reactor.seconds() - self._began
        each = self._finished / finished if finished else self.seconds * (1 + OVERHEAD_SHARE)
        to_come = max(0, len(TRIALS) - finished - 1)
        return max(self._finished + each * (len(TRIALS) - finished), elapsed + self.seconds * to_come)

    async def _tick(self) -> None:
        while True:
            await self.fleet.sleep(TICK_SECONDS)
            self.reporter.at(self.fleet.reactor.seconds() - self._began, self.expected())

    async def _try(self, fleet: Fleet, trial: Scenario) -> Result:
        now = fleet.reactor.seconds
        adding, taking = fleet.more(trial.adding), fleet.more(trial.taking)
        result = Result(trial)
        if not adding:
            await self._fill(taking, int(PRELOAD_PER_SECOND * self.seconds))
        began = now()
        self._until = began + self.seconds
        await together(
            [started(self._add(queue, result)) for queue in adding for _ in range(trial.window)]
            + [started(self._take(queue, result)) for queue in taking for _ in range(trial.window)],
        )
        result.seconds = now() - began
        await self._empty(adding or taking)
        return result

    async def _fill(self, queues: list[Queue], count: int) -> None:
        async def fill(queue: Queue) -> None:
            for _ in range(count // PRELOAD_BATCH // len(queues)):
                await queue.add(*[bytes(64)] * PRELOAD_BATCH)

        await together([started(fill(queue)) for queue in queues])

    async def _empty(self, queues: list[Queue]) -> None:
        """Remove all items."""

        async def empty(queue: Queue) -> None:
            while (batch := await queue.poll(1_000, lease_ms=LEASE_MS, wait_ms=0)).items:
                await together([queue.remove(item.id, batch.lease) for item in batch.items])

        await together([started(empty(queue)) for queue in queues])

    async def _add(self, queue: Queue, result: Result) -> None:
        contents = [bytes(result.trial.size)] * result.trial.items
        while self.fleet.reactor.seconds() < self._until:
            await self._timed(result, queue.add(*contents))
            if not result.trial.taking:
                result.items += len(contents)

    async def _take(self, queue: Queue, result: Result) -> None:
        alone = not result.trial.adding
        while self.fleet.reactor.seconds() < self._until:
            polled = queue.poll(result.trial.items, lease_ms=LEASE_MS, wait_ms=0 if alone else 100)
            batch = await self._timed(result, polled)
            if alone and not batch.items:
                return
            removes = [self._timed(result, queue.remove(item.id, batch.lease)) for item in batch.items]
            did = await together([started(each) for each in removes])
            # A separate statement, because other tasks change the count during the await.
            result.items += sum(did)

    async def _timed(self, result: Result, call: Deferred[Any]) -> Any:  # noqa: ANN401
        began = self.fleet.reactor.seconds()
        answer = await call
        result.latency.observe(self.fleet.reactor.seconds() - began)
        return answer
