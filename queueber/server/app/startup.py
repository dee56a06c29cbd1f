"""
Start a server in order: file descriptors, certificates, store, recovery, listeners.

Mistakes of an operator are found first, before any file is open.  A start can be
cancelled until the store is recovered.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from attrs import define, evolve, field
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from queueber.errors import Stopping
from queueber.server.admin.control_socket import start_control
from queueber.server.app.composition import ServerParts, assemble, end_process
from queueber.server.app.endpoints import PAGE_CONNECTIONS_MAX
from queueber.server.app.fd_limit import Descriptors, allocate
from queueber.server.app.sd_notify import StartupProgress
from queueber.server.config.settings import Settings
from queueber.server.core.clock import QueueClock, read_boot_id
from queueber.server.core.pool import StoragePool
from queueber.server.core.stats import CommitStats
from queueber.server.net.bound_sockets import BoundPorts
from queueber.server.net.certificates import Certificates
from queueber.server.net.listeners import Listen, address_of, check_passed, is_guarded, start_listening
from queueber.store import RocksStore, open_store, unflushed_bytes, wipe
from queueber.store.tuning import describe
from queueber.units import MS_PER_SECOND, SpanMs, Unit, counted, quantity


@define(eq=False)
class Startup:
    """The start of a server.  The service calls its public methods in their order."""

    _reactor: Any
    _settings: Settings
    _pool: StoragePool
    _bound: BoundPorts
    _progress: StartupProgress
    _log: Logger
    plaintext: list[IListeningPort] = field(factory=list, init=False)
    """The ports without TLS."""

    _cancelled: bool = field(default=False, init=False)
    _converted: tuple[int, int] | None = field(default=None, init=False)
    """The number of items of older data that were converted to the present format, and the number of all of them."""

    _recovering: RocksStore | None = field(default=None, init=False)

    def cancel(self) -> None:
        """Have the start end with `Stopping`.  Has no effect after `recover`."""
        self._cancelled = True
        if self._recovering is not None:
            self._recovering.cancel_recovery()

    def check(self) -> tuple[Descriptors, Certificates | None]:
        """
        Allocate file descriptors, bind the addresses, and load the certificates.

        Raises:
            QueueberError: one of them is unusable.
        """
        settings = self._settings
        pages = PAGE_CONNECTIONS_MAX if settings.http is not None else 0
        wanted = settings.limits.connections, settings.tuning.open_files, pages
        descriptors = allocate(*wanted, self._log.warn, self._log.info)
        check_passed(settings.places)
        self._bound.bind(settings.places)
        self._bound.check()
        certificates = Certificates(settings.tls) if settings.tls is not None else None
        if certificates is not None:
            certificates.load()
        return descriptors, certificates

    async def recover(
        self, descriptors: Descriptors, certificates: Certificates | None
    ) -> tuple[ServerParts, RocksStore]:
        """
        Open the store, and assemble the server with the state in it.

        Raises:
            Stopping: the start was cancelled.  The store is closed.
            StorageError: the store cannot be opened or read.  It stays open, and so is not marked as cleanly closed.
        """
        settings = self._settings
        self._check_cancelled()
        if settings.wipe:
            await self._wipe()
        log_bytes = await self._pool.run(unflushed_bytes, settings.data_dir)
        opening = f"opening the store, {quantity(log_bytes, Unit.BYTES)} of log to read"
        self._progress.at(lambda: self._converting() or opening)
        commit_stats = CommitStats()
        store = await self._pool.run(
            open_store,
            settings.data_dir,
            durability=settings.durability,
            encoding=settings.encoding,
            tuning=evolve(settings.tuning, open_files=descriptors.tables),
            boot_id=read_boot_id(),
            # Logged at once, from the storage thread: a later start would not find out.
            report=lambda why: self._log.warn("Cut off the damaged end of the log: {why}", why=why),
            on_sync=commit_stats.syncs.observe,
            upgrading=self._note_converted,
        )
        self._recovering = store
        self._progress.at(lambda: f"reading leases, {store.recovered_leases:,} so far")
        try:
            self._check_cancelled()
            recovered = await self._pool.run(store.recover)
            self._check_cancelled()
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
            end=partial(end_process, self._log),
            defer_to_thread=partial(deferToThreadPool, self._reactor, self._reactor.getThreadPool()),
            commit_stats=commit_stats,
            certificates=certificates,
        )
        if warning := clock.begin(recovered.mark):
            self._log.warn("Clock: {warning}", warning=warning)
        grace = SpanMs(int(settings.lease_restart_grace * MS_PER_SECOND))
        for plan in up.broker.restore(recovered, clock.now(), grace):
            up.committer.submit(plan, lambda _: None)
        self._announce(up, store)
        return up, store

    def _note_converted(self, done: int, total: int) -> None:
        """Note the progress of a conversion of the data, on the storage thread; end it if the start was cancelled."""
        self._converted = done, total
        self._check_cancelled()

    def _converting(self) -> str:
        """Describe the conversion of the data to the present format; empty if there was none."""
        if self._converted is None:
            return ""
        done, total = self._converted
        return f"converting the data to a newer format, {done:,} of {counted(total, 'item')}"

    async def _wipe(self) -> None:
        # A wipe cannot be undone, so all else that may prevent the start comes first.  The pages are already open.
        await self._bound.reserve(place for place in self._settings.places if place[0] != "http")
        self._check_cancelled()
        await self._pool.run(wipe, self._settings.data_dir)
        self._check_cancelled()

    def _check_cancelled(self) -> None:
        if self._cancelled:
            raise Stopping("the server is stopping")

    def _announce(self, up: ServerParts, store: RocksStore) -> None:
        if converting := self._converting():
            self._log.info("Finished {converting}", converting=converting)
        settings, stats = self._settings, up.broker.stats()
        queues, leases = counted(stats.queues, "queue"), counted(stats.leases, "lease")
        self._log.info(
            "Data in {path}: {holds}; recovered in {seconds:.2f} s{unclean}",
            path=str(settings.data_dir.resolve()),
            holds=f"{counted(stats.items, 'item')} in {queues}, {leases}",
            items=stats.items,
            queues=stats.queues,
            leases=stats.leases,
            seconds=self._progress.seconds,
            unclean="" if store.clean_shutdown else " after an unclean stop",
        )
        self._log.info(
            "Workers: {threads}; a claim serves up to {serves}, a commit waits {window} ms for more;"
            " durability: {durability}",
            threads=counted(settings.workers, "storage thread"),
            serves=f"{counted(settings.claim.polls, 'poll')} and {counted(settings.claim.items, 'item')}",
            workers=settings.workers,
            polls=settings.claim.polls,
            items=settings.claim.items,
            window=settings.coalesce_batch_window_ms,
            durability=settings.durability.value,
        )
        chosen, fixed = describe(settings.tuning, store.in_force), ", ".join(map(" ".join, store.fixed_options.items()))
        self._log.info("Storage engine runs with {chosen}; always: {fixed}", chosen=chosen, fixed=fixed)

    async def listen(self, up: ServerParts, certificates: Certificates | None) -> None:
        """
        Listen on all addresses, and on the control socket.

        Raises:
            ListenFailed: an address is in use, or not of this machine.
        """
        settings = self._settings
        wanted: list[tuple[str, Listen, IProtocolFactory]] = [("listen", each, up.factory) for each in settings.listen]
        if certificates is not None:
            secured = certificates.secure(up.factory)
            wanted += [("listen-tls", each, secured) for each in settings.listen_tls]
        for option, listen, factory in wanted:
            port = await start_listening(self._reactor, listen, factory, option, self._bound.pop_endpoint)
            up.ports.append(port)
            how = " with TLS" if option == "listen-tls" else ""
            self._log.info("Listening on {address}{how}", address=address_of(port), how=how)
            if option == "listen":
                self.plaintext.append(port)
        if certificates is not None and certificates.files.client_ca is not None:
            warn_of_plaintext(self.plaintext, self._log)
        up.sessions.started()
        control = start_control(self._reactor, settings.data_dir, up.control, self._log)
        if control is not None:
            up.ports.append(control)


def warn_of_plaintext(ports: Sequence[IListeningPort], logger: Logger) -> None:
    """Log the addresses of *ports*, which do not require a client certificate while others do."""
    if ports:
        message = "No client certificate is asked for at {addresses}: every peer that can connect there is let in"
        log = logger.info if all(map(is_guarded, ports)) else logger.warn
        log(message, addresses=", ".join(map(address_of, ports)))
