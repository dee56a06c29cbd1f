"""
Finding out that a peer is gone without a word: a cable that was pulled, a machine that lost its power.

The system's own defaults find that out after two hours. All that time a server
would hand items to the polls of such a peer, and a worker would wait for the
reply of such a server.
"""

import socket
from typing import Any

IDLE_SECONDS = 30
"""Without traffic, before the peer's system is asked whether it is still there."""

INTERVAL_SECONDS = 10
PROBES = 3

GONE_SECONDS = IDLE_SECONDS + INTERVAL_SECONDS * PROBES
"""After so long without a sign of life from the peer's system the connection ends."""

_OPTIONS = (
    ("TCP_KEEPIDLE", IDLE_SECONDS),
    ("TCP_KEEPINTVL", INTERVAL_SECONDS),
    ("TCP_KEEPCNT", PROBES),
    # With something on its way there are no probes, and it would be sent again and again for a quarter of an hour.
    ("TCP_USER_TIMEOUT", GONE_SECONDS * 1_000),
)


def keep_alive(transport: Any) -> None:  # noqa: ANN401
    """Let the system end *transport* when its peer is gone, where it is TCP and the system can."""
    made = getattr(transport, "socket", None)
    if made is None or made.family not in (socket.AF_INET, socket.AF_INET6):
        return
    transport.setTcpKeepAlive(True)
    _set_options(made)


def keep_socket_alive(made: socket.socket) -> None:
    """As `keep_alive`, for a TCP socket without a transport."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    _set_options(made)


def _set_options(made: socket.socket) -> None:
    for name, value in _OPTIONS:
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
