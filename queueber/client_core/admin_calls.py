"""The calls of the administrative interface of a local server, with the checks of their arguments."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from queueber import rpc
from queueber.api import admin
from queueber.client_core.arguments import flag, path
from queueber.client_core.calls import Call
from queueber.client_core.errors import DifferentDirectory
from queueber.process import directory_identity

T = TypeVar("T")


class AdminCalls:
    """The calls of a server's control socket; errors are those of `QueueCalls`."""

    def stats(self) -> Call[admin.ServerStats]:
        """Ask for the numbers of queues, items, leases, connections and more."""
        return _call(admin.SERVER_STATS, admin.write_no_params(admin.SERVER_STATS), admin.read_stats_response)

    def check(self, *, force: bool = False) -> Call[admin.Checked]:
        """Ask the server to check its memory for consistency."""
        content = admin.write_check_request(force=flag("force", force))
        return _call(admin.CHECK, content, admin.read_check_response, wait_ms=None)

    def backup(self, target: str | os.PathLike[str]) -> Call[None]:
        """Write a backup to *target*; the result is an error if the server has another directory there."""
        where = path("target", target).absolute()
        content = admin.write_backup_request(admin.BackupRequest(os.fsencode(where), *_identity(where)))

        def read(results: rpc.Results) -> None:
            _check_same_directory(where, admin.read_backup_response(results))

        return _call(admin.BACKUP, content, read, wait_ms=None)

    def backup_progress(self) -> Call[tuple[int, int]]:
        """Ask for the progress of the backup under way: bytes copied, and bytes in all."""
        content = admin.write_no_params(admin.BACKUP_PROGRESS)
        return _call(admin.BACKUP_PROGRESS, content, admin.read_progress_response)


def _call(method: int, content: bytes, read: Callable[[rpc.Results], T], *, wait_ms: int | None = 0) -> Call[T]:
    return Call(None, admin.ADMIN_INTERFACE_ID, method, content, read, wait_ms)


def _identity(where: Path) -> tuple[int, int]:
    try:
        return directory_identity(where)
    except OSError:
        return 0, 0


def _check_same_directory(where: Path, made: admin.BackupMade) -> None:
    """
    Check that the directory at *where* is the backup that was *made*.

    Raises:
        DifferentDirectory: it is another directory; the server may have made a backup or refused for that reason.
    """
    if made.elsewhere:
        raise DifferentDirectory(
            f"{where} is another directory for the server, which has its own view of the file system"
            " (a container, or PrivateTmp= and the like in its unit): nothing was done"
        )
    try:
        found = where.stat()
    except OSError as why:
        raise DifferentDirectory(
            f"the server has made a backup at its {where}, which cannot be seen here: {why.strerror}"
        ) from None
    if (made.device or made.inode) and (made.device, made.inode) != (found.st_dev, found.st_ino):
        raise DifferentDirectory(f"the server has made a backup at its {where}, which is another directory here")
