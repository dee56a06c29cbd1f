"""`Worker`: the settings, and the three ways to run it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from queueber.client_core.address import PORT_MAX
from queueber.client_core.arguments import flag, identifier
from queueber.client_core.errors import NotConnected
from queueber.client_core.kept_session import GRACE_MS_MAX, GRACE_MS_MIN
from queueber.errors import InvalidRequest, QueueberError
from queueber.process import enable_loggers
from queueber.sync.connector import Connector
from queueber.worker.attachment import LeaseOptions
from queueber.worker.handling import (
    After,
    Before,
    Handler,
    Handling,
    checked_handler,
    checked_hooks,
    runs_in_threads,
)
from queueber.worker.keeper import Keeper
from queueber.worker.liveness import NOT_STARTED, Health, Watch, health_of
from queueber.worker.policy import ENDING_SECONDS, SETTLE_SECONDS, Policy
from queueber.worker.probes import Probes
from queueber.worker.queues import ResolvedQueues, resolve
from queueber.worker.runners import Runner, ThreadRunner
from queueber.worker.signals import StopSignals
from queueber.worker.telemetry import Telemetry, installed
from queueber.worker.verdicts import checked_seconds, span_of

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

CONCURRENCY_MAX = 100_000
COROUTINES = 100
"""Coroutines at a time by default."""

THREADS = min(32, (os.cpu_count() or 1) + 4)
"""Threads at a time by default, as `concurrent.futures` has it."""


class Worker:
    """
    Takes items of one or several queues, calls a handler with each, and settles it when the handler ends.

    The connection has a thread of its own, so that leases are kept while handlers are busy.  A worker runs once, in one
    of three ways: `run` blocks, `run_async` is for asyncio, `start` for Twisted.

    All times are in seconds.

    Args:
        queue: a URL, or a `Queue` of any client, whose URL and options are used for a connection of its own; or a
            list of them, or a mapping from them to weights of 1 to 1,000, all on one server.
        handler: called with each `WorkItem`: a coroutine function in the event loop, another function in a thread.
        queues: names of queues on the server of *queue*, or a mapping from names to weights, instead of one queue.
        strict: serve the first of several queues that has an item, instead of all by weight.
        concurrency: handlers at a time; by default 100 coroutines, or four threads more than there are processors, at
            most 32.
        prefetch: items to fetch in advance.  By default as many as the handlers process in 0.1 s, at most 500.
        max_runtime: the time after which a handler is asked to end and its item fails.  By default none.
        lease: ``"session"`` for leases that last as long as this worker lives, or the length of leases that are
            extended, at least 1 s.
        session_grace: the time for which session leases outlast a lost connection, 10 s to 7 days.
        grace: the time that handlers have to end when the worker stops.
        stall: the time after which all items of a blocked event loop fail.
        threads: True or False to choose where the handler runs; by default its kind decides.  With False a plain
            function may return an awaitable or, in Twisted, a Deferred.
        before: functions that are called with the item before the handler.
        after: functions that are called with the item, the verdict and the exception or None after it.
        liveness_file: a file that is touched while the worker runs and makes progress, and removed at its end.
        http_port: a port for a page with the worker's health while it runs; 0 for any free one.
        http_host: the address of that port, IPv4 or IPv6; empty for all addresses of this machine.
        telemetry: whether to make OpenTelemetry spans and metrics; by default if `opentelemetry-api` is installed.
        trace_parent: make the span of a handler a child of the span that sent the item, instead of linking to it.
    """

    def __init__(
        self,
        queue: object,
        handler: Handler,
        *,
        queues: Iterable[str] | Mapping[str, int] | None = None,
        strict: bool = False,
        concurrency: int | None = None,
        prefetch: int | None = None,
        max_runtime: float | None = None,
        lease: float | Literal["session"] = "session",
        session_grace: float = 30.0,
        grace: float = 20.0,
        stall: float = 60.0,
        threads: bool | None = None,
        before: Sequence[Before] = (),
        after: Sequence[After] = (),
        liveness_file: str | os.PathLike[str] | None = None,
        http_port: int | None = None,
        http_host: str = "127.0.0.1",
        telemetry: bool | None = None,
        trace_parent: bool = False,
    ) -> None:
        """Make a worker; it connects when it is run.  Raises `InvalidRequest` if an argument is invalid."""
        self._handler = checked_handler(handler)
        self._before, self._after = checked_hooks(before, after)
        self._threads = runs_in_threads(handler, threads)
        self._resolved: ResolvedQueues = resolve(queue, queues, strict=flag("strict", strict))
        default = THREADS if self._threads else COROUTINES
        self._policy = Policy(
            concurrency=default if concurrency is None else _number("concurrency", concurrency, 1, CONCURRENCY_MAX),
            prefetch=None if prefetch is None else _number("prefetch", prefetch, 0, CONCURRENCY_MAX),
            lease_seconds=30.0 if lease == "session" else checked_seconds("lease", lease, least=1),
            max_runtime=None if max_runtime is None else checked_seconds("max_runtime", max_runtime, least=0.001),
            stall=None if self._threads else checked_seconds("stall", stall, least=1),
        )
        self._upkeep = LeaseOptions(
            session=lease == "session",
            grace_ms=_grace_ms(session_grace),
            span=span_of("lease", self._policy.lease_seconds),
        )
        self._grace = checked_seconds("grace", grace)
        self._telemetry = _telemetry(self._resolved, telemetry, parent=flag("trace_parent", trace_parent))
        port = None if http_port is None else _number("http_port", http_port, 0, PORT_MAX)
        self._probes = Probes(lambda: self.health, liveness_file, port, http_host)
        self._keeper: Keeper | None = None
        self._lock = threading.Lock()
        self._stops: list[float] = []
        """The stops that were asked for before the worker ran."""

        self._signals = StopSignals(self.stop)

    # ---- to look at

    @property
    def health(self) -> Health:
        """The state of the worker now."""
        if self._keeper is None:
            return NOT_STARTED
        return health_of(self._keeper.rules, monotonic(), self._keeper.away_since)

    @property
    def last_poll(self) -> float | None:
        """The seconds since a poll was last answered, or since the start; None before the start."""
        return None if self._keeper is None else monotonic() - self._keeper.rules.last_poll

    @property
    def refused(self) -> bool:
        """Whether the server, or another program at its address, refused the worker before its first poll."""
        return self._keeper is not None and self._keeper.rules.refusal is not None

    @property
    def http_address(self) -> tuple[str, int] | None:
        """The host and port of the health page; None before the worker runs, after its end, and without a page."""
        return self._probes.address

    @property
    def server(self) -> str:
        """The address of its server, without options, for display."""
        return self._resolved.target.name

    @property
    def queues(self) -> str:
        """The names of its queues, for display."""
        return str(self._resolved.source)

    @property
    def handler(self) -> Handler:
        """The handler, for tests that run it themselves."""
        return self._handler

    @property
    def queue_names(self) -> list[str]:
        """The names of its queues; none if it takes dead items."""
        return self._resolved.source.names

    # ---- to run

    def show_health(self, slot: int | None = None) -> None:
        """
        Listen at the port of the health page, and create the liveness file, as the worker does when it runs.

        For a supervisor of processes, which learns in this way that a port is taken before the worker connects.  Has no
        effect when it is called again.

        Args:
            slot: the number of this process, from 0, among several of the same worker.  Each has its page at the port
                after that of the process before it, or at any free one if `http_port` is 0, and a file whose name ends
                with its number from 1: ``alive.1``.

        Raises:
            InvalidRequest: the port cannot be opened, or the file cannot be written.
        """
        with self._lock:
            self._probes.show(slot)

    def run(self) -> None:
        """
        Run until a stop, and block meanwhile.

        In the main thread SIGTERM and SIGINT stop the worker.  A second signal ends it at once, and the items of
        running handlers return to the queue without an attempt counted.

        Raises:
            InvalidRequest: the server refused the first poll, the port of the health page cannot be opened, or the
                liveness file cannot be written.
            Unimplemented: the server is too old for it.
            NotConnected: another program listens at the address, or the server refuses this client.
        """
        with self._signals.taken():
            if self._threads:
                self._run_threads()
            else:
                # Imported here, because it takes long to import, and threads do without.
                import asyncio  # noqa: PLC0415

                asyncio.run(self.run_async())

    def _run_threads(self) -> None:
        ended = threading.Event()
        errors: list[Exception] = []

        def on_end(error: Exception | None) -> None:
            errors.extend([error] if error else [])
            ended.set()

        keeper = self._make_keeper(on_end)
        self._begin(keeper, ThreadRunner(self._handling(()), keeper, self._policy.concurrency))
        ended.wait()
        if errors:
            raise errors[0]

    async def run_async(self, session: bytes | None = None) -> None:
        """
        Run in this event loop until `stop`.

        If it is cancelled, it stops without a grace, and then raises `CancelledError`.

        Args:
            session: 16 bytes, for a supervisor of processes: the session of this worker and of those that it replaces.
                The leases of an earlier worker end at once, and not `session_grace` after its end.

        Raises:
            InvalidRequest: *session* is not 16 bytes, or as for `run`.
            Unimplemented: the server is too old for it.
            NotConnected: another program listens at the address, or the server refuses this client.
        """
        from queueber.worker.aio_runner import CANCELLED, AioRunner, end_in, wait_for_end  # noqa: PLC0415

        ended, on_end = end_in()
        keeper = self._make_keeper(on_end, None if session is None else identifier("session", session))
        runner: Runner = (
            ThreadRunner(self._handling(()), keeper, self._policy.concurrency)
            if self._threads
            else AioRunner(self._handling((CANCELLED,)), keeper)
        )
        self._begin(keeper, runner)
        await wait_for_end(ended, lambda: keeper.stop(0), ENDING_SECONDS + SETTLE_SECONDS)

    def start(self, reactor: Any) -> Deferred[None]:  # noqa: ANN401
        """
        Run in Twisted's *reactor* until `stop`, or until the reactor stops, which waits for the worker.

        Returns:
            Fires when the worker has ended, and fails with the errors of `run`.
        """
        from queueber.worker.twisted_runner import CANCELLED, TwistedRunner, end_in  # noqa: PLC0415

        ended, on_end = end_in(reactor, self.stop)
        try:
            keeper = self._make_keeper(on_end)
            runner: Runner = (
                ThreadRunner(self._handling(()), keeper, self._policy.concurrency)
                if self._threads
                else TwistedRunner(self._handling((CANCELLED,)), keeper, reactor)
            )
            self._begin(keeper, runner)
        except QueueberError as why:
            # Not raised: the reactor would wait at its stop for a worker that has not begun.
            on_end(why)
        return ended

    def stop(self, grace: float | None = None) -> None:
        """
        Stop polling, return prefetched items, and give handlers *grace* seconds to end, by default those of `Worker`.

        When it is called again, the worker ends at once.  Safe in any thread, and in a signal handler.
        """
        seconds = self._grace if grace is None else checked_seconds("grace", grace)
        if self._keeper is None:
            self._stops.append(seconds)
        else:
            self._keeper.stop(seconds)

    # ---- parts

    def _handling(self, cancelled: tuple[type[BaseException], ...]) -> Handling:
        return Handling(self._handler, self._before, self._after, self._telemetry, cancelled)

    def _make_keeper(self, on_end: Callable[[Exception | None], None], session: bytes | None = None) -> Keeper:
        target = self._resolved.target
        with self._lock:
            if self._keeper is not None:
                raise InvalidRequest("the worker has already run; make another one")
            enable_loggers()
            try:
                # Its calls wait as long as there is no connection, and have no time limit.
                options = target.options.replace(attempts=None, timeout_ms=None)
                connector = Connector(target._replace(options=options))
                self._probes.show()
            except InvalidRequest:
                self._probes.close()
                raise

            def ended(error: Exception | None) -> None:
                self._probes.close()
                self._signals.worker_ended()
                on_end(error)

            self._keeper = Keeper(
                connector,
                self._resolved.source,
                self._policy,
                self._upkeep,
                session=session,
                watch=Watch(self._probes.file),
                telemetry=self._telemetry,
                on_end=ended,
            )
            return self._keeper

    def _begin(self, keeper: Keeper, runner: Runner) -> None:
        try:
            keeper.start(runner)
        except NotConnected:
            self._probes.close()
            raise
        for seconds in self._stops:
            keeper.stop(seconds)


def _telemetry(resolved: ResolvedQueues, wanted: bool | None, *, parent: bool) -> Telemetry | None:
    if wanted is not None:
        flag("telemetry", wanted)
    if wanted is False or not installed():
        if wanted:
            raise InvalidRequest("telemetry needs the extra `otel`, pip install 'queueber[otel]'")
        return None
    return Telemetry(resolved.server, parent=parent)


def _grace_ms(seconds: float) -> int:
    found = span_of("session_grace", seconds)
    if not GRACE_MS_MIN <= found <= GRACE_MS_MAX:
        raise InvalidRequest(f"session_grace is {seconds:g} s; it must be 10 s to 7 days")
    return found


def _number(name: str, value: int, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidRequest(f"{name} is {value!r}; it must be a whole number, {least:,} to {most:,}")
    return value
