"""
TCP keepalive, which detects peers that vanish without closing: a pulled cable, a machine without power.

With the system's defaults that takes two hours.  Meanwhile a server would
deliver items to the polls of such a peer, and a worker would wait for the reply
of such a server.
"""

import socket
from typing import Any

KEEPALIVE_IDLE_SECONDS = 30
"""Silence before the first probe to the peer's system."""

PROBE_INTERVAL_SECONDS = 10
PROBES = 3

GONE_SECONDS = KEEPALIVE_IDLE_SECONDS + PROBE_INTERVAL_SECONDS * PROBES
"""Silence of the peer's system, probes included, after which the connection ends."""

_OPTIONS = (
    ("TCP_KEEPIDLE", KEEPALIVE_IDLE_SECONDS),
    ("TCP_KEEPINTVL", PROBE_INTERVAL_SECONDS),
    ("TCP_KEEPCNT", PROBES),
    # With unacknowledged data there are no probes; the system would retransmit for a quarter of an hour.
    ("TCP_USER_TIMEOUT", GONE_SECONDS * 1_000),
)


def keep_alive(transport: Any) -> None:  # noqa: ANN401
    """Enable keepalive on *transport* if it is TCP, with the options that the system has."""
    made = getattr(transport, "socket", None)
    if made is None or made.family not in (socket.AF_INET, socket.AF_INET6):
        return
    transport.setTcpKeepAlive(True)
    _set_options(made)


def keep_socket_alive(made: socket.socket) -> None:
    """Enable keepalive on a TCP socket that has no transport."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    _set_options(made)


def _set_options(made: socket.socket) -> None:
    for name, value in _OPTIONS:
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
