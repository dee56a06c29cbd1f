"""The control socket in the data directory, over which a local administrator calls the server."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from queueber.errors import reason
from queueber.server.admin.handlers import AdminHandlers, BackupStore
from queueber.server.core.committer import Committer
from queueber.server.core.handlers import QueueHandlers
from queueber.server.core.reserve import Reserve
from queueber.server.net.context import ServerContext
from queueber.server.net.rpc_factory import ControlFactory
from queueber.store import CONTROL

CONTROL_SOCKET_MODE: Final = 0o600

PATH_BYTES_MAX: Final = 107
"""The longest path of a Unix socket that the kernel accepts."""

_NO_SOCKET: Final = "No control socket, and so no backup of the running server: {why}"


def control_socket_factory(
    public: ServerContext,
    reactor: Any,  # noqa: ANN401
    committer: Committer,
    reserve: Reserve,
    store: BackupStore,
    handlers: QueueHandlers,
    run: Callable[..., Deferred[Any]],
) -> ControlFactory:
    """
    Return the factory of the control socket, which shares all but the handlers with the *public* ports.

    *run* runs a backup in a thread for which no commit waits.
    """
    admin = AdminHandlers(
        reactor=reactor,
        handlers=handlers,
        broker=public.broker,
        committer=committer,
        connections=public.connections,
        limits=public.limits,
        reserve=reserve,
        store=store,
        run=run,
        flush=public.flush_queue.flush,
    )
    return ControlFactory(evolve(public, handlers=admin))


def start_control(reactor: Any, data_dir: Path, factory: ControlFactory, log: Logger) -> IListeningPort | None:  # noqa: ANN401
    """
    Listen on the control socket in *data_dir*, which this process has locked.

    Returns:
        The port; None if the socket cannot be opened.  That is logged, and the server runs without it.
    """
    path = data_dir.resolve() / CONTROL
    length = len(os.fsencode(path))
    if length > PATH_BYTES_MAX:
        log.warn(_NO_SOCKET, why=f"{path} has {length} bytes; {PATH_BYTES_MAX} are possible")
        return None
    try:
        # An existing socket was left by a killed server: no other process has locked the directory.
        path.unlink(missing_ok=True)
        port: IListeningPort = reactor.listenUNIX(str(path), factory, mode=CONTROL_SOCKET_MODE, wantPID=False)
    except (CannotListenError, OSError) as error:
        log.warn(_NO_SOCKET, why=reason(error))
        return None
    return port
