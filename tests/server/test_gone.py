"""The memory of a lost connection is freed at once."""

import gc
import weakref

import pytest
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from queueber.capnp.framing import framed
from queueber.rpc import Connection, encoder
from queueber.testing import InProcessServer


@pytest.fixture(autouse=True)
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive():
    """Return how many connections of the RPC layer are in memory."""
    return sum(type(each) is Connection for each in gc.get_objects())


HALF = framed(bytes(1 << 20))[:-1]


@pytest.mark.parametrize(
    "last_words",
    [b"", HALF, encoder.abort("enough"), b"\xff" * 8, b"".join(encoder.bootstrap(number) for number in range(1, 50))],
    ids=["nothing", "half", "abort", "garbage", "bootstraps"],
)
def test_the_memory_of_a_lost_connection_is_freed_without_the_garbage_collector(last_words):
    before = alive()
    server = InProcessServer()
    protocol, transport = server.connect()
    protocol.dataReceived(encoder.bootstrap(0))
    protocol.dataReceived(last_words)
    server.settle()
    left = weakref.ref(protocol)
    protocol.connectionLost(Failure(ConnectionDone()))
    transport.producer = None
    del protocol, transport

    assert left() is None
    assert alive() == before
