"""Calls without a reactor, to a scripted server at a real socket."""

import errno
import os
import socket
import threading
from contextlib import closing, suppress
from types import SimpleNamespace

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from queueber import api, rpc
from queueber.client import Batch, CallTimedOut, Client, NotConnected, OutcomeUnknown
from queueber.client.blocking import BlockingConnector, NoAnswer, run_blocking
from queueber.client_core.address import TcpAddress, UnixAddress, socket_address
from queueber.client_core.arguments import CALL_OVERHEAD_BYTES
from queueber.errors import InvalidRequest, Overloaded, Unimplemented
from queueber.fixed_limits import FRAME_BYTES_LOWEST
from queueber.limits import DEFAULTS
from queueber.transport.keepalive import KEEPALIVE_IDLE_SECONDS

ROOT = "the server's first object"
TIMEOUT_SECONDS = 30


class Server:
    """A server for one peer at a time.  An add returns an id for each item, an extend returns false."""

    def __init__(self, listening):
        self.listening = listening
        self.calls = []
        self.accepted = self.asked = 0
        self.longest = DEFAULTS.frame_bytes
        """The longest message; None for a server without the method `limits`."""

        self.say = None
        """A function of the socket and the connection that replaces the answer."""

        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                peer, _ = self.listening.accept()
            except OSError:
                return
            self.accepted += 1
            # A client that has its answer closes the connection at once.
            with peer, suppress(ConnectionError):
                self._talk(peer)

    def _talk(self, peer):
        connection = rpc.Connection(limits=DEFAULTS, bootstrap=ROOT)
        while data := peer.recv(65_536):
            for event in connection.receive_data(data):
                if isinstance(event, rpc.Calls):
                    if self.say is not None:
                        self.say(peer, connection)
                        return
                    self.answer(connection, event)
            peer.sendall(connection.data_to_send())

    def answer(self, connection, event):
        if event.interface_id == api.BROKER_INTERFACE_ID and event.method_id == api.LIMITS:
            self.asked += 1
            if self.longest is None:
                connection.return_exception(event.answer, 3, "no such method")
            else:
                limits = evolve(DEFAULTS, frame_bytes=self.longest)
                connection.return_results([event.answer], [api.write_limits_response(limits)])
        elif event.interface_id == api.BROKER_INTERFACE_ID:
            name = api.read_queue_request(event.params)
            if name == "forbidden":
                connection.return_exception(event.answer, 1, "no more queues")
            else:
                connection.return_capabilities(event.answer, api.QUEUE_RESPONSE, (name,))
        elif event.method_id == api.ADD:
            items = api.read_add_request(event.params, limits=DEFAULTS).items
            self.calls.append((event.target, [bytes(item.contents) for item in items]))
            ids = [number.to_bytes(16, "big") for number in range(len(items))]
            connection.return_results([event.answer], api.write_add_responses([ids]))
        elif event.method_id == api.EXTEND:
            connection.return_results([event.answer], [*api.write_extend_responses([False])])
        else:
            connection.return_exception(event.answer, 3, "no such method")

    def stop(self):
        self.listening.close()


@pytest.fixture(params=["tcp", "unix"])
def server(request, tmp_path):
    if request.param == "tcp":
        server = Server(socket.create_server(("127.0.0.1", 0)))
        server.address = f"127.0.0.1:{server.listening.getsockname()[1]}"
    else:
        path = tmp_path / "a:b.sock"
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(path))
        made.listen()
        server = Server(made)
        server.address = f"unix:path={tmp_path}/a\\:b.sock"
    yield server
    server.stop()


def do(address, work, **options):
    connector = BlockingConnector(socket_address(address), name=address, **options)
    with closing(connector):
        return run_blocking(work(Client(connector)))


def test_calls_are_answered_over_one_connection(server):
    async def work(client):
        ids = await client.default.add(b"one", bytearray(b"two"))
        assert await client.queue("mail").add(b"x" * 300_000) == [bytes(16)]
        assert await client.queue("mail").extend(bytes(16), 1) is False
        return ids

    assert do(server.address, work) == [bytes(16), (1).to_bytes(16, "big")]
    assert server.calls == [(ROOT, [b"one", b"two"]), ("mail", [b"x" * 300_000])]
    assert server.accepted == 1


def test_a_waiting_call_notices_when_the_server_s_machine_is_gone(monkeypatch):
    made, create = [], socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda *where: made.append(create(*where)) or made[-1])
    server = Server(socket.create_server(("127.0.0.1", 0)))

    async def work(client):
        await client.default.add(b"x")
        (used,) = made
        assert used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert used.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEPALIVE_IDLE_SECONDS

    do(f"127.0.0.1:{server.listening.getsockname()[1]}", work)
    server.stop()


def test_an_error_of_the_server_is_raised(server):
    with pytest.raises(Unimplemented, match="no such method"):
        do(server.address, lambda client: client.default.poll())
    with pytest.raises(Overloaded, match="no more queues"):
        do(server.address, lambda client: client.queue("forbidden").add(b"x"))


@pytest.mark.parametrize(
    ("say", "why"),
    [
        (lambda peer, connection: None, "the server closed it"),
        (lambda peer, connection: peer.sendall(b"\xff" * 64), "the server broke the protocol: "),
        (
            lambda peer, connection: (connection.abort("enough"), peer.sendall(connection.data_to_send())),
            "the server ended the connection: enough",
        ),
    ],
    ids=["closed", "nonsense", "aborted"],
)
def test_a_call_without_an_answer_may_have_taken_effect(server, say, why):
    server.say = say
    with pytest.raises(OutcomeUnknown, match=f"the connection was lost, the call's outcome is unknown: {why}"):
        do(server.address, lambda client: client.default.add(b"x"))


@pytest.mark.parametrize(
    ("first", "protocol"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP"), (b"\x15\x03\x01\0\x02\x02\x0a", "TLS"), (b"SSH-2.0-x\r\n", "SSH")],
)
def test_a_call_that_no_server_has_read_was_not_sent(server, first, protocol):
    server.say = lambda peer, connection: peer.sendall(first)
    with pytest.raises(NotConnected, match=f"cannot connect to .*: this port speaks {protocol}"):
        do(server.address, lambda client: client.default.add(b"x"))


def test_a_silent_server_is_given_up(server):
    over = threading.Event()
    server.say = lambda peer, connection: over.wait(TIMEOUT_SECONDS)
    with pytest.raises(NoAnswer, match=r"no answer within 0\.05 s"):
        do(server.address, lambda client: client.default.add(b"x"), seconds=0.05)
    over.set()


async def after_one_that_timed_out(client):
    with suppress(CallTimedOut):
        await client.default.poll(timeout_ms=50)
    await client.default.add(b"x")


def test_a_call_has_a_time_limit_of_its_own(server):
    over = threading.Event()
    server.say = lambda peer, connection: over.wait(TIMEOUT_SECONDS)
    for seconds in (None, TIMEOUT_SECONDS):
        with pytest.raises(CallTimedOut, match=r"no answer within 0\.05 s: the call may have taken effect or") as found:
            do(server.address, lambda client: client.default.poll(timeout_ms=50), seconds=seconds)
        assert found.value.sent
    with pytest.raises(NotConnected, match="was not sent: the connection is closed"):
        do(server.address, after_one_that_timed_out)
    with pytest.raises(NoAnswer, match=r"no answer within 0\.05 s"):
        do(server.address, lambda client: client.default.poll(timeout_ms=1_000 * TIMEOUT_SECONDS), seconds=0.05)
    over.set()


@pytest.mark.parametrize("broken", ["recv", "sendall"])
@pytest.mark.parametrize("seconds", [None, TIMEOUT_SECONDS])
def test_a_peer_that_answers_no_keepalive_probes_is_a_lost_connection(server, monkeypatch, broken, seconds):
    """The system gives a connection up by an error that Python has the class of its own timeouts for."""
    silent = SimpleNamespace(
        settimeout=lambda _: None, sendall=lambda _: None, recv=lambda _: pytest.fail("not sent"), close=lambda: None
    )

    def gone(_):
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    setattr(silent, broken, gone)
    monkeypatch.setattr(BlockingConnector, "_connect", lambda _: silent)
    with pytest.raises(OutcomeUnknown, match="outcome is unknown: Connection timed out"):
        do(server.address, lambda client: client.default.poll(), seconds=seconds)


def test_without_a_server_nothing_is_sent(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    for where, why in (
        (address, "Connection refused"),
        (f"unix:{tmp_path}/none", "No such file or directory"),
        ("0.0.0.0.0.invalid:1", ".+"),
    ):
        with pytest.raises(NotConnected, match=f"cannot connect to {where}: {why}"):
            do(where, lambda client: client.default.add(b"x"))


@pytest.mark.parametrize("longest", [1 << 20, None])
def test_a_call_longer_than_the_server_accepts_is_refused(server, longest):
    server.longest = longest
    limit = (longest or DEFAULTS.frame_bytes) - CALL_OVERHEAD_BYTES
    with pytest.raises(InvalidRequest, match=f"the call is .* bytes; the limit is {limit:,}"):
        do(server.address, lambda client: client.default.add(bytes(limit)))
    assert server.calls == []


def test_limits_are_requested_once_and_only_for_long_calls(server):
    async def work(client):
        await client.default.add(bytes(FRAME_BYTES_LOWEST - 2 * CALL_OVERHEAD_BYTES))
        assert server.asked == 0
        await client.default.add(bytes(FRAME_BYTES_LOWEST))
        await client.default.add(bytes(FRAME_BYTES_LOWEST))

    do(server.address, work)
    assert (server.asked, len(server.calls)) == (1, 3)


def test_invalid_options_are_refused_before_connecting(server):
    with pytest.raises(InvalidRequest, match="lease_ms"):
        do(server.address, lambda client: client.default.extend(bytes(16), 0))
    assert server.accepted == 0


def test_work_that_awaits_another_deferred_is_an_error():
    with pytest.raises(RuntimeError, match="other than a call"):
        run_blocking(Deferred())


def test_an_empty_poll_returns_an_empty_batch(server):
    """The result has the type of the client's results."""
    server.answer = lambda connection, event: connection.return_results(
        [event.answer], api.write_poll_responses([api.PollResponse([], b"", 0)])
    )
    assert do(server.address, lambda client: client.default.poll(wait_ms=0)) == Batch((), b"", 0)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host:1", TcpAddress("host", 1)),
        ("127.0.0.1:9090", TcpAddress("127.0.0.1", 9090)),
        ("[::1]:9090", TcpAddress("::1", 9090)),
        ("tcp:host:1", TcpAddress("host", 1)),
        ("tcp:host=host:port=1", TcpAddress("host", 1)),
        ("tcp:9090:interface=0.0.0.0", TcpAddress("localhost", 9090)),
        ("unix:/a/b", UnixAddress("/a/b")),
        ("unix:path=/a\\:b", UnixAddress("/a:b")),
        ("unix:/a:mode=600", UnixAddress("/a")),
        ("tcp:host:1:timeout=5", None),
        ("unix:path=/a:timeout=5", None),
        ("tls:host:1", None),
        ("bücher.example:1", None),
        ("nowhere", None),
        ("", None),
    ],
)
def test_addresses_for_a_plain_socket(text, address):
    assert socket_address(text) == address


@pytest.mark.parametrize("address", ["host:0", "host:65536", "tcp:host:99999"])
def test_a_port_out_of_range_is_refused(address):
    with pytest.raises(InvalidRequest, match="the limit is 65535"):
        socket_address(address)
