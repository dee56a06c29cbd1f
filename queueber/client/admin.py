"""What only the local administrator may ask, through the control socket of a server."""

import os

from twisted.internet.defer import Deferred, fail

from queueber.client.arguments import flag, path
from queueber.client.service import Connector
from queueber.errors import InvalidRequest
from queueber.wire import Results, admin


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
            return fail(why)
        return self._connector.call(
            None, admin.CHECK, content, admin.read_check_response, interface=admin.ADMIN_INTERFACE_ID
        )

    def backup(self, target: str | os.PathLike[str]) -> Deferred[None]:
        """
        Put all that was committed so far into *target* on the server's machine: a directory that is not there or empty.

        Returns:
            Fires when it is there and on disk.
        """
        try:
            content = admin.write_backup_request(os.fsencode(path("target", target).absolute()))
        except InvalidRequest as why:
            return fail(why)
        return self._connector.call(None, admin.BACKUP, content, _nothing, interface=admin.ADMIN_INTERFACE_ID)

    def backup_progress(self) -> Deferred[tuple[int, int]]:
        """How many bytes of the backup under way are copied, and of how many."""
        content = admin.write_no_params(admin.BACKUP_PROGRESS)
        return self._connector.call(
            None, admin.BACKUP_PROGRESS, content, admin.read_progress_response, interface=admin.ADMIN_INTERFACE_ID
        )


def _nothing(_: Results) -> None:
    """What a call without results gives."""
