"""
The service: the life of a server between its start, its reloads on SIGHUP and its stop.

No file is opened, no thread started and no address bound before the service
starts, because twistd forks between creating a service and starting it.
"""

import gc
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from queueber import __version__
from queueber.errors import Stopping, StorageError, reason
from queueber.server.app.composition import ServerParts, end_process
from queueber.server.app.daemonize import Launcher
from queueber.server.app.endpoints import MonitoringEndpoints
from queueber.server.app.entry import SIGNALS
from queueber.server.app.fd_limit import TooFewDescriptors
from queueber.server.app.logs import Log
from queueber.server.app.reload import ConfigReloader, on_signals
from queueber.server.app.sd_notify import Notifier, StartupProgress
from queueber.server.app.shutdown import GracefulShutdown
from queueber.server.app.startup import Startup
from queueber.server.config.settings import Settings
from queueber.server.core.clock import periodic_timer
from queueber.server.core.pool import StoragePool
from queueber.server.net.bound_sockets import BoundPorts
from queueber.server.net.certificates import CertificateUnusable
from queueber.server.net.listeners import (
    ListenFailed,
    NotPassed,
)
from queueber.store import RocksStore
from queueber.units import counted

SWITCH_SECONDS = 0.000_5
"""
The interpreter's switch interval.

With the default of 5 ms, a storage thread whose fsync has returned would wait so long for a busy reactor, and all
replies of the commit with it.
"""

GC_THRESHOLDS = (100_000, 50, 1_000)
"""
The garbage collector's thresholds.

Nearly all objects, items and leases above all, live long and are in no cycle.  With the default thresholds, traversing
them repeatedly took a fifth of the time.
"""

_exit = os._exit


@implementer(IService)
class QueueberService(Service):
    """A server: opens the store, recovers its state, listens, and stops in the reverse order."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401
        settings: Settings,
        *,
        reload: Callable[[], tuple[Settings, Mapping[str, str]]] | None = None,
        log: Log | None = None,
        launcher: Launcher | None = None,
        pool: StoragePool | None = None,
    ) -> None:
        """
        Create a server with *settings*; *reload* reads them again.

        *log* is the server's own log, if it has one; *launcher* is the twistd or twist that runs it;
        *pool* replaces the storage pool.
        """
        self._launcher = launcher or Launcher()
        self._bound = BoundPorts(reactor)
        self._reactor = reactor
        self._settings = settings
        self._reread = reload or (lambda: (settings, {}))
        self._log = log
        self._pool = pool or StoragePool(reactor, settings.workers)
        self._notifier = Notifier.from_environment()
        self._progress = StartupProgress(reactor, self._notifier)
        self._startup = Startup(reactor, settings, self._pool, self._bound, self._progress, self.log)
        self._shutdown = GracefulShutdown(reactor, settings.drain_seconds, self._notifier)
        self._monitoring = MonitoringEndpoints(
            reactor, settings.http, settings.console, settings.durability.value, self._stage, self._bound
        )
        self._up: ServerParts | None = None
        self._store: RocksStore
        self._starting: Deferred[None] = succeed(None)
        self._reloader: ConfigReloader | None = None
        self._stopped_early = False
        self._restore_handlers: list[Callable[[], None]] = []

    @property
    def parts(self) -> ServerParts | None:
        """The parts of the server while it serves; None before and after."""
        return self._up if self._reloader is not None else None

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
            self._reloader.reload()

    async def _start(self) -> None:
        self.log.info("Queueber {version}", version=__version__)
        descriptors, certificates = self._startup.check()
        await self._monitoring.open_pages(descriptors.pages)
        up, self._store = await self._startup.recover(descriptors, certificates)
        self._up = up
        # One of the timers measures the free space.
        for timer in up.timers:
            timer.startService()
        await self._startup.listen(up, certificates)
        await self._monitoring.open(up.diagnostics)
        console = self._settings.console
        file = None if console is None else console.password_file
        self._reloader = ConfigReloader(self._reread, certificates, self._log, self._startup.plaintext, file)
        self._start_watchdog(up)
        self._launcher.started()
        self._notifier.ready(f"Serving; {counted(up.broker.stats().items, 'item')} at start")

    def _start_watchdog(self, up: ServerParts) -> None:
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
        status = os.EX_CONFIG if failure.check(CertificateUnusable, NotPassed, TooFewDescriptors) else os.EX_IOERR
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
            # The reactor would log a traceback for a second stop signal.
            self._restore_handlers.append(
                on_signals(self._reactor, (signal.SIGTERM, signal.SIGINT), self._stopping_already)
            )
        self._startup.cancel()
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
