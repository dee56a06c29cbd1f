"""What only the local administrator may ask, through the control socket of a server."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from queueber.client.arguments import flag, path
from queueber.client.errors import OutOfSight, failed
from queueber.errors import InvalidRequest
from queueber.paths import identity
from queueber.wire import admin

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from queueber.client.service import Connector


class Admin:
    """
    The administrator's side of a server; `Client.admin` is it.

    On a connection that is not to a control socket every call fails with
    `Unimplemented`.  Methods give Deferreds, as those of queues do.
    """

    def __init__(self, connector: Connector) -> None:
        """`Client` makes it."""
        self._connector = connector

    def stats(self) -> Deferred[admin.ServerStats]:
        """How much there is of everything."""
        content = admin.write_no_params(admin.STATS)
        return self._connector.call(
            None, admin.STATS, content, admin.read_stats_response, interface=admin.ADMIN_INTERFACE_ID
        )

    def check(self, *, force: bool = False) -> Deferred[admin.Checked]:
        """
        What the server finds when it compares its memory with itself, serving nobody meanwhile.

        Of much, which takes long, only with *force*; `InvalidRequest` otherwise.
        """
        try:
            content = admin.write_check_request(force=flag("force", force))
        except InvalidRequest as why:
            return failed(why)
        return self._connector.call(
            None, admin.CHECK, content, admin.read_check_response, interface=admin.ADMIN_INTERFACE_ID, wait_ms=None
        )

    def backup(self, target: str | os.PathLike[str]) -> Deferred[None]:
        """
        Put all that was committed so far into *target* on the server's machine: a directory that is not there or empty.

        Returns:
            Fires when it is there, on disk and in sight of this process; fails with `OutOfSight` if the server has
            another directory at that path.
        """
        try:
            where = path("target", target).absolute()
            content = admin.write_backup_request(admin.BackupRequest(os.fsencode(where), *_identity(where)))
        except InvalidRequest as why:
            return failed(why)
        made = self._connector.call(
            None, admin.BACKUP, content, admin.read_backup_response, interface=admin.ADMIN_INTERFACE_ID, wait_ms=None
        )
        return made.addCallback(partial(_check_in_sight, where))

    def backup_progress(self) -> Deferred[tuple[int, int]]:
        """How many bytes of the backup under way are copied, and of how many."""
        content = admin.write_no_params(admin.BACKUP_PROGRESS)
        return self._connector.call(
            None, admin.BACKUP_PROGRESS, content, admin.read_progress_response, interface=admin.ADMIN_INTERFACE_ID
        )


def _identity(where: Path) -> tuple[int, int]:
    try:
        return identity(where)
    except OSError:
        return 0, 0


def _check_in_sight(where: Path, made: admin.BackupMade) -> None:
    """
    See to it that the backup at *where* is the one that was *made*.

    Raises:
        OutOfSight: it is not, or it was not made because it would not be.
    """
    if made.elsewhere:
        raise OutOfSight(
            f"{where} is another directory for the server, which has a view of the file system of its own"
            " (a container, or PrivateTmp= and the like in its unit): nothing was done"
        )
    try:
        found = where.stat()
    except OSError as why:
        raise OutOfSight(
            f"the server has made a backup at its {where}, which is not to be seen here: {why.strerror}"
        ) from None
    if (made.device or made.inode) and (made.device, made.inode) != (found.st_dev, found.st_ino):
        raise OutOfSight(f"the server has made a backup at its {where}, which is another directory here")
