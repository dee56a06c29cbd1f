"""The socket of a connection with TLS."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

from queueber.sync.stream import Stream


class TlsStream(Stream):
    """A socket with TLS, whose handshake is finished."""

    WANTS_READ = (BlockingIOError, ssl.SSLWantReadError)
    WANTS_WRITE = (BlockingIOError, ssl.SSLWantWriteError)

    def __init__(self, made: ssl.SSLSocket) -> None:
        super().__init__(made)
        self._tls = made

    def _has_more(self) -> bool:
        """Return whether bytes are decrypted that were not read yet."""
        return self._tls.pending() > 0

    def end(self) -> None:
        """Send TLS's own end of the stream.  The peer answers it."""
        with suppress(OSError, ValueError):
            self._tls.unwrap()


def secured(made: socket.socket, context: ssl.SSLContext, server_name: str | None) -> Stream:
    """
    Return a stream over *made* after its TLS handshake with the server *server_name*.  Blocks.

    Raises:
        OSError: the handshake failed.
    """
    return TlsStream(context.wrap_socket(made, server_hostname=server_name))
