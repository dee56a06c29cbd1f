"""The URL of a queue: what it means, and one clear sentence for each mistake."""

import socket
from functools import partial

import pytest
from attrs import evolve
from twisted.internet.testing import MemoryReactorClock

from queueber import aio, sync
from queueber.client import Tls, connect
from queueber.client_core.address import EndpointString, TcpAddress, UnixAddress
from queueber.client_core.options import ConnectOptions
from queueber.client_core.url import Target, plain_address, target_of
from queueber.errors import InvalidRequest
from queueber.limits import DEFAULTS


@pytest.mark.parametrize(
    ("url", "address", "queue"),
    [
        ("queueber://host", TcpAddress("host", 9090), None),
        ("queueber://host/", TcpAddress("host", 9090), None),
        ("queueber://host:1/mail", TcpAddress("host", 1), "mail"),
        ("QUEUEBER://host:1/Mail", TcpAddress("host", 1), "Mail"),
        ("queueber://[::1]:7/mail", TcpAddress("::1", 7), "mail"),
        ("queueber://[::1]/mail", TcpAddress("::1", 9090), "mail"),
        ("queueber://192.0.2.1/a/b%2Fc%3F%20d", TcpAddress("192.0.2.1", 9090), "a/b/c? d"),
        ("queueber://host/b%C3%BCcher", TcpAddress("host", 9090), "bücher"),
        ("queueber://host/bücher", TcpAddress("host", 9090), "bücher"),
        ("queueber://host/a+b", TcpAddress("host", 9090), "a+b"),
        ("queueber://host?queue=mail", TcpAddress("host", 9090), "mail"),
        ("queueber+tls://host/mail", TcpAddress("host", 9090), "mail"),
        ("queueber+unix:///run/q.sock", UnixAddress("/run/q.sock"), None),
        ("queueber+unix:///run/a%20b.sock?queue=a/b", UnixAddress("/run/a b.sock"), "a/b"),
        ("127.0.0.1:9090", TcpAddress("127.0.0.1", 9090), None),
        ("[::1]:9090", TcpAddress("::1", 9090), None),
        ("unix:/run/q.sock", UnixAddress("/run/q.sock"), None),
        ("tls:host:1:trustRoots=/x", EndpointString("tls:host:1:trustRoots=/x", None), None),
    ],
)
def test_the_address_and_the_queue(url, address, queue):
    found = target_of(url)
    assert (found.address, found.queue) == (address, queue)
    assert (found.options.tls is not None) == url.startswith("queueber+tls")


def test_the_longest_path_that_the_kernel_takes():
    path = "/" + "x" * 106
    with socket.socket(socket.AF_UNIX) as made:
        with pytest.raises(FileNotFoundError):
            made.connect(path)
        with pytest.raises(OSError, match="too long"):
            made.connect(path + "x")
    assert target_of(f"queueber+unix://{path}").address == UnixAddress(path)


@pytest.mark.parametrize("face", [sync.connect, aio.connect, partial(connect, MemoryReactorClock())])
def test_a_path_that_is_too_long_is_refused_by_connect_of_each_face(face):
    with pytest.raises(InvalidRequest, match="the path of the Unix socket is 201 bytes; the limit is 107"):
        face("unix:/" + "x" * 200)


def test_a_path_below_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    assert target_of("queueber+unix://~/q.sock").address == UnixAddress("/home/ann/q.sock")


def test_options_are_parameters_and_arguments_count_first():
    url = "queueber+tls://host:7/mail?timeout_ms=5000&attempts=3&frame_bytes=70000&resend_adds=true&ca=/a%26b&server_name=q"
    options = ConnectOptions(
        timeout_ms=5_000,
        attempts=3,
        limits=evolve(DEFAULTS, frame_bytes=70_000),
        resend_adds=True,
        tls=Tls(ca="/a&b", server_name="q"),
    )
    assert target_of(url) == Target(TcpAddress("host", 7), "queueber+tls://host:7/mail", "mail", options)
    given = target_of(url, timeout_ms=1, attempts=None, resend_adds=False, tls=Tls(ca="other"))
    assert given.options == options.replace(timeout_ms=1, resend_adds=False, tls=Tls(ca="other"))
    certificates = target_of("queueber+tls://host?certificate=c.pem&key=k.pem").options.tls
    assert certificates == Tls(certificate="c.pem", key="k.pem")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "http://host/mail",
            "the scheme of the URL is 'http'; it must be one of queueber, queueber+tls, queueber+unix",
        ),
        ("://host", "the scheme of the URL is ''; it must be one of"),
        ("queueber://", "the host of the URL is ''; it must be a host name, an IPv4 address or an IPv6 address"),
        ("queueber://::1/mail", "the host of the URL is '::1'; it must be"),
        ("queueber://host:/mail", "the port of the URL is ''; it must be a number from 1 to 65535"),
        ("queueber://host:x/mail", "the port of the URL is 'x'; it must be a number from 1 to 65535"),
        ("queueber://host:0/mail", "the port of the URL is '0'; it must be"),
        ("queueber://host:65536/mail", "the port of the URL is '65536'; it must be"),
        ("queueber://host:²/mail", "the port of the URL is '²'; it must be"),
        ("queueber://host/ma il", "the URL has a space or a character that does not print"),
        ("queueber://host/ma\nil", "the URL has a space or a character that does not print"),
        ("queueber://host/ma%il", "the path of the URL has a % without two hexadecimal digits"),
        ("queueber://host/%ff", "the path of the URL is not UTF-8 in percent-encoding"),
        ("queueber://host/" + "x" * 256, "the queue's name is 256 bytes; the limit is 255"),
        ("queueber://host/mail#part", "the URL has a #: write it %23"),
        ("queueber://host/mail?queue=other", "queue is given twice, in the path of the URL and as a parameter"),
        ("queueber://host?timeout_ms=1&timeout_ms=2", "timeout_ms is given twice in the URL"),
        ("queueber://host?timeout_ms", "timeout_ms has no value in the URL: it must be timeout_ms=VALUE"),
        ("queueber://host?timeout_ms=soon", "timeout_ms is 'soon'; it must be a whole number of ms"),
        ("queueber://host?timeout_ms=0", "timeout_ms is 0 ms; the least is 1"),
        ("queueber://host?timeout_ms=" + "9" * 9_000, "timeout_ms is 18,446,744,073,709,551,616 ms; the limit is"),
        ("queueber://host?attempts=-1", "attempts is -1 attempts; the least is 1"),
        ("queueber://host?frame_bytes=9999999999", "frame_bytes is 9,999,999,999 bytes; the limit is"),
        ("queueber://host?resend_adds=yes", "resend_adds is 'yes'; it must be true or false"),
        (
            "queueber://host?timeout=5",
            "the URL has an unknown parameter 'timeout'; it must be one of queue, timeout_ms,",
        ),
        ("queueber://host?ca=ca.pem", "ca needs TLS: the URL must begin with queueber+tls://"),
        ("queueber+unix://run/q.sock", "the URL of a Unix socket has no host, and this has 'run': write three slashes"),
        ("queueber+unix:///", "the path of the URL is not that of a Unix socket: queueber+unix:///PATH/TO/SOCKET"),
        ("queueber+unix:///a%00b", "the path of the URL is not that of a Unix socket"),
        ("queueber+unix:///a?key=b", "key needs TLS: the URL must begin with queueber+tls://"),
        ("queueber+unix:///" + "x" * 107, "the path of the Unix socket is 108 bytes; the limit is 107"),
        ("queueber+unix:///%C3%A4" + "x" * 105, "the path of the Unix socket is 108 bytes; the limit is 107"),
        ("unix:/" + "x" * 107, "the path of the Unix socket is 108 bytes; the limit is 107"),
        ("\ud800:9090", r"the host of the address is not UTF-8: '\ud800'"),
        ("unix:path=/run/\ud800", r"the path of the Unix socket is not UTF-8: '/run/\ud800'"),
    ],
)
def test_a_mistake_is_one_sentence(url, said):
    with pytest.raises(InvalidRequest) as caught:
        target_of(url)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "url",
    [
        "queueber://ann:secret@host/mail",
        "queueber://secret@host:x/mail",
        "queueber+tls://:secret@host?nonsense",
        "http://ann:secret@host",
        "queueber://host/mail?password=secret",
        "queueber://ann:se/cret@host/mail",
        "queueber://ann:secret@host/m ail",
    ],
)
def test_a_password_is_refused_and_not_repeated(url):
    with pytest.raises(InvalidRequest) as caught:
        target_of(url)
    assert "secret" not in str(caught.value)
    assert "cret" not in str(caught.value)
    assert "'se'" not in str(caught.value)


def test_a_client_of_a_url():
    reactor = MemoryReactorClock()
    client = connect(reactor, "queueber://127.0.0.1/mail?timeout_ms=5000")
    reactor.advance(0)
    assert reactor.tcpClients[0][:2] == ("127.0.0.1", 9090)
    assert [client.queue().name, client.queue("other").name, client.default.name] == ["mail", "other", "default"]
    client.close()
    unix = connect(reactor, "queueber+unix:///run/queueber.sock")
    assert reactor.unixClients[0][0] == "/run/queueber.sock"
    assert unix.queue().name == "default"
    unix.close()


def test_errors_of_a_connection_name_the_url_without_parameters():
    assert target_of("queueber://127.0.0.1:7/mail?attempts=1").name == "queueber://127.0.0.1:7/mail"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("queueber://host/mail", TcpAddress("host", 9090)),
        ("queueber+unix:///a?queue=b", UnixAddress("/a")),
        ("host:1", TcpAddress("host", 1)),
        ("queueber+tls://host", None),
        ("queueber://host?timeout_ms=5", None),
        ("queueber://bücher.example", None),
        ("tls:host:1", None),
    ],
)
def test_a_plain_socket_is_enough(text, address):
    assert plain_address(text) == address
