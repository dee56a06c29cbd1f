"""The addresses that texts of --listen describe."""

import os
import socket

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Factory

from queueber.server.config.twisted_options import Options
from queueber.server.net.listeners import (
    ListenFailed,
    address_text,
    is_guarded,
    parse_listen,
    start_listening,
    usable_listen,
)


@pytest.mark.parametrize(
    ("text", "endpoint", "exposed"),
    [
        ("127.0.0.1:9090", "tcp:9090:interface=127.0.0.1:backlog=4096", False),
        ("localhost:1", "tcp:1:interface=127.0.0.1:backlog=4096", False),
        ("0.0.0.0:9090", "tcp:9090:interface=0.0.0.0:backlog=4096", True),
        (":9090", "tcp:9090:interface=:backlog=4096", True),
        ("[::1]:9090", "tcp6:9090:interface=\\:\\:1:backlog=4096", False),
        ("[::]:9090", "tcp6:9090:interface=\\:\\::backlog=4096", True),
        ("tcp:9090", "tcp:9090:backlog=4096", True),
        ("tcp:9090:interface=127.0.0.1:backlog=5", "tcp:9090:interface=127.0.0.1:backlog=5", False),
        ("tcp6:9090:interface=\\:\\:1", "tcp6:9090:interface=\\:\\:1:backlog=4096", False),
        ("unix:/run/q.sock", "unix:/run/q.sock:mode=660", False),
        ("unix:/run/q.sock:mode=600", "unix:/run/q.sock:mode=600", False),
        ("systemd:domain=UNIX:name=q", "systemd:domain=UNIX:name=q", False),
        ("haproxy:tcp:9090", "haproxy:tcp:9090:backlog=4096", True),
        ("haproxy:unix:/run/q.sock", "haproxy:unix:/run/q.sock:mode=660", False),
        ("systemd:domain=INET:name=q", "systemd:domain=INET:name=q", True),
    ],
)
def test_short_forms_and_endpoint_strings(text, endpoint, exposed):
    listen = parse_listen(text)

    assert (listen.text, listen.endpoint, listen.exposed) == (text, endpoint, exposed)


@pytest.mark.parametrize("before", ["", "haproxy:"])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ssl:9090:privateKey=k", "for TLS use --listen-tls HOST:PORT with --tls-certificate"),
        ("tls:9090", "for TLS use --listen-tls HOST:PORT with --tls-certificate"),
        ("tls:/etc/certificates:9090", "for TLS use --listen-tls HOST:PORT with --tls-certificate"),
        ("stdio:", "not an address to listen on"),
        ("systemd:domain=unix:name=q", "it must have domain=UNIX, domain=INET or domain=INET6"),
        ("systemd:domain=UNIX", "Specify exactly one of descriptor index or name"),
        ("nothing:1:2", "Unknown endpoint type"),
    ],
)
def test_an_address_that_a_server_cannot_listen_on_is_refused_with_the_reason(text, why, before):
    with pytest.raises(ValueError, match=why):
        usable_listen(before + text)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (IPv4Address("TCP", "192.0.2.1", 90), "192.0.2.1:90"),
        (IPv6Address("TCP", "2001:db8::1", 90), "[2001:db8::1]:90"),
        (UNIXAddress(b"/run/q.sock"), "/run/q.sock"),
        (UNIXAddress(None), "a process of this machine"),
    ],
)
def test_addresses_are_shown_as_options_have_them(address, shown):
    assert address_text(address) == shown


def test_defaults_are_those_of_the_help():
    options = Options(environment={})
    options.parseOptions([])
    settings = options.settings

    assert [listen.text for listen in settings.listen] == ["127.0.0.1:9090"]
    assert (settings.claim.polls, settings.claim.items, settings.coalesce_batch_window_ms) == (64, 512, 0)
    assert settings.workers >= 2
    assert (settings.durability, settings.encoding) == ("fsync", "unpacked")


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_is_guarded_unless_other_users_may_open_it(tmp_path):
    texts = {f"unix:{tmp_path}/group": True, f"unix:{tmp_path}/all:mode=666": False, "127.0.0.1:0": False}
    for text, guarded in texts.items():
        port = await start_listening(reactor, parse_listen(text), Factory())
        assert is_guarded(port) == guarded
        await port.stopListening()


def killed_process_files(path, *, pid):
    """Make the files of a killed process: a socket without a listener, and Twisted's lock."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    path.with_name(path.name + ".lock").symlink_to(str(pid))


@pytest.mark.parametrize("pid", [os.getpid(), 1], ids=["this process", "another"])
@pytest.mark.parametrize("name", ["q.sock", "a:b.sock"])
@pytest_twisted.ensureDeferred
async def test_a_socket_of_a_killed_process_is_replaced_whichever_process_has_its_number(tmp_path, pid, name):
    """In a container the next server has the process number of the killed one."""
    path = tmp_path / name
    killed_process_files(path, pid=pid)
    escaped = str(path).replace(":", "\\:")
    port = await start_listening(reactor, parse_listen(f"unix:{escaped}"), Factory())
    assert path.is_socket()
    with pytest.raises(ListenFailed, match="Cannot acquire lock"):
        await start_listening(reactor, parse_listen(f"unix:{escaped}"), Factory())
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_lock_without_a_socket_is_removed_and_another_file_stays(tmp_path):
    path = tmp_path / "q.sock"
    (tmp_path / "q.sock.lock").symlink_to("1")
    port = await start_listening(reactor, parse_listen(f"unix:{path}"), Factory())
    await port.stopListening()
    path.write_text("a letter")
    (tmp_path / "q.sock.lock").symlink_to("1")
    with pytest.raises(ListenFailed):
        await start_listening(reactor, parse_listen(f"unix:{path}"), Factory())
    assert path.read_text() == "a letter"
