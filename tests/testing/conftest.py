"""A test server, and blocking clients of it."""

from functools import partial

import pytest

from queueber.client.blocking import BlockingConnector, run_blocking
from queueber.client.client import Client
from queueber.client_core.address import TcpAddress, UnixAddress
from queueber.testing import TestServer


class Blocking:
    """Makes the calls of an object with awaitable methods, and returns their results."""

    def __init__(self, target):
        self.target = target

    def __getattr__(self, name):
        method = getattr(self.target, name)
        if name in {"queue", "control", "dead_letters"}:
            return lambda *args: Blocking(method(*args))
        return partial(_call, method)


def _call(method, *args, **options):
    return run_blocking(method(*args, **options))


@pytest.fixture
def server():
    with TestServer() as made:
        yield made


@pytest.fixture
def client_of():
    made = []

    def connect(server):
        address = UnixAddress(server.path) if server.port is None else TcpAddress("127.0.0.1", server.port)
        made.append(BlockingConnector(address, name="the test server", seconds=20))
        return Blocking(Client(made[-1]))

    yield connect
    for each in made:
        each.close()


@pytest.fixture
def client(server, client_of):
    return client_of(server)


@pytest.fixture
def mail(client):
    return client.queue("mail")
