"""The composition root: the only place that knows every concrete class of a server."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define, field
from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber.api import template_readers
from queueber.broker import Broker
from queueber.limits import Limits
from queueber.server.admin.control_socket import ControlFactory, control_beside
from queueber.server.config.settings import Settings
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import GATHER_SECONDS, Committer
from queueber.server.core.dispatcher import Dispatcher
from queueber.server.core.handlers import QueueHandlers
from queueber.server.core.ids import RandomIds
from queueber.server.core.pool import StoragePool
from queueber.server.core.reserve import LOOK_SECONDS as RESERVE_SECONDS
from queueber.server.core.reserve import Reserve, Space, space_of
from queueber.server.core.sweeper import Sweeper
from queueber.server.core.timer import periodic_timer
from queueber.server.monitoring.diagnostics import Diagnostics
from queueber.server.monitoring.queue_stats import Collector
from queueber.server.monitoring.stats import LAG_SECONDS, Lag
from queueber.server.net.connections import Connections
from queueber.server.net.log_rate_limit import SPAN_SECONDS
from queueber.server.net.protocol import FlushQueue, RpcFactory
from queueber.server.net.read_scheduler import ReadScheduler
from queueber.server.net.timeouts import LOOK_SECONDS as TIMEOUT_SECONDS
from queueber.store import RocksStore
from queueber.units import MS_PER_SECOND

EX_IOERR = 74
"""Disk, lock or port: ``sysexits.h``."""

MARK_SECONDS = 1.0
"""Between two notes of how much of the log is on disk, and two checks of the wall clock."""


def end_process(log: Logger, what: str, why: BaseException) -> None:
    """Say what failed and end the process at once: nothing more is acknowledged.  From any thread."""
    try:
        if not isinstance(why, OSError):
            log.failure("{what}", Failure(why), what=what)
        # Returns once it is written, or after some seconds of a reader that stands still.
        line = "{what}, so the server ends: {kind}: {why}"
        log.critical(line, what=what, kind=type(why).__name__, why=str(why), final=True)
    finally:
        os._exit(EX_IOERR)


@define(eq=False)
class Running:
    """Everything that exists while a server serves."""

    store: RocksStore
    factory: RpcFactory
    handlers: QueueHandlers
    committer: Committer
    dispatcher: Dispatcher
    broker: Broker
    timers: list[TimerService]
    control: ControlFactory
    reserve: Reserve
    inside: Diagnostics
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
    outbox = FlushQueue()
    dispatcher = Dispatcher(reactor, broker, store, pool, clock, limits)
    window = settings.window_ms / MS_PER_SECOND
    die = partial(end_process, log)
    decide, flush = dispatcher.round, outbox.flush
    committer = Committer(reactor, broker, store, pool, clock, limits, die, decide, flush, window, GATHER_SECONDS)
    dispatcher.committer = committer
    methods = QueueHandlers(broker, committer, dispatcher, clock, limits)
    connections = Connections(limits, reactor.seconds, broker.limit_hits, reactor.callLater)
    turns, templates = ReadScheduler(reactor, reactor.seconds), template_readers(limits)
    factory = RpcFactory(broker, methods, dispatcher, outbox, connections, limits, turns, templates)
    sweeper = Sweeper(broker, store, pool, clock, committer)

    reserve = _reserve(reactor, settings, store)
    methods.refuse_adds = reserve.refuse
    store.on_sync = committer.load.syncs.observe
    lag = Lag(reactor.seconds)
    inside = Diagnostics(
        reactor=reactor,
        data_dir=settings.data_dir,
        durability=settings.durability.value,
        broker=broker,
        store=store,
        pool=pool,
        committer=committer,
        dispatcher=dispatcher,
        methods=methods,
        connections=connections,
        sweeper=sweeper,
        clock=clock,
        limits=limits,
        lag=lag,
        surveyor=Collector(reactor, broker, clock),
        disk_lacks=lambda: reserve.lacking,
    )
    every = partial(periodic_timer, reactor)
    timers = [
        every(settings.sweep_seconds, sweeper.sweep),
        every(MARK_SECONDS, partial(_note_synced, pool, store, die)),
        every(MARK_SECONDS, committer.mark_time),
        every(TIMEOUT_SECONDS, connections.patience.look),
        every(TIMEOUT_SECONDS, connections.handshakes.look),
        every(RESERVE_SECONDS, reserve.tick),
        every(SPAN_SECONDS, connections.tell_left_out),
        every(LAG_SECONDS, lag.look),
    ]
    control = control_beside(factory, reactor, committer, reserve, store, methods)
    return Running(store, factory, methods, committer, dispatcher, broker, timers, control, reserve, inside)


def _reserve(reactor: Any, settings: Settings, store: RocksStore) -> Reserve:  # noqa: ANN401
    """What keeps space free; room is made on one of the reactor's threads, because a flush may take its time."""
    make_room = partial(deferToThreadPool, reactor, reactor.getThreadPool(), store.make_room)
    measure = partial(_space_left, settings, store)
    return Reserve(measure, settings.free_space_reserve, make_room)


def _space_left(settings: Settings, store: RocksStore) -> Space:
    return space_of(settings.data_dir, promised=store.unflushed_bytes)


def _note_synced(pool: StoragePool, store: RocksStore, die: Callable[[str, BaseException], None]) -> Deferred[None]:
    """Record how much of the log is on disk."""

    def end(failure: Failure) -> None:
        die("Noting what is synced failed", failure.value or RuntimeError("no reason given"))

    noted = pool.run(store.note_synced)
    return noted.addErrback(end)
