"""
The composition root: the only place that knows every concrete class.

Nothing is opened, no thread started and nothing listened on before the
service starts: twistd forks between making a service and starting it.
"""

import gc
import os
import sys
import time
from typing import Any

from attrs import define, field
from twisted.application.internet import TimerService
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from queueber import __version__
from queueber.broker import Broker
from queueber.errors import Stopping, StorageError
from queueber.limits import Limits
from queueber.server.clock import QueueClock, keep_monotonic
from queueber.server.committer import Committer
from queueber.server.connections import Connections
from queueber.server.descriptors import within_descriptors
from queueber.server.dispatcher import Dispatcher
from queueber.server.ids import RandomIds
from queueber.server.listening import ListenFailed, start_listening
from queueber.server.methods import Methods
from queueber.server.options import Options
from queueber.server.patience import looking
from queueber.server.pool import StoragePool
from queueber.server.protocol import Outbox, RpcFactory
from queueber.server.settings import Settings
from queueber.server.sweeper import Sweeper, sweeping
from queueber.store import RocksStore, open_store, wipe
from queueber.units import MS_PER_SECOND

EX_IOERR = 74
"""Disk, lock or port: ``sysexits.h``."""

# How long calls in flight may take to end after the server was told to stop.
DRAIN_SECONDS = 10.0

SYNC_MARK_SECONDS = 1.0

SWITCH_SECONDS = 0.000_5
GC_THRESHOLDS = (100_000, 50, 1_000)

__all__ = ["Options", "QueueberService", "makeService"]


def makeService(options: Options) -> IService:
    """What twistd and twist call: a service that does nothing until it is started."""
    from twisted.internet import reactor  # noqa: PLC0415, TID251  (the one place; importing it earlier installs one)

    keep_monotonic(reactor)
    for name in options.unknown_variables:
        QueueberService.log.warn("{name} in the environment is no option", name=name)
    return QueueberService(reactor, options.settings)


def end_process(log: Logger, what: str, why: BaseException) -> None:
    """Say what failed and end the process at once: nothing more is acknowledged.  From any thread."""
    log.critical("{what}, so the server ends: {kind}: {why}", what=what, kind=type(why).__name__, why=str(why))
    if not isinstance(why, OSError):
        log.failure("{what}", Failure(why), what=what)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EX_IOERR)


@define(eq=False)
class Running:
    """Everything that exists while a server serves."""

    store: RocksStore
    factory: RpcFactory
    committer: Committer
    dispatcher: Dispatcher
    broker: Broker
    timers: list[TimerService]
    ports: list[IListeningPort] = field(factory=list)


def assemble(
    reactor: Any,  # noqa: ANN401
    settings: Settings,
    store: RocksStore,
    pool: StoragePool,
    clock: QueueClock,
    limits: Limits,
    log: Logger,
) -> Running:
    """Build and connect all parts; nothing moves yet."""
    broker = Broker(RandomIds(), limits=limits, bounds=settings.claim)
    outbox = Outbox()
    dispatcher = Dispatcher(reactor, broker, store, pool, clock, limits)
    committer = Committer(
        reactor,
        broker,
        store,
        pool,
        clock,
        limits,
        lambda what, why: end_process(log, what, why),
        dispatcher.round,
        outbox.flush,
        settings.window_ms / MS_PER_SECOND,
    )
    dispatcher.committer = committer
    methods = Methods(broker, committer, dispatcher, clock, limits)
    connections = Connections(limits, reactor.seconds, broker.limit_hits)
    factory = RpcFactory(broker, methods, dispatcher, outbox, connections, limits)
    sweeper = Sweeper(broker, store, pool, clock, committer)

    def unsynced(failure: Failure) -> None:
        end_process(log, "Noting what is synced failed", failure.value or RuntimeError("no reason given"))

    def note_synced() -> Deferred[None]:
        noted = pool.run(store.note_synced)
        return noted.addErrback(unsynced)

    marks = TimerService(SYNC_MARK_SECONDS, note_synced)
    marks.clock = reactor
    timers = [sweeping(reactor, sweeper, settings.sweep_seconds), looking(reactor, connections.patience), marks]
    return Running(store, factory, committer, dispatcher, broker, timers)


@implementer(IService)
class QueueberService(Service):
    """Opens the store, recovers, listens; and all of it backwards."""

    log = Logger()

    def __init__(self, reactor: Any, settings: Settings) -> None:  # noqa: ANN401
        self._reactor = reactor
        self._settings = settings
        self._limits = settings.limits
        self._pool = StoragePool(reactor, settings.workers)
        self._up: Running | None = None
        self._starting: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Start once the reactor runs; a failure stops it with an exit status."""
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if self.running:
            # A storage thread that has its fsync behind it must not wait the usual 5 ms for the interpreter while the
            # reactor is busy: every reply of the commit would wait with it.
            sys.setswitchinterval(SWITCH_SECONDS)
            # Nearly all that is alive stays so for long, items and leases above all, and is in no cycle: looking
            # through it again and again took a fifth of the time.
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            self._pool.start()
            self._starting = ensureDeferred(self._start())
            self._starting.addErrback(self._failed)

    async def _start(self) -> None:
        settings, log = self._settings, self.log
        log.info("Queueber {version}", version=__version__)
        began = time.monotonic()
        if settings.wipe:
            await self._pool.run(wipe, settings.data_dir)
        store = await self._pool.run(
            open_store, settings.data_dir, durability=settings.durability, encoding=settings.encoding
        )
        clock = QueueClock()
        up = assemble(self._reactor, settings, store, self._pool, clock, within_descriptors(self._limits, log), log)
        recovered = await self._pool.run(store.recover)
        # Not before: a store that could not be read must not be marked as stopped cleanly.
        self._up = up
        clock.begin(recovered.mark)
        for plan in up.broker.restore(recovered):
            up.committer.submit(plan, lambda _: None)
        stats = up.broker.stats()
        log.info(
            "Data in {path}: {items} items in {queues} queues, {leases} leases; recovered in {seconds:.2f} s{unclean}",
            path=str(settings.data_dir.resolve()),
            items=stats.items,
            queues=stats.queues,
            leases=stats.leases,
            seconds=time.monotonic() - began,
            unclean="" if store.clean else " after an unclean stop",
        )
        log.info("Workers: {workers} storage threads", workers=settings.workers)
        log.info("Durability: {durability}", durability=settings.durability.value)
        for timer in up.timers:
            timer.startService()
        for listen in settings.listen:
            port = await start_listening(self._reactor, listen, up.factory)
            up.ports.append(port)
            log.info("Listening on {address}", address=_address(port))

    def _failed(self, failure: Failure) -> None:
        if failure.check(StorageError, ListenFailed, OSError):
            self.log.critical("Cannot start: {why}", why=failure.getErrorMessage())
        else:
            self.log.failure("Cannot start", failure)
        self._reactor.addSystemEventTrigger("after", "shutdown", _exit, EX_IOERR)
        self._reactor.stop()

    def stopService(self) -> Deferred[None]:
        """
        Stop in order: no new connections, no new work, what is under way, the last commit, the store.

        Fires when the store is closed.  A failure on the way ends the process with 74.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return ensureDeferred(self._stop()).addErrback(self._stop_failed)

    def _stop_failed(self, failure: Failure) -> None:
        end_process(self.log, "Stopping failed", failure.value or RuntimeError("no reason given"))

    async def _stop(self) -> None:
        await self._starting
        up = self._up
        if up is not None:
            await DeferredList([maybeDeferred(port.stopListening) for port in up.ports])
            up.factory.methods.draining = True
            up.dispatcher.end_waiting(Stopping("the server is stopping"))
            up.factory.outbox.flush()
            await self._drained(up)
            await self._disconnected(up)
            await DeferredList([maybeDeferred(timer.stopService) for timer in up.timers if timer.running])
            await up.committer.idle()
            up.dispatcher.stop()
            await self._pool.run(up.store.close)
            self._up = None
            if up.ports:
                self.log.info("Stopped; everything is on disk")
        self._pool.stop()

    async def _drained(self, up: Running) -> None:
        """Wait until no call is outstanding, but not for ever."""
        began = self._reactor.seconds()
        while up.factory.methods.outstanding and self._reactor.seconds() - began < DRAIN_SECONDS:
            await _pause(self._reactor, 0.01)

    async def _disconnected(self, up: Running) -> None:
        """Wait until all peers have taken their replies, but not for ever."""
        for connection in up.factory.connections:
            connection.close()
        began = self._reactor.seconds()
        while up.factory.connections and self._reactor.seconds() - began < DRAIN_SECONDS:
            await _pause(self._reactor, 0.01)
        for connection in up.factory.connections:
            connection.cut()
        await _pause(self._reactor, 0)


def _pause(reactor: Any, seconds: float) -> Deferred[None]:  # noqa: ANN401
    waiting: Deferred[None] = Deferred()
    reactor.callLater(seconds, waiting.callback, None)
    return waiting


def _address(port: IListeningPort) -> str:
    host: Any = port.getHost()
    if hasattr(host, "port"):
        return f"[{host.host}]:{host.port}" if ":" in host.host else f"{host.host}:{host.port}"
    name = getattr(host, "name", None)
    return name.decode() if isinstance(name, bytes) else str(host)


def _exit(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
