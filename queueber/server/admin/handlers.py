"""The administrator's methods, beside those that everybody has."""

import os
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber import __version__, rpc
from queueber.api import admin
from queueber.broker import Broker
from queueber.errors import InvalidRequest, Overloaded, QueueberError, RemoteProtocolError
from queueber.limits import Limits
from queueber.paths import identity
from queueber.server.core.committer import Committer
from queueber.server.core.handlers import QueueHandlers, ReplySink
from queueber.server.core.reserve import Reserve
from queueber.server.net.connections import Connections
from queueber.units import MS_PER_SECOND

CHECKED_MAX = 50_000
"""Things that are looked at without being forced to: about a tenth of a second."""


class Backed(Protocol):
    """A store that can be backed up."""

    def backup(self, target: Path, progress: Callable[[int, int], None]) -> None:
        """Put everything committed so far into *target*."""


class AdminRoot:
    """What a connection to the control socket bootstraps."""


@define(eq=False, kw_only=True)
class AdminHandlers:
    """
    Carries out the administrator's calls, and hands all others on to the server's ordinary methods.

    The handlers of the control socket's connections, as `QueueHandlers` are those of all others.
    """

    reactor: Any
    methods: QueueHandlers
    broker: Broker
    committer: Committer
    connections: Connections
    limits: Limits
    reserve: Reserve
    store: Backed
    run: Callable[..., Deferred[Any]]
    """
    Calls a function on a thread and fires when it is done.

    Not one of the storage pool's: a backup may take its time, and if there is one only, every commit would wait for it.
    """

    flush: Callable[[], None]
    """Sends what has been said."""

    root: AdminRoot = field(factory=AdminRoot)
    _began: float = field(init=False)
    _progress: tuple[int, int] | None = field(default=None, init=False)
    """Of the backup under way."""

    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Remember when the server was started."""
        self._began = self.reactor.seconds()

    @property
    def outstanding(self) -> int:
        """Calls that have not been answered, whoever made them."""
        return self.methods.outstanding

    @outstanding.setter
    def outstanding(self, value: int) -> None:
        self.methods.outstanding = value

    def call(self, sink: ReplySink, calls: rpc.Calls) -> None:
        """
        Carry out *calls*; *sink* takes each reply, now or later.

        Raises:
            RemoteProtocolError: the parameters cannot be read.
        """
        mine = {
            admin.STATS: self._stats,
            admin.CHECK: self._check,
            admin.BACKUP: self._backup,
            admin.BACKUP_PROGRESS: self._backup_progress,
        }
        if calls.target is not self.root:
            self.methods.call(sink, calls)
        elif calls.interface_id != admin.ADMIN_INTERFACE_ID or calls.method_id not in mine:
            self.methods.call(sink, evolve(calls, target=self.methods.root))
        else:
            self.outstanding += 1
            try:
                mine[calls.method_id](sink, calls)
            except RemoteProtocolError:
                self.outstanding -= 1
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
        size = size_of(self.broker, self.limits)
        if size > CHECKED_MAX and not admin.read_check_request(calls.params):
            raise InvalidRequest(
                f"there are {size:,} things to look at, and nobody is served meanwhile; beyond {CHECKED_MAX:,} it is"
                " done by force only"
            )
        found = check(self.broker, self.reactor.seconds)
        if found.error is not None:
            self.log.failure("The server's memory contradicts itself", Failure(found.error))
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
        """On a thread: back up to *target*, unless its path leads elsewhere than to what the client has *seen*."""
        if any(seen) and not _leads_to(target, seen):
            return admin.BackupMade(elsewhere=True)
        self.store.backup(target, self._told)
        return admin.BackupMade(*identity(target))

    def _told(self, done: int, total: int) -> None:
        # From the backup's thread: a single assignment, which the reactor's thread sees whole.
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
            # Whoever may open the socket may know files and their names.
            sink.error(answer, InvalidRequest.kind, outcome.getErrorMessage())
        self.flush()

    def _backup_progress(self, sink: ReplySink, calls: rpc.Calls) -> None:
        sink.results([calls.answer], [admin.write_progress_response(*(self._progress or (0, 0)))])


def _leads_to(target: Path, seen: tuple[int, int]) -> bool:
    try:
        return identity(target) == seen
    except OSError:
        return True  # what may not even be looked at cannot be written to either, which the backup will say


@frozen
class SelfCheck:
    """What came of it."""

    finding: str
    """What disagrees, and where that was noticed; empty if nothing does."""

    error: AssertionError | None
    took_ms: float


def size_of(broker: Broker, limits: Limits) -> int:
    """How many things there are to be looked at."""
    size = len(broker.queues) + broker.leases.items + broker.polls.waiting
    # All windows together are bounded, but not to nothing.
    return size + broker.queues.window_bytes // limits.item_overhead


def check(broker: Broker, seconds: Callable[[], float]) -> SelfCheck:
    """Compare all parts of *broker*; the caller stands still meanwhile, as long as *seconds* says."""
    began = seconds()
    finding, error = "", None
    try:
        broker.check()
    except AssertionError as why:
        error = why
        where = traceback.extract_tb(why.__traceback__)[-1]
        finding = f"{str(why) or 'the parts of the server disagree'} ({where.name}: {where.line})"
    return SelfCheck(finding, error, (seconds() - began) * MS_PER_SECOND)
