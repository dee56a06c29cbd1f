"""The methods of the control socket: statistics, self-check and backup, in addition to those of all connections."""

import os
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber import __version__, rpc
from queueber.api import admin
from queueber.broker import Broker
from queueber.errors import InvalidRequest, Overloaded, QueueberError, RemoteProtocolError
from queueber.limits import Limits
from queueber.process import directory_identity
from queueber.server.core.committer import Committer
from queueber.server.core.handlers import QueueHandlers
from queueber.server.core.replies import ReplySink
from queueber.server.core.reserve import Reserve
from queueber.server.net.connections import Connections
from queueber.units import MS_PER_SECOND

CHECKED_MAX = 50_000
"""Objects that are checked without force, which takes about a tenth of a second."""


class BackupStore(Protocol):
    """A store that can be backed up."""

    def backup(self, target: Path, progress: Callable[[int, int], None]) -> None:
        """Copy all committed data to *target*."""


class AdminRoot:
    """The bootstrap object of the control socket."""


@define(eq=False, kw_only=True)
class AdminHandlers:
    """
    The handlers of the control socket's connections.

    Calls of other methods are passed to `QueueHandlers`, the handlers of all other connections.
    """

    reactor: Any
    handlers: QueueHandlers
    broker: Broker
    committer: Committer
    connections: Connections
    limits: Limits
    reserve: Reserve
    store: BackupStore
    run: Callable[..., Deferred[Any]]
    """
    Calls a function in a thread, and returns a Deferred with its result.

    Not a thread of the storage pool: commits would wait for a long backup if the pool has one thread only.
    """

    flush: Callable[[], None]
    """Sends the replies that are ready."""

    root: AdminRoot = field(factory=AdminRoot)
    _began: float = field(init=False)
    _progress: tuple[int, int] | None = field(default=None, init=False)
    """The bytes copied and the total of the backup under way; None without one."""

    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Note the time of the start."""
        self._began = self.reactor.seconds()

    def call(self, sink: ReplySink, calls: rpc.Calls) -> None:
        """
        Handle *calls*.  Replies are given to *sink*, now or later.

        Raises:
            RemoteProtocolError: the parameters cannot be read.
        """
        mine = {
            admin.SERVER_STATS: self._stats,
            admin.CHECK: self._check,
            admin.BACKUP: self._backup,
            admin.BACKUP_PROGRESS: self._backup_progress,
        }
        if calls.target is not self.root:
            self.handlers.call(sink, calls)
        elif calls.interface_id != admin.ADMIN_INTERFACE_ID or calls.method_id not in mine:
            self.handlers.call(sink, calls._replace(target=self.handlers.root))
        else:
            self.handlers.stats.outstanding += 1
            try:
                mine[calls.method_id](sink, calls)
            except RemoteProtocolError:
                self.handlers.stats.outstanding -= 1
                raise
            except QueueberError as why:
                sink.error(calls.answer, why.kind, str(why))

    def _stats(self, sink: ReplySink, calls: rpc.Calls) -> None:
        stats, reserve = self.broker.stats(), self.reserve
        content = admin.ServerStats(
            version=__version__,
            uptime_ms=int((self.reactor.seconds() - self._began) * MS_PER_SECOND),
            queues=stats.queues,
            items=stats.items,
            leases=stats.leases,
            leased_items=stats.leased_items,
            waiting_polls=stats.waiting_polls,
            connections=len(self.connections),
            window_bytes=stats.window_bytes,
            pending_bytes=self.committer.pending_bytes,
            commits=self.committer.commits,
            free_bytes=reserve.space.free,
            reserve_bytes=reserve.bytes,
            refusing_adds=reserve.low or self.committer.stalled,
            limit_hits=dict(self.broker.limit_hits),
        )
        sink.results([calls.answer], [admin.write_stats_response(content)])

    def _check(self, sink: ReplySink, calls: rpc.Calls) -> None:
        size = object_count(self.broker, self.limits)
        if size > CHECKED_MAX and not admin.read_check_request(calls.params):
            raise InvalidRequest(
                f"there are {size:,} objects to check, and no calls are served meanwhile; beyond {CHECKED_MAX:,}"
                " objects a check must be forced"
            )
        found = check(self.broker, self.reactor.seconds)
        if found.error is not None:
            self.log.failure("The server's state in memory is inconsistent", Failure(found.error))
        findings = [found.finding] if found.finding else []
        sink.results([calls.answer], [admin.write_check_response(admin.Checked(findings, int(found.took_ms)))])

    def _backup(self, sink: ReplySink, calls: rpc.Calls) -> None:
        request = admin.read_backup_request(calls.params)
        target = Path(os.fsdecode(request.path))
        if not target.is_absolute() or "\0" in str(target):
            raise InvalidRequest(f"path is {str(target)!r}; it must be absolute")
        if self._progress is not None:
            raise Overloaded("a backup is under way; try again when it is done")
        self._progress = (0, 0)
        self.log.info("Backing up to {target}", target=str(target))
        done = self.run(self._make_backup, target, (request.device, request.inode))
        done.addBoth(partial(self._backed_up, sink, calls.answer, target))

    def _make_backup(self, target: Path, seen: tuple[int, int]) -> admin.BackupMade:
        """Back up to *target* in a thread, unless its path leads to another directory than the client has *seen*."""
        if any(seen) and not _leads_to(target, seen):
            return admin.BackupMade(elsewhere=True)
        self.store.backup(target, self._set_progress)
        return admin.BackupMade(*directory_identity(target))

    def _set_progress(self, done: int, total: int) -> None:
        # Called in the backup's thread.  The assignment is atomic for the reactor's thread.
        self._progress = (done, total)

    def _backed_up(
        self, sink: ReplySink, answer: rpc.AnswerId, target: Path, outcome: Failure | admin.BackupMade
    ) -> None:
        self._progress = None
        if isinstance(outcome, admin.BackupMade):
            done = (
                "Not backed up: {target} is another directory for the client"
                if outcome.elsewhere
                else "Backed up to {target}"
            )
            self.log.info(done, target=str(target))
            sink.results([answer], [admin.write_backup_response(outcome)])
        else:
            self.log.warn("The backup failed: {why}", why=outcome.getErrorMessage())
            # A client that may open the control socket may see the names of files.
            sink.error(answer, InvalidRequest.kind, outcome.getErrorMessage())
        self.flush()

    def _backup_progress(self, sink: ReplySink, calls: rpc.Calls) -> None:
        sink.results([calls.answer], [admin.write_progress_response(*(self._progress or (0, 0)))])


def _leads_to(target: Path, seen: tuple[int, int]) -> bool:
    try:
        return directory_identity(target) == seen
    except OSError:
        return True  # a path that cannot be read cannot be written either, which the backup reports


@frozen
class SelfCheck:
    """The result of a self-check."""

    finding: str
    """The inconsistency, and where it was found; empty without one."""

    error: AssertionError | None
    took_ms: float


def object_count(broker: Broker, limits: Limits) -> int:
    """Return the number of objects that a self-check visits."""
    size = len(broker.queues) + broker.leases.items + broker.polls.waiting
    # The memory of all windows is bounded, but the number of their items can be large.
    return size + broker.queues.windows.bytes // limits.item_overhead


def check(broker: Broker, seconds: Callable[[], float]) -> SelfCheck:
    """Check the consistency of *broker*, which blocks the caller; *seconds* is the clock for the duration."""
    began = seconds()
    finding, error = "", None
    try:
        broker.check()
    except AssertionError as why:
        error = why
        where = traceback.extract_tb(why.__traceback__)[-1]
        finding = f"{str(why) or 'the state is inconsistent'} ({where.name}: {where.line})"
    return SelfCheck(finding, error, (seconds() - began) * MS_PER_SECOND)
