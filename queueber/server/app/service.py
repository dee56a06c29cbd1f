"""
The service: start in order, reload on SIGHUP, stop in order.

No file is opened, no thread started and no address bound before the service
starts, because twistd forks between creating a service and starting it.
"""

import gc
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import evolve
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from queueber import __version__
from queueber.errors import Stopping, StorageError, reason
from queueber.server.admin.control_socket import start_control
from queueber.server.app.composition import EX_IOERR, Running, assemble, end_process
from queueber.server.app.daemonize import Launcher
from queueber.server.app.entry import SIGNALS
from queueber.server.app.fd_limit import Descriptors, TooFewDescriptors, allocate
from queueber.server.app.logs import Log
from queueber.server.app.reload import ConfigReloader, on_signals
from queueber.server.app.sd_notify import Notifier, StartupProgress
from queueber.server.app.shutdown import GracefulShutdown
from queueber.server.config.settings import ReloadedConfig, Settings
from queueber.server.config.sources import EX_CONFIG
from queueber.server.core.clock import QueueClock, read_boot_id
from queueber.server.core.pool import StoragePool
from queueber.server.core.timer import periodic_timer
from queueber.server.monitoring.endpoints import PAGE_CONNECTIONS_MAX, MonitoringEndpoints
from queueber.server.monitoring.stats import CommitStats
from queueber.server.net.bound_sockets import BoundPorts
from queueber.server.net.certificates import Certificates, CertificateUnusable
from queueber.server.net.listeners import (
    Listen,
    ListenFailed,
    NotPassed,
    address_of,
    check_passed,
    is_guarded,
    start_listening,
)
from queueber.store import RocksStore, open_store, unflushed_bytes, wipe
from queueber.store.tuning import describe
from queueber.units import Unit, counted, quantity

SWITCH_SECONDS = 0.000_5
"""
The interpreter's switch interval.

With the default of 5 ms, a storage thread whose fsync has returned would wait so long for a busy reactor, and all
replies of the commit with it.
"""

GC_THRESHOLDS = (100_000, 50, 1_000)
_exit = os._exit
"""
The garbage collector's thresholds.

Nearly all objects, items and leases above all, live long and are in no cycle.  With the default thresholds, traversing
them repeatedly took a fifth of the time.
"""


@implementer(IService)
class QueueberService(Service):
    """A server: opens the store, recovers its state, listens, and stops in the reverse order."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401
        settings: Settings,
        *,
        reload: Callable[[], ReloadedConfig] | None = None,
        log: Log | None = None,
        launcher: Launcher | None = None,
    ) -> None:
        """
        Create a server with *settings*; *reload* reads them again.

        *log* is the server's own log, if it has one; *launcher* is the twistd or twist that runs it.
        """
        self._launcher = launcher or Launcher()
        self._bound = BoundPorts(reactor)
        self._reactor = reactor
        self._settings = settings
        self._reread = reload or (lambda: ReloadedConfig(settings, {}))
        self._log = log
        self._pool = StoragePool(reactor, settings.workers)
        self._notifier = Notifier.from_environment()
        self._progress = StartupProgress(reactor, self._notifier)
        self._shutdown = GracefulShutdown(reactor, settings.drain_seconds, self._notifier)
        self._monitoring = MonitoringEndpoints(
            reactor, settings.http, settings.manhole, settings.durability.value, self._stage, self._bound
        )
        self._up: Running | None = None
        self._recovering: RocksStore | None = None
        self._store: RocksStore
        self._starting: Deferred[None] = succeed(None)
        self._reloader: ConfigReloader | None = None
        self._plaintext: list[IListeningPort] = []
        self._stopped_early = False
        self._restore_handlers: list[Callable[[], None]] = []

    def setServiceParent(self, parent: Any) -> None:  # noqa: ANN401
        """Become part of an application, and make the server's own log, if it has one, the application's."""
        if self._log is not None and hasattr(parent, "setComponent"):
            parent.setComponent(ILogObserver, self._log)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def preload(self) -> None:
        """Import the modules that are needed later: after --chroot they cannot be found."""
        self._monitoring.preload()

    def privilegedStartService(self) -> None:
        """Bind the ports, before twistd drops its privileges."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._bound.bind(self._settings.places)

    def startService(self) -> None:
        """Start once the reactor runs.  A failure stops the reactor and sets the exit status."""
        super().startService()  # type: ignore[no-untyped-call]
        self._launcher.begin()
        if self._log is not None:
            self._log.begin(self._launcher.root)
        self._reactor.callWhenRunning(self._begin)

    def _stage(self) -> str:
        return f"starting: {self._progress.stage}" if self.running else f"stopping: waiting {self._shutdown.stage}"

    def _begin(self) -> None:
        if self.running:
            sys.setswitchinterval(SWITCH_SECONDS)
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            # Before anything else: the default action of an early SIGHUP would end the process.
            self._restore_handlers.append(on_signals(self._reactor, (signal.SIGHUP,), self._reload))
            SIGNALS.release(getattr(self._reactor, "sigInt", None))
            self._pool.start()
            self._progress.begin()
            self._starting = ensureDeferred(self._start())
            self._starting.addErrback(self._failed).addBoth(lambda _: self._progress.end())

    def _reload(self) -> None:
        if self.running and self._log is not None and self._log.output.destination.hung_up:
            # Twisted does not handle SIGHUP; this attribute is where it records the signal that ended the reactor.
            self._reactor._exitSignal = signal.SIGHUP  # noqa: SLF001
            self._reactor.stop()
        elif not self.running:
            self.log.warn("Not reloaded: the server is stopping")
        elif self._reloader is None:
            self.log.warn("Not reloaded: the server is still starting")
        else:
            demanded = self._demands_certificates
            self._reloader.reload()
            if self._demands_certificates and not demanded:
                self._warn_of_plaintext()

    async def _start(self) -> None:
        settings = self._settings
        self.log.info("Queueber {version}", version=__version__)
        # Mistakes of an operator are found first, before any file is open.
        descriptors = self._allocate_descriptors()
        check_passed(settings.places)
        self._bound.bind(settings.places)
        self._bound.check()
        certificates = Certificates(settings.tls) if settings.tls is not None else None
        if certificates is not None:
            certificates.load()
        await self._monitoring.open_pages(descriptors.pages)
        up = await self._recovered(descriptors, certificates)
        self._announce(settings, up, self._store)
        # One of the timers measures the free space.
        for timer in up.timers:
            timer.startService()
        await self._listen(settings, up, certificates)
        await self._monitoring.open(up.diagnostics)
        self._reloader = ConfigReloader(self._reread, certificates, self._log)
        self._start_watchdog(up)
        self._launcher.started()
        self._notifier.ready(f"Serving; {counted(up.broker.stats().items, 'item')} at start")

    def _allocate_descriptors(self) -> Descriptors:
        settings = self._settings
        pages = PAGE_CONNECTIONS_MAX if settings.http is not None else 0
        wanted = settings.limits.connections, settings.tuning.open_files, pages
        return allocate(*wanted, self.log.warn, self.log.info)

    async def _recovered(self, descriptors: Descriptors, certificates: Certificates | None) -> Running:
        settings = self._settings
        self._refuse_when_stopping()
        if settings.wipe:
            # A wipe cannot be undone, so everything else that may prevent the start comes first.  The pages are open
            # already.
            await self._bound.take(place for place in settings.places if place[0] != "http")
            self._refuse_when_stopping()
            await self._pool.run(wipe, settings.data_dir)
            self._refuse_when_stopping()
        log_bytes = await self._pool.run(unflushed_bytes, settings.data_dir)
        self._progress.at(f"opening the store, {quantity(log_bytes, Unit.BYTES)} of log to read")
        commit_stats = CommitStats()
        store = await self._pool.run(
            open_store,
            settings.data_dir,
            durability=settings.durability,
            encoding=settings.encoding,
            tuning=evolve(settings.tuning, open_files=descriptors.tables),
            boot_id=read_boot_id(),
            # Logged at once, from the storage thread: a later start would not find out.
            report=lambda dropped: self.log.warn("Went on after a power cut: {dropped}", dropped=dropped),
            on_sync=commit_stats.syncs.observe,
        )
        self._recovering = store
        self._progress.at(lambda: f"reading leases, {store.recovered_leases:,} so far")
        try:
            self._refuse_when_stopping()
            recovered = await self._pool.run(store.recover)
            self._refuse_when_stopping()
        except Stopping:
            await self._pool.run(store.close)
            raise
        finally:
            self._recovering = None
        clock = QueueClock()
        up = assemble(
            self._reactor,
            evolve(settings, limits=evolve(settings.limits, connections=descriptors.connections)),
            store,
            self._pool,
            clock,
            end=partial(end_process, self.log),
            defer_to_thread=partial(deferToThreadPool, self._reactor, self._reactor.getThreadPool()),
            commit_stats=commit_stats,
            certificates=certificates,
        )
        # Only now: a store that could not be read must not be marked as cleanly closed.
        self._up, self._store = up, store
        if warning := clock.begin(recovered.mark):
            self.log.warn("Clock: {warning}", warning=warning)
        for plan in up.broker.restore(recovered):
            up.committer.submit(plan, lambda _: None)
        return up

    def _refuse_when_stopping(self) -> None:
        """Raise `Stopping` if the server was stopped during its start."""
        if not self.running:
            raise Stopping("the server is stopping")

    def _announce(self, settings: Settings, up: Running, store: RocksStore) -> None:
        stats = up.broker.stats()
        queues, leases = counted(stats.queues, "queue"), counted(stats.leases, "lease")
        self.log.info(
            "Data in {path}: {holds}; recovered in {seconds:.2f} s{unclean}",
            path=str(settings.data_dir.resolve()),
            holds=f"{counted(stats.items, 'item')} in {queues}, {leases}",
            items=stats.items,
            queues=stats.queues,
            leases=stats.leases,
            seconds=self._progress.seconds,
            unclean="" if store.clean_shutdown else " after an unclean stop",
        )
        self.log.info(
            "Workers: {threads}; a claim serves up to {serves}, a commit waits {window} ms for more;"
            " durability: {durability}",
            threads=counted(settings.workers, "storage thread"),
            serves=f"{counted(settings.claim.polls, 'poll')} and {counted(settings.claim.items, 'item')}",
            workers=settings.workers,
            polls=settings.claim.polls,
            items=settings.claim.items,
            window=settings.window_ms,
            durability=settings.durability.value,
        )
        chosen, fixed = describe(settings.tuning, store.in_force), ", ".join(map(" ".join, store.fixed_options.items()))
        self.log.info("Storage engine runs with {chosen}; always: {fixed}", chosen=chosen, fixed=fixed)

    async def _listen(self, settings: Settings, up: Running, certificates: Certificates | None) -> None:
        wanted: list[tuple[str, Listen, IProtocolFactory]] = [("listen", each, up.factory) for each in settings.listen]
        if certificates is not None:
            secured = certificates.secure(up.factory, up.factory.connections)
            wanted += [("listen-tls", each, secured) for each in settings.listen_tls]
        for option, listen, factory in wanted:
            port = await start_listening(self._reactor, listen, factory, option, self._bound.endpoint_of)
            up.ports.append(port)
            how = " with TLS" if option == "listen-tls" else ""
            self.log.info("Listening on {address}{how}", address=address_of(port), how=how)
            if option == "listen":
                self._plaintext.append(port)
        if self._demands_certificates:
            self._warn_of_plaintext()
        control = start_control(self._reactor, settings.data_dir, up.control, self.log)
        if control is not None:
            up.ports.append(control)

    @property
    def _demands_certificates(self) -> bool:
        """Return whether clients need a certificate at the addresses with TLS."""
        certificates = self._up.diagnostics.certificates if self._up is not None else None
        return certificates is not None and certificates.files.client_ca is not None

    def _warn_of_plaintext(self) -> None:
        """Log the addresses that do not require a client certificate, while others do."""
        if self._plaintext:
            message = "No client certificate is asked for at {addresses}: every peer that can connect there is let in"
            log = self.log.info if all(map(is_guarded, self._plaintext)) else self.log.warn
            log(message, addresses=", ".join(map(address_of, self._plaintext)))

    def _start_watchdog(self, up: Running) -> None:
        """Notify the supervisor periodically that the reactor runs."""
        if self._notifier.watchdog_seconds is not None:
            timer = periodic_timer(self._reactor, self._notifier.watchdog_seconds / 2, self._notifier.alive)
            timer.startService()
            up.timers.append(timer)

    def _failed(self, failure: Failure) -> None:
        self._bound.close()
        why = reason(failure.value) if failure.value is not None else failure.getErrorMessage()
        if failure.check(Stopping):
            self._launcher.failed(1, why)
            self._stopped_early = True
            return
        status = EX_CONFIG if failure.check(CertificateUnusable, NotPassed, TooFewDescriptors) else EX_IOERR
        if failure.check(StorageError, ListenFailed, NotPassed, CertificateUnusable, TooFewDescriptors, OSError):
            self.log.critical("Cannot start: {why}", why=why, final=True)
        else:
            self.log.failure("Cannot start", failure)
            why = f"{failure.type.__name__}: {why}" if failure.type else why
            self.log.critical("Cannot start: a bug in Queueber, {why}", why=why, final=True)
        self._reactor.addSystemEventTrigger("after", "shutdown", self._exit, status, why)
        self._reactor.stop()

    def _exit(self, status: int, why: str) -> None:
        self._launcher.remove_pid_file()
        self._launcher.failed(status, why)
        _exit(status)

    def stopService(self) -> Deferred[None]:
        """
        Stop in order: connections, new calls, calls under way, the last commit, the store.

        The result fires when the store is closed.  A failure ends the process with status 74.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._notifier.stopping()
        if self._restore_handlers:
            # The reactor takes a second one for a mistake, and says so with a traceback.
            self._restore_handlers.append(
                on_signals(self._reactor, (signal.SIGTERM, signal.SIGINT), self._stopping_already)
            )
        if self._recovering is not None:
            self._recovering.cancel_recovery()
        return ensureDeferred(self._stop()).addErrback(self._stop_failed).addBoth(self._restore_all_handlers)

    def _stopping_already(self) -> None:
        self.log.info("Already stopping: waiting {stage}", stage=self._shutdown.stage)

    def _restore_all_handlers(self, outcome: None) -> None:
        # Only now: the default action of a signal during the shutdown would end the process.
        while self._restore_handlers:
            self._restore_handlers.pop()()
        return outcome

    def _stop_failed(self, failure: Failure) -> None:
        end_process(self.log, "Stopping failed", failure.value or RuntimeError("no reason given"))

    async def _stop(self) -> None:
        await self._starting
        up = self._up
        if up is not None:
            await self._shutdown.run(up)
            await self._monitoring.close()
            self._shutdown.at("for the store to close")
            await self._pool.run(self._store.close)
            self._up = None
        else:
            await self._monitoring.close()
        self._pool.stop()
        if self._stopped_early:
            self._log_end("Stopped before it served; everything is on disk ({signal})")
        elif up is not None and up.ports:
            self._log_end("Stopped; everything is on disk ({signal})")

    def _log_end(self, line: str) -> None:
        number = getattr(self._reactor, "_exitSignal", None)
        by = signal.Signals(number).name if number is not None else "not by a signal"
        self.log.info(line, signal=by, final=True)
