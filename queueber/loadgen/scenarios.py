"""The fixed scenarios of ``queueber bench``, run through the client that programs use."""

from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from queueber.client import Queue
from queueber.loadgen.clients import PROGRESS_SECONDS, Fleet, ProgressReporter, started, together
from queueber.loadgen.results import Latency

BENCH_LEASE_MS = 600_000
PRELOAD_BATCH = 100
PRELOAD_PER_SECOND = 8_000
"""Items to preload for each second, more than this client can take.  A scenario without items left ends early."""

OVERHEAD_SHARE = 1.0
"""Estimated time to fill and empty a queue, as a part of the measurement, until a scenario is finished."""


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


SCENARIOS = (
    Scenario("add, one at a time", 1, 0, 1, 1),
    Scenario("add, 4 x 64 at once", 4, 0, 64, 1),
    Scenario("add, 4 x 4 of 100 items", 4, 0, 4, 100),
    Scenario("add, 4 x 4 of 64 KiB", 4, 0, 4, 1, 65_536),
    Scenario("take 10, remove each", 0, 4, 16, 10),
    Scenario("add and take at once", 2, 2, 16, 1),
)


@define
class ScenarioResult:
    """The result of one scenario."""

    scenario: Scenario
    items: int = 0
    """Items added, or removed in scenarios that take."""

    seconds: float = 0.0
    latency: Latency = field(factory=Latency)
    """Latency of adds, or of polls and removes."""

    @property
    def rate(self) -> float:
        """Return items per second."""
        return self.items / self.seconds if self.seconds else 0.0


@define
class Bench:
    """Run all scenarios, one after the other, each in a queue of its own."""

    fleet: Fleet
    seconds: float
    """Duration of each scenario."""

    reporter: ProgressReporter
    name: str
    """Prefix of the queues' names."""

    results: list[ScenarioResult] = field(factory=list)
    """Results of the finished scenarios."""

    queue_in_use: str | None = None
    """The queue of the scenario under way, which may hold items."""

    _stopped: bool = False
    _until: float = 0.0
    _began: float = 0.0
    _finished: float = 0.0
    """Seconds that the finished scenarios took."""

    async def run(self) -> list[ScenarioResult]:
        """
        Run all scenarios.

        Raises:
            QueueberError: the error of the first failed call.
        """
        now = self.fleet.reactor.seconds
        self._began = now()
        self.reporter.begin("bench", self.estimated())
        ticks = started(self._tick())
        try:
            for number, scenario in enumerate(SCENARIOS):
                self.queue_in_use = f"{self.name}-{number}"
                fleet = Fleet(self.fleet.reactor, self.fleet.connect, self.queue_in_use, self.fleet.clients)
                result = await self._measure(fleet, scenario)
                self.queue_in_use = None
                if self._stopped:
                    break
                self.results.append(result)
                self._finished = now() - self._began
        finally:
            ticks.addErrback(lambda _: None).cancel()
            self.reporter.end()
        return self.results

    def stop(self) -> None:
        """End the scenario under way without a result, and empty its queue.  `run` returns after that."""
        self._stopped = True

    def _measuring(self) -> bool:
        return not self._stopped and self.fleet.reactor.seconds() < self._until

    def estimated(self) -> float:
        """Estimate the seconds of all scenarios from the average of the finished ones."""
        finished = len(self.results)
        elapsed: float = self.fleet.reactor.seconds() - self._began
        each = self._finished / finished if finished else self.seconds * (1 + OVERHEAD_SHARE)
        to_come = max(0, len(SCENARIOS) - finished - 1)
        return max(self._finished + each * (len(SCENARIOS) - finished), elapsed + self.seconds * to_come)

    async def _tick(self) -> None:
        while True:
            await self.fleet.sleep(PROGRESS_SECONDS)
            self.reporter.at(self.fleet.reactor.seconds() - self._began, self.estimated())

    async def _measure(self, fleet: Fleet, scenario: Scenario) -> ScenarioResult:
        now = fleet.reactor.seconds
        adding, taking = fleet.more(scenario.adding), fleet.more(scenario.taking)
        result = ScenarioResult(scenario)
        if not adding:
            await self._fill(taking, int(PRELOAD_PER_SECOND * self.seconds))
        began = now()
        self._until = began + self.seconds
        await together(
            [started(self._add(queue, result)) for queue in adding for _ in range(scenario.window)]
            + [started(self._take(queue, result)) for queue in taking for _ in range(scenario.window)],
        )
        result.seconds = now() - began
        await self._empty(adding or taking)
        return result

    async def _fill(self, queues: list[Queue], count: int) -> None:
        async def fill(queue: Queue) -> None:
            for _ in range(count // PRELOAD_BATCH // len(queues)):
                if self._stopped:
                    return
                await queue.add(*[bytes(64)] * PRELOAD_BATCH)

        await together([started(fill(queue)) for queue in queues])

    async def _empty(self, queues: list[Queue]) -> None:
        """Remove all items."""

        async def empty(queue: Queue) -> None:
            while (batch := await queue.poll(1_000, lease_ms=BENCH_LEASE_MS, wait_ms=0)).items:
                await together([queue.remove(item.id, batch.lease) for item in batch.items])

        await together([started(empty(queue)) for queue in queues])

    async def _add(self, queue: Queue, result: ScenarioResult) -> None:
        contents = [bytes(result.scenario.size)] * result.scenario.items
        while self._measuring():
            await self._timed(result, queue.add(*contents))
            if not result.scenario.taking:
                result.items += len(contents)

    async def _take(self, queue: Queue, result: ScenarioResult) -> None:
        alone = not result.scenario.adding
        while self._measuring():
            polled = queue.poll(result.scenario.items, lease_ms=BENCH_LEASE_MS, wait_ms=0 if alone else 100)
            batch = await self._timed(result, polled)
            if alone and not batch.items:
                return
            removes = [self._timed(result, queue.remove(item.id, batch.lease)) for item in batch.items]
            did = await together([started(each) for each in removes])
            # A separate statement, because other tasks change the count during the await.
            result.items += sum(did)

    async def _timed(self, result: ScenarioResult, call: Deferred[Any]) -> Any:  # noqa: ANN401
        began = self.fleet.reactor.seconds()
        answer = await call
        result.latency.observe(self.fleet.reactor.seconds() - began)
        return answer
