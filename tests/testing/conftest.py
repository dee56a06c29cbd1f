"""A test server, and blocking clients of it."""

import pytest

from queueber import sync
from queueber.testing import TestServer


@pytest.fixture
def server():
    with TestServer() as made:
        yield made


@pytest.fixture
def client_of():
    made = []

    def connect(server):
        made.append(sync.connect(server.url(), attempts=3, retry_policy=lambda _: 0.01, timeout_ms=20_000))
        return made[-1]

    yield connect
    for each in made:
        each.close()


@pytest.fixture
def client(server, client_of):
    return client_of(server)


@pytest.fixture
def mail(client):
    return client.queue("mail")
