"""
Adding the firings of periodic tasks: a `Schedule` with a clock and a connection.

One loop serves threads, asyncio and Twisted.  The means to add and to wait are
its argument: a `_Face` of each.  The one of threads blocks in its coroutines,
so they end at their first step.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from queueber.errors import Kind, QueueberError
from queueber.process import enable_loggers
from queueber.tasks.connections import AppConnections
from queueber.tasks.firings import RETRY_MS, Firing, Schedule, check_window
from queueber.tasks.task import ToAdd
from queueber.units import MS_PER_SECOND, SpanMs, WallMs

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from queueber.api.control_types import SettingsInForce

ADD_TIMEOUT_MS: Final = 10_000
"""The limit of one add, so that the absence of the server is logged.  The add is tried again."""

LEAVE_SECONDS: Final = 2.0
"""The time that the thread of a scheduler has to end."""

PASSING: Final = (Kind.DISCONNECTED, Kind.OVERLOADED)
"""Kinds of errors after which a call is tried again."""

_log = logging.getLogger("queueber.tasks")

ClockSeconds = Callable[[], float]
"""Returns seconds since the Unix epoch."""


def system_clock() -> float:
    """Return the seconds since the Unix epoch by the system's clock."""
    return datetime.now(UTC).timestamp()


class _Face(Protocol):
    async def add(self, call: ToAdd) -> object: ...

    async def settings(self, queue: str) -> SettingsInForce: ...

    async def wait(self, seconds: float) -> None: ...

    def stop(self) -> None: ...


class Scheduler:
    """
    Adds the firings of an app's periodic tasks; made by `Tasks.scheduler`.

    Any number may run, in any number of processes and machines: each firing is
    added once.  `run` blocks, `run_async` is for asyncio and `start` for
    Twisted; as a context manager it runs in a thread of its own.  Errors of the
    server are logged, and the add is tried again until it is too late.
    """

    def __init__(
        self,
        schedule: Schedule,
        connections: AppConnections,
        item: Callable[[Firing], ToAdd],
        queues: frozenset[str],
        clock: ClockSeconds = system_clock,
    ) -> None:
        """Made by `Tasks.scheduler`.  *queues* are those of the periodic tasks, and *item* makes a firing's item."""
        self.schedule = schedule
        self._connections = connections
        self._item = item
        self._queues = queues
        self._clock = clock
        self._face: _Face | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    def run(self) -> None:
        """
        Add firings until `stop` is called, by a signal handler or another thread.

        Raises:
            InvalidRequest: a queue forgets its firings too early for `catch_up`.
        """
        try:
            self._loop(_Blocking(self._connections)).send(None)
        except StopIteration:
            return
        raise AssertionError("the coroutines of a blocking face never wait")

    async def run_async(self) -> None:
        """Add firings on asyncio until `stop` is called, or this coroutine is cancelled.  Raises as `run`."""
        from queueber.tasks.on_asyncio import AsyncioFace  # noqa: PLC0415

        await self._loop(AsyncioFace(self._connections))

    def start(self, reactor: Any) -> Deferred[None]:  # noqa: ANN401
        """Add firings on Twisted.  The Deferred fires after `stop`, and fails as `run` raises."""
        from twisted.internet.defer import Deferred  # noqa: PLC0415

        self._connections.connect_twisted(reactor)
        return Deferred.fromCoroutine(self._loop(_Twisted(self._connections, reactor)))

    def fire(self, at: WallMs) -> None:
        """Add the firings of the moment *at*, blocking, whatever the clock says: for tests that move the time."""
        for firing in self.schedule.firings_at(at):
            self._connections.add(self._item(firing), timeout_ms=ADD_TIMEOUT_MS)

    def stop(self) -> None:
        """End it after the add under way; with Twisted from its thread, else from any thread or signal handler."""
        self._stopped = True
        if self._face is not None:
            self._face.stop()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run_in_thread, name="queueber scheduler", daemon=True)
        self._thread.start()
        return self

    def _run_in_thread(self) -> None:
        try:
            self.run()
        except QueueberError as why:
            _log.error("the scheduler has ended: %s", why)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._thread is not None:
            # An add that waits for its server may be left alone: another scheduler's is the same.
            self._thread.join(LEAVE_SECONDS)

    async def _check_windows(self, face: _Face) -> None:
        needed = self.schedule.window_needed()
        for queue in sorted(self._queues) if needed is not None else ():
            while not self._stopped:
                try:
                    found = await face.settings(queue)
                except QueueberError as why:
                    if why.kind not in PASSING:
                        raise
                    _log.warning("the settings of %s are not known yet: %s", queue, why)
                    await face.wait(RETRY_MS / MS_PER_SECOND)
                else:
                    check_window(queue, found.settings.dedup_window_ms, needed or SpanMs(0))
                    break

    async def _loop(self, face: _Face) -> None:
        self._face = face
        enable_loggers()
        await self._check_windows(face)
        while not self._stopped:
            for firing in self.schedule.due(self._now()):
                try:
                    await face.add(self._item(firing))
                except QueueberError as why:
                    _log.warning("not added yet: %s: %s", firing, why)
                    if why.kind == Kind.DISCONNECTED:
                        break
                    continue
                self.schedule.added(firing)
                _log.debug("added: %s", firing)
            for firing in self.schedule.given_up(self._now()):
                _log.error("missed: %s: it could not be added in time", firing)
            if not self._stopped:
                await face.wait(self.schedule.wait(self._now()) / MS_PER_SECOND)

    def _now(self) -> WallMs:
        return WallMs(int(self._clock() * MS_PER_SECOND))


class _Blocking:
    def __init__(self, connections: AppConnections) -> None:
        self._connections = connections
        self._stops: SimpleQueue[None] = SimpleQueue()
        """A `SimpleQueue`, because a signal handler may call its `put` at any instruction."""

    async def add(self, call: ToAdd) -> object:
        return self._connections.add(call, timeout_ms=ADD_TIMEOUT_MS)

    async def settings(self, queue: str) -> SettingsInForce:
        return self._connections.sync().control(queue).settings()

    async def wait(self, seconds: float) -> None:
        with suppress(Empty):
            self._stops.get(timeout=seconds)

    def stop(self) -> None:
        self._stops.put(None)


class _Twisted:
    def __init__(self, connections: AppConnections, reactor: Any) -> None:  # noqa: ANN401
        self._connections = connections
        self._reactor = reactor
        self._waiting: Any = None

    async def add(self, call: ToAdd) -> object:
        return await self._connections.add_tx(call, timeout_ms=ADD_TIMEOUT_MS)

    async def settings(self, queue: str) -> SettingsInForce:
        return await self._connections.twisted().control(queue).settings()

    async def wait(self, seconds: float) -> None:
        from twisted.internet.defer import Deferred  # noqa: PLC0415

        # Fired by the clock, or early by `stop`.
        self._waiting = waiting = Deferred[None]()
        call = self._reactor.callLater(seconds, waiting.callback, None)
        await waiting
        self._waiting = None
        if call.active():
            call.cancel()

    def stop(self) -> None:
        if self._waiting is not None:
            self._waiting.callback(None)
