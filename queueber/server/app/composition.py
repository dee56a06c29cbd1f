"""
The composition root: builds every part of a server and connects them.

`assemble` takes what differs between a server in production and one in a test:
reactor, store, storage pool, clock and ids.  `queueber.testing` calls it too, so
tests run the server that users run.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from attrs import define, field
from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber.api.control_types import REDRIVE
from queueber.api.templates import template_readers
from queueber.broker import Broker, Ids, Store
from queueber.limits import Limits
from queueber.server.admin.control_socket import control_socket_factory
from queueber.server.admin.handlers import BackupStore
from queueber.server.config.settings import Settings
from queueber.server.core.cleanup import CLEANUP_SECONDS, Cleanup
from queueber.server.core.clock import QueueClock, periodic_timer
from queueber.server.core.committer import Committer
from queueber.server.core.control_handlers import ControlHandlers
from queueber.server.core.dispatcher import Dispatcher
from queueber.server.core.first_due_reader import READ_SECONDS, FirstDueReader
from queueber.server.core.handlers import QueueHandlers
from queueber.server.core.ids import RandomIds
from queueber.server.core.inspections import Inspections
from queueber.server.core.keyed_adds import KeyedAdds
from queueber.server.core.log_rate_limit import SPAN_SECONDS
from queueber.server.core.lookups import LookupRunner
from queueber.server.core.poll_handlers import PollHandlers
from queueber.server.core.pool import Pool
from queueber.server.core.reads import Reads
from queueber.server.core.redrives import Redrives
from queueber.server.core.replies import Replies
from queueber.server.core.reserve import MEASURE_SECONDS as RESERVE_SECONDS
from queueber.server.core.reserve import Reserve, Space, space_of
from queueber.server.core.session_handlers import SessionHandlers
from queueber.server.core.settle_handlers import SettleHandlers
from queueber.server.core.stats import LAG_SECONDS, CommitStats, ReactorLag
from queueber.server.core.sweeper import DeathLog, Sweeper
from queueber.server.monitoring.diagnostics import Diagnostics, MonitoredStore
from queueber.server.monitoring.queue_stats import Collector
from queueber.server.net.certificates import Certificates
from queueber.server.net.connections import Connections
from queueber.server.net.context import ServerContext
from queueber.server.net.read_scheduler import ReadScheduler
from queueber.server.net.rpc_factory import ControlFactory, RpcFactory
from queueber.server.net.send_buffer import FlushQueue
from queueber.server.net.timeouts import CHECK_SECONDS as TIMEOUT_SECONDS
from queueber.units import MS_PER_SECOND

MARK_SECONDS = 1.0
"""Between two notes of how much of the log is on disk, and two checks of the wall clock."""


def end_process(log: Logger, what: str, why: BaseException) -> None:
    """Log that *what* failed and end the process at once: nothing more is acknowledged.  From any thread."""
    try:
        if not isinstance(why, OSError):
            log.failure("{what}", Failure(why), what=what)
        # Returns once the line is written, or after some seconds if the log's reader has stopped.
        line = "{what}, so the server ends: {kind}: {why}"
        log.critical(line, what=what, kind=type(why).__name__, why=str(why), final=True)
    finally:
        os._exit(os.EX_IOERR)


class ServerStore(Store, BackupStore, MonitoredStore, Protocol):
    """A store that a server can run on: rows, backups, and figures of the engine and of the disk."""

    @property
    def unflushed_bytes(self) -> int:
        """Bytes in memory that will be written to files later."""

    def reclaim_space(self) -> None:
        """Release the disk space of removed items, as far as that can be hurried.  Blocks."""

    def note_synced(self) -> None:
        """Record how far the log is on disk.  Blocks for one sync; an error is as final as a failed commit."""


@define(eq=False)
class ServerParts:
    """The parts of a server that serves."""

    factory: RpcFactory
    connections: Connections
    flush_queue: FlushQueue
    handlers: QueueHandlers
    sessions: SessionHandlers
    committer: Committer
    dispatcher: Dispatcher
    reads: Reads
    sweeper: Sweeper
    cleanup: Cleanup
    first_due_reader: FirstDueReader
    broker: Broker
    timers: list[TimerService]
    """All periodic work; `assemble` starts none of it."""

    control: ControlFactory
    reserve: Reserve
    diagnostics: Diagnostics
    ports: list[IListeningPort] = field(factory=list)


def assemble(
    reactor: Any,  # noqa: ANN401
    settings: Settings,
    store: ServerStore,
    pool: Pool,
    clock: QueueClock,
    *,
    ids: Ids | None = None,
    end: Callable[[str, BaseException], None],
    defer_to_thread: Callable[..., Deferred[Any]],
    commit_stats: CommitStats | None = None,
    certificates: Certificates | None = None,
) -> ServerParts:
    """
    Build and connect all parts; start nothing.

    *end* ends the process, with what failed and why, and may be called from any thread.  *defer_to_thread* runs backups
    and flushes on threads that no commit waits for.  *store* reports its syncs to *commit_stats*.
    """
    limits, flush_queue = settings.limits, FlushQueue()
    defaults, note_death = settings.queue_defaults, DeathLog(clock.monotonic).note
    broker = Broker(ids or RandomIds(), limits=limits, bounds=settings.claim, settings=defaults, on_death=note_death)
    stats, window = commit_stats or CommitStats(), settings.coalesce_batch_window_ms / MS_PER_SECOND
    committer = Committer(reactor, broker, store, pool, clock, limits, end, flush_queue.flush, window, stats)
    reads = Reads(pool)
    dispatcher = Dispatcher(reactor, broker, store, reads, clock, limits, committer)
    space = partial(_space, settings, store)
    reserve = Reserve(space, settings.free_space_reserve, lambda: defer_to_thread(store.reclaim_space))
    connections = Connections(limits, reactor.seconds, broker.limit_hits, reactor.callLater)
    sessions = SessionHandlers(broker, committer, clock, limits)
    handlers = _queue_handlers(
        broker, committer, dispatcher, store, reads, clock, limits, reserve, connections, sessions, flush_queue.flush
    )
    server = ServerContext(
        handlers=handlers,
        request_bytes=handlers.request_bytes,
        call_stats=handlers.stats,
        broker=broker,
        dispatcher=dispatcher,
        committer=committer,
        flush_queue=flush_queue,
        connections=connections,
        limits=limits,
        read_scheduler=ReadScheduler(reactor, reactor.seconds),
        templates=template_readers(limits),
    )
    sweeper = Sweeper(broker, store, reads, clock, committer)
    cleanup = Cleanup(broker, store, reads, clock, committer, dispatcher, limits)
    first_due_reader = FirstDueReader(broker, store, reads, clock, committer, lambda: handlers.draining)
    lag = ReactorLag(reactor.seconds)
    sync = partial(_note_synced, pool, store, end)
    timers = _timers(reactor, settings, sync, sweeper, cleanup, first_due_reader, committer, connections, reserve, lag)
    diagnostics = _diagnostics(
        reactor, settings, store, pool, clock, certificates, server, handlers, committer, sweeper, reserve, lag
    )
    control = control_socket_factory(server, reactor, committer, reserve, store, handlers, defer_to_thread)
    core = handlers, sessions, committer, dispatcher, reads, sweeper, cleanup, first_due_reader, broker
    return ServerParts(RpcFactory(server), connections, flush_queue, *core, timers, control, reserve, diagnostics)


def _space(settings: Settings, store: ServerStore) -> Space:
    return space_of(settings.data_dir, unflushed=store.unflushed_bytes)


def _diagnostics(
    reactor: Any,  # noqa: ANN401
    settings: Settings,
    store: ServerStore,
    pool: Pool,
    clock: QueueClock,
    certificates: Certificates | None,
    server: ServerContext,
    handlers: QueueHandlers,
    committer: Committer,
    sweeper: Sweeper,
    reserve: Reserve,
    lag: ReactorLag,
) -> Diagnostics:
    return Diagnostics(
        reactor=reactor,
        data_dir=settings.data_dir,
        durability=settings.durability.value,
        broker=server.broker,
        store=store,
        pool=pool,
        committer=committer,
        dispatcher=server.dispatcher,
        handlers=handlers,
        connections=server.connections,
        sweeper=sweeper,
        clock=clock,
        limits=server.limits,
        lag=lag,
        collector=Collector(reactor, server.broker, clock),
        disk_shortage=lambda: reserve.shortage,
        certificates=certificates,
    )


def _queue_handlers(
    broker: Broker,
    committer: Committer,
    dispatcher: Dispatcher,
    store: ServerStore,
    reads: Reads,
    clock: QueueClock,
    limits: Limits,
    reserve: Reserve,
    connections: Connections,
    sessions: SessionHandlers,
    flush: Callable[[], None],
) -> QueueHandlers:
    replies = Replies(limits, broker.limit_hits)
    lookups = LookupRunner(broker, committer, store, reads, clock.monotonic)
    inspections = Inspections(broker, committer, store, reads, limits)
    addresses = connections.addresses
    settles = SettleHandlers(broker, committer, store, reads, clock, limits, replies, reserve.refuse)
    redrives = Redrives(broker, committer, store, reads, clock, limits, replies)
    others = {REDRIVE: redrives.redrive}
    control = ControlHandlers(broker, committer, reads, clock, limits, replies, lookups, inspections, addresses, others)
    keyed_adds = KeyedAdds(broker, store, reads, clock, committer, dispatcher, replies, flush)
    polls = PollHandlers(broker, committer, dispatcher, clock, limits, replies)
    more = {**polls.methods, **sessions.methods, **settles.methods, **control.methods}
    return QueueHandlers(broker, committer, dispatcher, clock, limits, reserve.refuse, replies, keyed_adds, more)


def _timers(
    reactor: Any,  # noqa: ANN401
    settings: Settings,
    note_synced: Callable[[], Deferred[None]],
    sweeper: Sweeper,
    cleanup: Cleanup,
    first_due_reader: FirstDueReader,
    committer: Committer,
    connections: Connections,
    reserve: Reserve,
    lag: ReactorLag,
) -> list[TimerService]:
    every = partial(periodic_timer, reactor)
    return [
        every(settings.lease_sweep_interval, sweeper.sweep),
        every(CLEANUP_SECONDS, cleanup.run),
        every(READ_SECONDS, first_due_reader.run),
        every(MARK_SECONDS, note_synced),
        every(MARK_SECONDS, committer.mark_time),
        every(TIMEOUT_SECONDS, connections.timeouts.expire),
        every(TIMEOUT_SECONDS, connections.handshakes.expire),
        every(RESERVE_SECONDS, reserve.tick),
        every(SPAN_SECONDS, connections.log_left_out),
        every(LAG_SECONDS, lag.measure),
    ]


def _note_synced(pool: Pool, store: ServerStore, end: Callable[[str, BaseException], None]) -> Deferred[None]:
    """Record how much of the log is on disk."""

    def failed(failure: Failure) -> None:
        end("Noting what is synced failed", failure.value or RuntimeError("no reason given"))

    noted = pool.run(store.note_synced)
    return noted.addErrback(failed)
