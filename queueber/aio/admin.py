"""Administration of a local server through its control socket."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from queueber.api import admin
from queueber.client_core.admin_calls import AdminCalls

if TYPE_CHECKING:
    from queueber.aio.connector import Connector


class Admin:
    """
    The administrative calls of a server; an attribute of `Client`.

    On any connection except to a control socket every call raises `Unimplemented`.
    """

    def __init__(self, connector: Connector) -> None:
        """Created by `Client`."""
        self._connector = connector
        self._calls = AdminCalls()

    async def stats(self) -> admin.ServerStats:
        """Ask for the numbers of queues, items, leases, connections and more."""
        return await self._connector.call(self._calls.stats())

    async def check(self, *, force: bool = False) -> admin.Checked:
        """
        Ask the server to check its memory for consistency.  It serves no other call during the check.

        If the server holds so much that the check takes long, *force* is needed; otherwise `InvalidRequest`.
        """
        return await self._connector.call(self._calls.check(force=force))

    async def backup(self, target: str | os.PathLike[str]) -> None:
        """
        Write a backup of all commits so far to *target* on the server's machine, a missing or empty directory.

        Returns once the backup is on disk and visible to this process.

        Raises:
            DifferentDirectory: the server has another directory at that path.
        """
        return await self._connector.call(self._calls.backup(target))

    async def backup_progress(self) -> tuple[int, int]:
        """Ask for the progress of the backup under way: bytes copied, and bytes in all."""
        return await self._connector.call(self._calls.backup_progress())
