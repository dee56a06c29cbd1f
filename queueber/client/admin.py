"""Administration of a local server through its control socket."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from queueber.api import admin
from queueber.client_core.admin_calls import AdminCalls

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from queueber.client.service import Connector


class Admin:
    """
    The administrative calls of a server; an attribute of `Client`.

    On any connection except to a control socket every call fails with
    `Unimplemented`.  Methods return Deferreds, as those of queues do.
    """

    def __init__(self, connector: Connector) -> None:
        """Created by `Client`."""
        self._start = connector.start
        self._calls = AdminCalls()

    def stats(self) -> Deferred[admin.ServerStats]:
        """Ask for the numbers of queues, items, leases, connections and more."""
        return self._start(self._calls.stats)

    def check(self, *, force: bool = False) -> Deferred[admin.Checked]:
        """
        Ask the server to check its memory for consistency.  It serves no other call during the check.

        If the server holds so much that the check takes long, *force* is needed; otherwise `InvalidRequest`.
        """
        return self._start(lambda: self._calls.check(force=force))

    def backup(self, target: str | os.PathLike[str]) -> Deferred[None]:
        """
        Write a backup of all commits so far to *target* on the server's machine, a missing or empty directory.

        Returns:
            Fires when the backup is on disk and visible to this process.  Fails with `DifferentDirectory` if the
            server has another directory at that path.
        """
        return self._start(lambda: self._calls.backup(target))

    def backup_progress(self) -> Deferred[tuple[int, int]]:
        """Ask for the progress of the backup under way: bytes copied, and bytes in all."""
        return self._start(self._calls.backup_progress)
