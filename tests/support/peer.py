"""
The client stand-in of tests that make one call after another: valid calls, and any bytes.

`Caller` makes the calls and knows no transport. `Peer` is one over a plain, blocking socket. `queueber.client` does not
serve here: it sends nothing that a server would refuse.
"""

import select
import socket
import struct
import time

from queueber import api, rpc
from queueber.limits import Limits
from queueber.units import SpanMs

TIMEOUT_SECONDS = 120.0
"""After this a server without an answer counts as hanging."""

RECV_BYTES = 1 << 18


class Gone(Exception):
    """The server ended the connection."""


class Caller:
    """The calls of one connection; `send` and `receive` are its transport's."""

    def __init__(self):
        self.connection = rpc.Connection(limits=Limits())
        self.outcomes = {}
        self.root = None

    def send(self, data):
        """Send any bytes."""
        raise NotImplementedError

    def receive(self):
        """Wait for bytes and return them."""
        raise NotImplementedError

    def flush(self):
        """Send the messages of the connection so far."""
        self.send(self.connection.data_to_send())

    def ask(self, method, content, target=None):
        """Make a call that `flush` sends; return its question."""
        if self.root is None:
            self.root = rpc.PromisedAnswer(self.connection.bootstrap())
        return self.connection.call(target or self.root, api.QUEUE_INTERFACE_ID, method, content)

    def queue(self, name):
        """Return the queue of that name, as a target of calls."""
        if self.root is None:
            self.root = rpc.PromisedAnswer(self.connection.bootstrap())
        content = api.write_queue_request(name)
        question = self.connection.call(self.root, api.BROKER_INTERFACE_ID, api.QUEUE, content)
        self.flush()
        found = rpc.ImportedCap(api.read_queue_response(self.outcome(question)))
        self.connection.finish(question, release_result_caps=False)
        return found

    def listen(self):
        """Wait for messages and record their outcomes."""
        for event in self.connection.receive_data(self.receive()):
            if isinstance(event, rpc.Aborted):
                raise Gone(event.reason)
            if event.question != self.root.question:
                self.outcomes[event.question] = event.outcome

    def outcome(self, question):
        """Wait for the outcome of a call; return it."""
        while question not in self.outcomes:
            self.listen()
        return self.outcomes.pop(question)

    def call(self, method, content, target=None):
        """Call a method; return the outcome."""
        question = self.ask(method, content, target)
        self.flush()
        outcome = self.outcome(question)
        self.connection.finish(question)
        return outcome

    def bootstrap(self):
        """Make one call, so that the server has accepted this connection."""
        self.add()

    def add(self, *contents, target=None, delay=0):
        """Add items; return their ids."""
        return list(api.read_add_response(self.call(api.ADD, adding(*contents, delay=delay), target)).ids)

    def poll(self, count=1, *, target=None, lease=60_000, wait=0):
        """Poll; return the response.  *wait* is in milliseconds, 0 for no wait."""
        return api.read_poll_response(self.call(api.POLL, polling(count, lease=lease, wait=wait), target))

    def remove(self, item_id, lease, target=None):
        """Remove an item; return whether it was removed."""
        content = api.write_remove_request(api.RemoveRequest(item_id, lease))
        return api.read_remove_response(self.call(api.REMOVE, content, target))

    def extend(self, lease, span, target=None):
        """Extend a lease; return whether it was extended."""
        content = api.write_extend_request(api.ExtendRequest(lease, SpanMs(span)))
        return api.read_extend_response(self.call(api.EXTEND, content, target))


class Peer(Caller):
    """One connection to the server on *port* of this machine."""

    def __init__(self, port, *, source="", receive_bytes=0, host="127.0.0.1"):
        super().__init__()
        self.socket = socket.socket()
        self.socket.settimeout(TIMEOUT_SECONDS)
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data):
        """Send any bytes."""
        try:
            self.socket.sendall(data)
        except (ConnectionError, TimeoutError) as why:
            raise Gone(str(why)) from why

    def receive(self):
        """Wait for bytes and return them."""
        try:
            data = self.socket.recv(RECV_BYTES)
        except (ConnectionError, TimeoutError) as why:
            raise Gone(str(why)) from why
        if not data:
            raise Gone("end of stream")
        return data

    def gone_within(self, seconds):
        """Return the seconds until the server ended the connection; None if it did not."""
        began = time.monotonic()
        while (left := began + seconds - time.monotonic()) > 0:
            if select.select([self.socket], [], [], left)[0]:
                try:
                    if not self.socket.recv(RECV_BYTES):
                        return time.monotonic() - began
                except ConnectionError:
                    return time.monotonic() - began
        return None

    def close(self):
        """Close the socket, as the end of a process does."""
        self.socket.close()

    def reset(self):
        """End the connection with an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def adding(*contents, delay=0):
    """Return the parameters of an add."""
    return api.write_add_request(api.AddRequest([api.NewItem(each, SpanMs(delay)) for each in contents]))


def polling(count=1, *, lease=60_000, wait=0):
    """Return the parameters of a poll; *wait* 0 means no wait, None an endless one."""
    span = SpanMs(wait) if wait else None
    return api.write_poll_request(api.PollRequest(SpanMs(lease), count, span, no_wait=wait == 0))
