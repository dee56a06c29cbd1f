"""A server, and a queue of each test."""

import pytest

from queueber import sync
from queueber.testing import TestServer


@pytest.fixture(scope="session")
def server():
    with TestServer(tcp=True) as server:
        yield server


@pytest.fixture
def url(server, request):
    return server.url(request.node.name)


@pytest.fixture
def client(url):
    with sync.connect(url) as client:
        yield client


@pytest.fixture
def queue(client):
    return client.queue()
