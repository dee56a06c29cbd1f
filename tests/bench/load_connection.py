"""Connections that keep a window of calls in flight: what all load clients have in common."""

import socket
from collections import deque
from struct import pack
from time import perf_counter

STUCK_SECONDS = 30
RECV_BYTES = 1 << 18

BUFFER = memoryview(bytearray(RECV_BYTES))
"""All connections read into this.  A new buffer for each read would be mapped, shrunk and unmapped by the kernel."""


class Unexpected(Exception):
    """The server answered something that this load does not lead to."""


class RanDry(Exception):
    """A poll found nothing: the measurement ends here."""


class LoadConnection:
    """
    One connection with a sliding window of calls.  Blocking: every server reads whatever happens.

    *role* is `add`, `take` (poll, then remove each item by a call of its own) or
    `remove` (the same, but all is polled before it begins).  With *dry_ends* a poll that finds nothing raises `RanDry`.
    """

    def __init__(self, port, role, load):
        self.role = role
        self.load = load
        self.window = load.window
        self.per_call = load.items
        self.dry_ends = load.kind != "cycle"
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=STUCK_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # With a timeout of Python's, a `poll` precedes each read and each write.
        self.socket.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.socket.setsockopt(socket.SOL_SOCKET, option, pack("ll", STUCK_SECONDS, 0))
        self.rest = b""
        self.in_flight = 0
        self.items = 0
        """Added, or removed for certain."""

        self.latencies = []
        """Of the calls, in seconds."""

    def received(self):
        """Return the bytes that have come, after those that were left from before."""
        got = self.socket.recv_into(BUFFER)
        if not got:
            raise Unexpected("the server closed the connection")
        got = bytes(BUFFER[:got])
        if not self.rest:
            return got
        data, self.rest = self.rest + got, b""
        return data

    def conversation(self, *lines, until=b"\r\n"):
        """Send each of *lines* and wait for an answer that ends with *until*: what comes before a load."""
        data = b""
        for line in lines:
            self.socket.sendall(line)
            data = b""
            while not data.endswith(until):
                got = self.socket.recv(RECV_BYTES)
                if not got:
                    raise Unexpected(f"the server closed the connection after {line!r}")
                data += got
        return data

    def begin(self):
        """Fill the window."""
        raise NotImplementedError

    def turn(self, more):
        """Take what has come; with *more*, every call that returned is followed by another."""
        raise NotImplementedError


class InOrder(LoadConnection):
    """A connection on which the answers come in the order of the calls."""

    def __init__(self, port, role, load):
        super().__init__(port, role, load)
        self.sent = deque()

    def request(self):
        """The bytes of the next call."""
        raise NotImplementedError

    def answers(self, data):
        """The items that each call has completed whose answer is whole in *data*, and what is left of *data*."""
        raise NotImplementedError

    def begin(self):
        self.send(self.window - self.in_flight)

    def send(self, count):
        if count <= 0:
            return
        self.in_flight += count
        requests = b"".join([self.request() for _ in range(count)])
        self.sent.extend([perf_counter()] * count)
        self.socket.sendall(requests)

    def turn(self, more):
        data = self.received()
        now = perf_counter()
        completed, self.rest = self.answers(data)
        sent, latencies = self.sent, self.latencies
        for items in completed:
            latencies.append(now - sent.popleft())
            self.items += items
        self.in_flight -= len(completed)
        if more:
            self.send(len(completed))
