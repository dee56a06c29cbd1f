"""The socket of one connection, which does not block once it is made."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from queueber.client_core.address import TcpAddress
from queueber.transport.keepalive import keep_socket_alive

if TYPE_CHECKING:
    import ssl

    from queueber.client_core.endpoint import Endpoint

READ_BYTES = 65_536
WRITE_BYTES = 262_144
"""The most bytes that one system call takes."""


def connect(endpoint: Endpoint, seconds: float) -> Stream:
    """
    Return a stream to *endpoint*, after its TLS handshake.

    Blocks, for up to *seconds* for each address of the host and for the handshake.

    Raises:
        OSError: there is no connection, or its TLS handshake failed.
        UnicodeError: the host's name cannot be encoded for the DNS.
    """
    address = endpoint.address
    if isinstance(address, TcpAddress):
        # As bytes, because the codec that encodes text for the DNS takes long to import.
        host = address.host.encode("ascii") if address.host.isascii() else address.host
        made = socket.create_connection((host, address.port), seconds)  # type: ignore[arg-type]
    else:
        made = socket.socket(socket.AF_UNIX)
    with _closed_on_error(made):
        if isinstance(address, TcpAddress):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_socket_alive(made)
        else:
            made.settimeout(seconds)
            made.connect(address.path)
        if endpoint.context is None:
            stream = Stream(made)
        else:
            stream = TlsStream(endpoint.context.wrap_socket(made, server_hostname=endpoint.server_name))
        stream.socket.setblocking(False)
    return stream


@contextmanager
def _closed_on_error(made: socket.socket) -> Iterator[None]:
    """Close *made* if the block raises."""
    try:
        yield
    except BaseException:
        made.close()
        raise


class Stream:
    """A connected socket, and the bytes that wait until it takes them."""

    def __init__(self, made: socket.socket) -> None:
        """Take *made*, which does not block."""
        self.socket = made
        self.wants_read: tuple[type[OSError], ...] = (BlockingIOError,)
        """The errors of a socket that has nothing to read, or has to read before it goes on writing."""

        self.wants_write: tuple[type[OSError], ...] = (BlockingIOError,)
        """The errors of a socket that takes nothing, or has to write before it goes on reading."""

        self._unsent = bytearray()
        self._is_writing = False
        """Whether to wait until the socket takes more."""

    @property
    def events(self) -> int:
        """The events of the selector to wait for."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._is_writing else 0)

    @property
    def sent(self) -> bool:
        """Whether the system has taken all bytes."""
        return not self._unsent

    def receive(self) -> Iterator[bytes]:
        """
        Yield the bytes that are there, and empty bytes for the end of the stream.

        Raises:
            OSError: the connection is lost.
        """
        self._is_writing = not self.sent
        while True:
            try:
                data = self.socket.recv(READ_BYTES)
            except self.wants_read:
                return
            except self.wants_write:
                self._is_writing = True
                return
            yield data
            if not data or not self._has_more():
                return

    def _has_more(self) -> bool:
        """Return whether there are bytes that a selector does not see."""
        return False

    def send(self, data: bytes = b"") -> None:
        """
        Send *data* after the bytes that wait already, as far as the system takes them.

        Raises:
            OSError: the connection is lost.
        """
        self._unsent += data
        self._is_writing = False
        while self._unsent:
            try:
                with memoryview(self._unsent)[:WRITE_BYTES] as part:
                    taken = self.socket.send(part)
            except self.wants_write:
                self._is_writing = True
                return
            except self.wants_read:
                return
            del self._unsent[:taken]

    def end(self) -> None:
        """Send the end of the stream, so that the peer reads all that was sent before, and then ends its own."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket, or this process's copy of one that it shares with a forked process.  Sends nothing more."""
        self.socket.close()


class TlsStream(Stream):
    """A socket with TLS, whose handshake is finished."""

    def __init__(self, made: ssl.SSLSocket) -> None:
        """Take *made*, which does not block."""
        # Imported here, because programs without TLS do without.
        import ssl  # noqa: PLC0415

        super().__init__(made)
        self.wants_read = (BlockingIOError, ssl.SSLWantReadError)
        self.wants_write = (BlockingIOError, ssl.SSLWantWriteError)
        self._tls = made

    def _has_more(self) -> bool:
        """Return whether bytes are decrypted that were not read yet."""
        return self._tls.pending() > 0

    def end(self) -> None:
        """Send TLS's own end of the stream.  The peer answers it."""
        with suppress(OSError, ValueError):
            self._tls.unwrap()
