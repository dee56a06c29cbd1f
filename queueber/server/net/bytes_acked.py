"""How much of what was sent has reached the peer's system, or the peer itself."""

import fcntl
import socket
from struct import Struct
from termios import TIOCOUTQ
from typing import Any

# `tcpi_bytes_acked` of Linux's `struct tcp_info` (linux/tcp.h), which has been there since Linux 4.1.
_ACKNOWLEDGED = Struct("=120xQ")

# What is under way in a Unix socket; the number has another name for sockets, SIOCOUTQ.
_UNDER_WAY = Struct("=i")


def acknowledged(transport: Any, given: int) -> int | None:  # noqa: ANN401
    """
    Bytes that the peer has taken from *transport* since the connection was made, of *given* that the transport was.

    Over TCP it is the peer's system that has taken them, over a Unix socket
    the peer, and more counts as under way there than just the bytes: figures
    are to be compared with each other and with nothing else.  None where it
    cannot be told: neither of the two, or a system that does not count them.
    """
    made = getattr(transport, "socket", None)
    if made is None:
        return None
    try:
        if made.family == socket.AF_UNIX:
            return given - _in_hand(transport) - int(_UNDER_WAY.unpack(fcntl.ioctl(made, TIOCOUTQ, bytes(4)))[0])
        if made.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_INFO"):
            return None
        told = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.size)
    except (OSError, ValueError):
        return None
    return int(_ACKNOWLEDGED.unpack(told)[0]) if len(told) == _ACKNOWLEDGED.size else None


def _in_hand(transport: Any) -> int:  # noqa: ANN401
    """Bytes that the transport itself still holds; what was written last is not in its `dataBuffer` yet."""
    later: int = getattr(transport, "_tempDataLen", 0)
    return len(transport.dataBuffer) - int(transport.offset) + later
