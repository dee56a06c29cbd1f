"""How much of what was sent has reached the peer's system."""

import socket
from struct import Struct
from typing import Any

# `tcpi_bytes_acked` of Linux's `struct tcp_info` (linux/tcp.h), which has been there since Linux 4.1.
_ACKNOWLEDGED = Struct("=120xQ")


def acknowledged(transport: Any) -> int | None:  # noqa: ANN401
    """
    Bytes that the peer's system has taken from *transport* since the connection was made.

    None where that cannot be told: not TCP, or a system that does not count them.
    """
    made = getattr(transport, "socket", None)
    if made is None or made.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_INFO"):
        return None
    try:
        told = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.size)
    except OSError:
        return None
    return int(_ACKNOWLEDGED.unpack(told)[0]) if len(told) == _ACKNOWLEDGED.size else None
