"""Ports that are bound first and listen later."""

import socket

import pytest
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor

from queueber.server.net.bound_sockets import BoundPorts
from queueber.server.net.listeners import ListenFailed, parse_listen


@pytest.fixture
def adopted():
    class Adopting(MemoryReactor):
        sockets = ()

        def adoptStreamPort(self, descriptor, family, factory):  # noqa: N802  (Twisted's name)
            with socket.fromfd(descriptor, family, socket.SOCK_STREAM) as found:
                self.sockets = (
                    *self.sockets,
                    (found.getsockname(), found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)),
                )
            return factory

    return Adopting()


@pytest.mark.parametrize(
    "text", ["127.0.0.1:0", "haproxy:tcp:0:interface=127.0.0.1", "tcp:0:interface=\\:\\:1", "[::1]:0"]
)
def test_a_bound_tcp_address_refuses_connections_until_it_listens(adopted, text):
    bound = BoundPorts(adopted)
    listen = parse_listen(text)
    bound.bind([("listen", listen)])
    bound.check()
    endpoint = bound.pop_endpoint(listen.endpoint.removeprefix("haproxy:"))
    address = endpoint.address
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address[:2])

    endpoint.listen(Factory())

    assert adopted.sockets == ((address, 1),)
    assert bound.pop_endpoint(listen.endpoint) is None


def test_an_address_in_use_is_reported_with_its_option(adopted):
    bound = BoundPorts(adopted)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        bound.bind([("listen", parse_listen("127.0.0.1:0")), ("http", parse_listen(f"127.0.0.1:{port}"))])

    with pytest.raises(ListenFailed, match=rf"--http 127\.0\.0\.1:{port}: Couldn't listen on 127\.0\.0\.1:{port}"):
        bound.check()


def test_other_endpoints_are_not_bound_early(adopted, tmp_path):
    bound = BoundPorts(adopted)
    listen = parse_listen(f"unix:{tmp_path}/q.sock")
    bound.bind([("listen", listen)])
    bound.check()

    assert bound.pop_endpoint(listen.endpoint) is None
    assert not (tmp_path / "q.sock").exists()


def test_a_second_bind_does_nothing(adopted):
    bound = BoundPorts(adopted)
    listen = parse_listen("127.0.0.1:0")
    bound.bind([("listen", listen)])
    bound.bind([("listen", listen)])
    bound.pop_endpoint(listen.endpoint).close()
    assert bound.pop_endpoint(listen.endpoint) is None
