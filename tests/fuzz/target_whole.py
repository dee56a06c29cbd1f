"""
Target: the whole server without sockets, threads and disk, between a hostile peer and a good one.

The bytes go into the real protocol over a transport that is cut, held up and
resumed at random.  No exception may escape or be logged, nothing may end the
process, the broker's tables must agree, and the good peer must get right answers.
"""

from contextlib import contextmanager
from io import BytesIO
from itertools import islice
from random import Random
from zlib import crc32

from conversations import PLACEHOLDERS, placeholder
from target_framing import pieces
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure

from queueber.limits import Limits
from queueber.testing import InProcessServer
from tests.support.healthy_client import HealthyClient
from tests.support.peer import Caller

LIMITS = Limits(
    frame_bytes=1 << 20,
    contents_bytes=1 << 16,
    add_bytes=1 << 18,
    poll_bytes=1 << 18,
    unsent_bytes=1 << 16,
    outstanding_calls=20,
    open_answers=60,
    exports=6,
)
ROUNDS = 2
"""Connections that send the same, one after the other: later ones find the state that the first has left."""


class Transport(StringTransport):
    """A connection whose other side is the test."""

    gone = False

    def abortConnection(self):  # noqa: N802 -- Twisted's name
        self.gone = True
        super().abortConnection()

    def take(self):
        data, self.io = self.value(), BytesIO()
        return data


@contextmanager
def nothing_in_the_log():
    """Fail if anything is logged as an error meanwhile."""
    found = []

    def observe(event):
        if event.get("log_failure") is not None or event["log_level"] >= LogLevel.error:
            found.append(event.get("log_failure") or event.get("log_format"))

    globalLogPublisher.addObserver(observe)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(observe)
    assert not found, f"in the log: {found}"


def connect(server):
    protocol = server.factory.buildProtocol(None)
    transport = Transport()
    protocol.makeConnection(transport)
    return protocol, transport


def good_peer(server):
    """A `HealthyClient` in the same process."""
    protocol, transport = connect(server)

    class InProcess(Caller):
        def send(self, data):
            assert not transport.disconnecting, "the good peer was disconnected"
            protocol.dataReceived(data)
            settle(server)

        def receive(self):
            said = transport.take()
            assert said, "the good peer is not answered"
            return said

    return HealthyClient(InProcess())


def settle(server):
    """Run turns and jobs until nothing changes."""
    idle = 0
    while idle < 3:
        idle = 0 if server.pool.jobs else idle + 1
        while server.pool.jobs:
            server.pool.step()
        server.turn()


def filled(data, server):
    """Return *data* with the ids of live objects in place of the placeholders."""
    leases = list(islice(server.broker.leases, PLACEHOLDERS))
    items = [item for lease in leases for item in lease.keys]
    for number, lease in enumerate(leases):
        data = data.replace(placeholder("lease", number), lease.id)
    for number, item in enumerate(items[:PLACEHOLDERS]):
        data = data.replace(placeholder("item", number), item)
    return data


def hostile(server, stream, dice):
    """Run one connection that sends *stream*."""
    protocol, transport = connect(server)
    for piece in pieces(filled(stream, server), dice):
        if transport.disconnecting or transport.gone:
            break
        protocol.dataReceived(piece)
        roll = dice.random()
        if roll < 0.2:
            server.turn()
        elif roll < 0.4 and server.pool.jobs:
            server.pool.step()
        elif roll < 0.45:
            server.reactor.advance(dice.choice([0.001, 0.1, 3.0]))
            server.sweeper.sweep()
            server.connections.timeouts.expire()
        elif roll < 0.5 and transport.producer:
            transport.producer.pauseProducing()
        elif roll < 0.6 and transport.producer:
            transport.producer.resumeProducing()
    settle(server)
    if transport.producer:
        transport.producer.stopProducing()
    protocol.connectionLost(Failure(dice.choice([ConnectionDone, ConnectionLost])()))


def check(stream):
    """Raise unless the server copes with *stream* and its other peer notices nothing."""
    dice = Random(crc32(stream))
    with nothing_in_the_log():
        server = InProcessServer(LIMITS)
        good = good_peer(server)
        for _ in range(ROUNDS):
            hostile(server, stream, dice)
            settle(server)
            server.broker.check()
            assert not server.deaths, f"the server would have ended: {server.deaths}"
            assert server.handlers.outstanding == 0, "calls are outstanding that no client waits for"
            assert server.broker.stats().waiting_polls == 0, "polls of a peer that is gone wait on"
            good.turn()
            assert not server.deaths, f"the server would have ended: {server.deaths}"
        good.account()
        server.broker.check()
