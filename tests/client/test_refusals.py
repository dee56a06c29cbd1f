"""Real sockets and real TLS: a call that no server has read fails as `NotConnected`, with the reason in plain words."""

import errno
import socket
from datetime import datetime

import pytest
import pytest_twisted
from twisted.internet import defer, error, reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.internet.tcp import Connection
from twisted.logger import globalLogPublisher

from queueber.client import NotConnected, OutcomeUnknown, Tls, connect
from queueber.client.refusals import failed_attempt, lost_transport
from queueber.server.net.certificates import Certificates, TlsFiles
from queueber.server.net.connections import Connections
from queueber.testing import InProcessServer
from tests.process.certificates import Authority
from tests.support.processes import free_port

# Twisted gives OpenSSL the certificates of the client in a form that will be given up.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL")

LONG = bytes(1 << 20)
"""Longer than one read, so that a part is in transit when the refusal is written."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "Ours")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("foreign"), "Theirs")


@pytest.fixture(scope="module")
def files(authority, foreign):
    name = "DNS:localhost,IP:127.0.0.1"
    return {
        "server": authority.sign("server", alternative=name),
        "expired": authority.sign("expired", alternative=name, until="20210101000000Z"),
        "client": authority.sign("client"),
        "stranger": foreign.sign("stranger"),
        "wildcard": authority.sign("wildcard", alternative="DNS:localhost,DNS:*.example"),
    }


class Served:
    """The server's own protocols on a real port."""

    def __init__(self, certificates=None):
        self.server = InProcessServer()
        factory = self.server.factory
        self.lines = []
        globalLogPublisher.addObserver(self._note)
        if certificates is not None:
            factory = certificates.secure(factory)
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self._turns = LoopingCall(self.server.settle)
        self._turns.start(0.01)

    def _note(self, event):
        if isinstance(event.get("log_source"), Connections):
            self.lines.append(event["line"])

    @property
    def address(self):
        return f"127.0.0.1:{self.port.getHost().port}"

    async def stop(self):
        globalLogPublisher.removeObserver(self._note)
        self._turns.stop()
        await self.port.stopListening()
        for connection in self.server.connections:
            connection.abort()
        # Connections are lost in a turn of their own.
        await later(0)


def later(seconds):
    done = defer.Deferred()
    reactor.callLater(seconds, done.callback, None)
    return done


class Before(datetime):
    """A clock that stands before the end of the certificate `expired`."""

    @classmethod
    def now(cls, tz=None):
        return datetime(2020, 7, 1, tzinfo=tz)


@pytest.fixture
def serve(files, monkeypatch):
    served = []

    def serve(shown=None, client_ca=None, names=()):
        certificates = None
        if shown is not None:
            certificate, key = files[shown]
            certificates = Certificates(
                TlsFiles(certificate=certificate, key=key, client_ca=client_ca, client_names=names)
            )
            with monkeypatch.context() as patched:
                if shown == "expired":
                    patched.setattr("queueber.server.net.certificates.datetime", Before)
                certificates.load()
        served.append(Served(certificates))
        return served[-1]

    yield serve
    for each in served:
        pytest_twisted.blockon(defer.Deferred.fromCoroutine(each.stop()))


async def outcome(address, *, tls=None, contents=b"x"):
    client = connect(reactor, address, tls=tls)
    try:
        return await client.default.add(contents).addTimeout(10, reactor)
    except (NotConnected, OutcomeUnknown, defer.TimeoutError) as why:
        return why
    finally:
        await client.close()


def refused(found, served, *words):
    assert type(found) is NotConnected, found
    assert str(found).startswith(f"cannot connect to {served.address}: ")
    assert "\n" not in str(found)
    for word in words:
        assert word in str(found)
    assert served.server.broker.stats().items == 0


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_all_right_is_served(serve, authority, files):
    served = serve("server", client_ca=authority.pem)
    certificate, key = files["client"]
    found = await outcome(served.address, tls=Tls(ca=authority.pem, certificate=certificate, key=key), contents=LONG)
    assert len(found) == 1


@pytest_twisted.ensureDeferred
async def test_the_files_may_be_in_the_url(serve, authority, files):
    served = serve("server", client_ca=authority.pem)
    certificate, key = files["client"]
    url = f"queueber+tls://{served.address}/mail?ca={authority.pem}&certificate={certificate}&key={key}"
    assert len(await outcome(url)) == 1
    found = await outcome(f"{url}&server_name=queues.example")
    assert isinstance(found, NotConnected)
    assert str(found) == (
        f"cannot connect to queueber+tls://{served.address}/mail:"
        " the certificate is for 127.0.0.1, localhost, not queues.example"
    )


@pytest_twisted.ensureDeferred
async def test_the_server_s_certificate_is_for_another_name(serve, authority):
    served = serve("server")
    found = await outcome(served.address, tls=Tls(ca=authority.pem, server_name="queues.example"))
    refused(found, served, "the certificate is for 127.0.0.1, localhost, not queues.example")
    found = await outcome(served.address, tls=Tls(ca=authority.pem, server_name="192.0.2.7"))
    refused(found, served, "the certificate is for 127.0.0.1, localhost, not 192.0.2.7")


@pytest.mark.parametrize("shown", ["client", "wildcard"])
@pytest.mark.parametrize("endpoint", [False, True], ids=["Tls", "endpoint"])
@pytest_twisted.ensureDeferred
async def test_a_certificate_without_a_name_that_can_be_compared_is_for_no_host(
    serve, authority, tmp_path, shown, endpoint
):
    """A worker's certificate has the same authority, so a worker could pose as the server with it."""
    served = serve(shown)
    (tmp_path / "ca.pem").write_bytes(authority.pem.read_bytes())
    port = served.port.getHost().port
    address = f"tls:127.0.0.1:{port}:trustRoots={tmp_path}" if endpoint else served.address
    failures = []
    globalLogPublisher.addObserver(failures.append)
    found = await outcome(address, tls=None if endpoint else Tls(ca=authority.pem))
    globalLogPublisher.removeObserver(failures.append)
    assert type(found) is NotConnected, found
    assert f"cannot connect to {address}: the certificate of CN={shown} is for no host: it needs a subject" in str(
        found
    )
    assert served.server.broker.stats().items == 0
    assert endpoint or not [event for event in failures if "log_failure" in event]


@pytest_twisted.ensureDeferred
async def test_the_server_s_authority_is_not_trusted_or_its_certificate_has_expired(serve, authority, foreign):
    served = serve("server")
    found = await outcome(served.address, tls=Tls(ca=foreign.pem))
    refused(found, served, "the certificate of CN=server is not trusted", "CN=Ours, is not a trusted one")
    late = serve("expired")
    found = await outcome(late.address, tls=Tls(ca=authority.pem))
    refused(found, late, "the certificate of CN=expired expired on 2021-01-01 00:00 UTC")


@pytest.mark.parametrize("contents", [b"x", LONG], ids=["short", "long"])
@pytest_twisted.ensureDeferred
async def test_a_server_that_refuses_the_client_s_certificate_has_read_no_call(serve, authority, files, contents):
    """With TLS 1.3 the refusal comes after the client has sent its calls."""
    served = serve("server", client_ca=authority.pem)
    found = await outcome(served.address, tls=Tls(ca=authority.pem), contents=contents)
    refused(found, served, "the server asks for a client certificate, and none was sent")
    certificate, key = files["stranger"]
    tls = Tls(ca=authority.pem, certificate=certificate, key=key)
    refused(await outcome(served.address, tls=tls, contents=contents), served, "does not trust the authority")
    picky = serve("server", client_ca=authority.pem, names=("another",))
    certificate, key = files["client"]
    tls = Tls(ca=authority.pem, certificate=certificate, key=key)
    refused(await outcome(picky.address, tls=tls, contents=contents), picky, "may not accept the names in")


@pytest.mark.parametrize("contents", [b"x", LONG], ids=["short", "long"])
@pytest_twisted.ensureDeferred
async def test_plaintext_at_a_port_for_tls(serve, contents):
    served = serve("server")
    refused(await outcome(served.address, contents=contents), served, "this port speaks TLS")
    (line,) = served.lines
    assert line.endswith("it speaks plaintext, and this port TLS")


@pytest_twisted.ensureDeferred
async def test_tls_at_a_port_for_plaintext_is_no_hit_of_a_limit(serve, authority):
    served = serve()
    refused(await outcome(served.address, tls=Tls(ca=authority.pem)), served, "this port does not speak TLS")
    (line,) = served.lines
    assert line.endswith("it speaks TLS, and this port does not")
    assert not served.server.connections.limit_hits


class Says(Protocol):
    """A peer that answers any data with the same bytes, or closes without an answer."""

    def dataReceived(self, data):  # noqa: N802
        self.transport.write(self.factory.words)
        if not self.factory.words:
            self.transport.loseConnection()


@pytest.mark.parametrize(
    ("words", "tls", "kind", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False, NotConnected, "this port speaks HTTP"),
        (b"SSH-2.0-OpenSSH_10.0\r\n", False, NotConnected, "this port speaks SSH"),
        (b"220 mail.example ESMTP\r\n", False, NotConnected, "this port speaks a text protocol"),
        (b"", False, OutcomeUnknown, "the call's outcome is unknown"),
        (b"\xff" * 64, False, OutcomeUnknown, "the server broke the protocol"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", True, NotConnected, "this port does not speak TLS"),
        (bytes.fromhex("15 03 01 00 02 02 28"), True, NotConnected, "the server refuses the TLS handshake"),
        (
            bytes.fromhex("15 03 01 00 02 02 50"),
            True,
            NotConnected,
            "it may not accept the names in",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_answer_in_another_protocol_is_named(authority, words, tls, kind, said):
    factory = Factory.forProtocol(Says)
    factory.words = words
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    found = await outcome(f"127.0.0.1:{port.getHost().port}", tls=Tls(ca=authority.pem) if tls else None)
    assert type(found) is kind
    assert said in str(found)
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_handshake_that_ends_without_an_alert_is_tried_again(authority):
    """A restarting server does so.  Only a call without attempts left fails."""
    factory = Factory.forProtocol(Says)
    factory.words = b""
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    address = f"127.0.0.1:{port.getHost().port}"
    client = connect(reactor, address, tls=Tls(ca=authority.pem), attempts=2, retry_policy=lambda _: 0.01)
    with pytest.raises(NotConnected, match="the connection ended during the TLS handshake"):
        await client.default.add(b"x")
    await client.close()
    await port.stopListening()


@pytest.mark.parametrize("secured", [False, True], ids=["plaintext", "TLS"])
@pytest_twisted.ensureDeferred
async def test_keepalive_is_set_at_both_ends_of_a_connection(serve, authority, secured):
    served = serve("server" if secured else None)
    client = connect(reactor, served.address, tls=Tls(ca=authority.pem) if secured else None)
    await client.default.add(b"x")
    (connection,) = served.server.connections
    ends = [each for each in reactor.getReaders() if isinstance(each, Connection)]
    assert connection.transport.socket in [end.socket for end in ends]
    assert len(ends) == 2
    for system in (end.socket for end in ends):
        assert system.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        found = [system.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in PROBING]
        assert found == [30, 10, 3, 60_000]
    await client.close()


PROBING = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")


@pytest.mark.parametrize(
    ("why", "text"),
    [
        (error.ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "Connection refused"),
        (error.ConnectionRefusedError(), "Connection refused"),
        (error.ConnectError(errno.ENOENT, "no such file"), "No such file or directory"),
        (error.ConnectError(string="no way"), "An error occurred while connecting: no way."),
        (error.TimeoutError(), "no answer in time"),
        (error.TCPTimedOutError(), "Connection timed out"),
        (error.DNSLookupError("no results for hostname lookup: nowhere"), "Name or service not known"),
        (error.UnknownHostError(socket.EAI_NONAME, "unknown"), "Name or service not known"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (ValueError(), "ValueError"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_an_attempt_that_failed_has_the_words_of_the_system(why, text):
    assert failed_attempt(why) == text


@pytest.mark.parametrize(
    ("why", "text"),
    [
        (error.ConnectionDone(), "the server closed it"),
        (error.ConnectionLost(), "Connection reset by peer"),
        (ValueError("no"), "no"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_connection_that_was_lost_has_the_words_of_the_other_clients(why, text):
    assert lost_transport(why) == text


@pytest_twisted.ensureDeferred
async def test_a_refused_connection_has_the_words_of_the_other_clients():
    port = free_port()
    client = connect(reactor, f"127.0.0.1:{port}", attempts=1)
    with pytest.raises(NotConnected) as caught:
        await client.default.add(b"x")
    assert str(caught.value) == f"cannot connect to 127.0.0.1:{port}: Connection refused"
    await client.close()
