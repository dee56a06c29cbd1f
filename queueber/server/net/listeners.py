"""Addresses to listen on: Twisted's endpoint strings, and two short forms for TCP."""

import ipaddress
import os
import re
import socket
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint

from queueber.errors import QueueberError, reason
from queueber.process import expanded_endpoint
from queueber.server.net.proxy_protocol import PREFIX, guarded_endpoint
from queueber.server.net.socket_activation import SYSTEMD, is_passed, make_endpoint

BACKLOG = 4096
"""Connections that the kernel holds until the server accepts them."""

UNIX_SOCKET_MODE = "660"
"""Mode of a Unix socket: its owner and its group may connect."""

_LOCAL_SYSTEMD = re.compile(r"systemd:(?:.*:)?domain=UNIX(?::|\Z)")
_SYSTEMD_DOMAIN = re.compile(r"systemd:(?:.*:)?(?:domain=)?(?:UNIX|INET6?)(?::|\Z)")

_SHORT = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9.-]*)):(?P<port>[0-9]+)\Z")
_UNIX = re.compile(r"(?:haproxy:)*unix:(?:address=)?(?P<path>(?:[^:\\]|\\.)+)")
_KIND = re.compile(r"(?P<kind>[a-z0-9]+):")
_PLAIN_TCP = ("tcp", "tcp4", "tcp6")

# Endpoints that other machines cannot reach.  Any unknown kind counts as exposed.
_PRIVATE = ("unix",)

# Endpoints of Twisted's that a server cannot use.
_NO_TLS = (
    "its certificate would not be checked; for TLS use --listen-tls HOST:PORT with --tls-certificate, and for --http"
    " a proxy in front of it"
)
_REFUSED = {
    "ssl": _NO_TLS,
    "tls": _NO_TLS,
    "stdio": "standard input and output are one connection, not an address to listen on",
}


@frozen
class Listen:
    """One address to listen on."""

    text: str
    """The text of the option."""

    endpoint: str
    """The endpoint string for Twisted."""

    exposed: bool
    """Whether other machines can reach it.  It is plaintext."""

    def __str__(self) -> str:
        return self.text


def parse_listen(text: str) -> Listen:
    """
    Return the address that an option's *text* describes.

    Raises:
        ValueError: *text* is neither an endpoint string nor ``HOST:PORT`` nor ``[v6]:PORT``.
    """
    short = _SHORT.match(text)
    if short and short["host"] not in (*_PLAIN_TCP, *_REFUSED):
        return _tcp(text, short["v6"] or short["host"], short["port"], v6=short["v6"] is not None)
    kind = _KIND.match(text)
    if kind is None:
        raise ValueError(f"{text!r} is neither an endpoint string nor HOST:PORT nor [v6]:PORT")
    if text.startswith(PREFIX):
        inner = parse_listen(text.removeprefix(PREFIX))
        return Listen(text, PREFIX + inner.endpoint, exposed=inner.exposed)
    if kind["kind"] not in _PLAIN_TCP:
        if kind["kind"] == "unix":
            endpoint = expanded_endpoint(text)
            # Twisted's default lets every user connect.
            mode = "" if re.search(r":mode=", text) else f":mode={UNIX_SOCKET_MODE}"
            return Listen(text, f"{endpoint}{mode}", exposed=False)
        return Listen(text, text, exposed=kind["kind"] not in _PRIVATE and not _LOCAL_SYSTEMD.match(text))
    interface = re.search(r"(?<!\\):interface=((?:[^:\\]|\\.)*)", text)
    host = interface[1].replace("\\", "") if interface else ""
    endpoint = text if "backlog=" in text else f"{text}:backlog={BACKLOG}"
    return Listen(text, endpoint, exposed=not _is_loopback(host))


def usable_listen(text: str) -> Listen:
    """
    Return the address that an option's *text* describes, checked against Twisted's own parsers.

    A systemd socket need not have been passed to this process: that is checked when the server starts.

    Raises:
        ValueError: *text* describes no address to listen on, or one of a kind that a server cannot use.
    """
    if not text:
        raise ValueError("is empty")
    try:
        listen = parse_listen(text)
        _check_kind(listen.endpoint)
        is_passed(listen.endpoint)
    except (ValueError, TypeError, ImportError) as why:
        raise ValueError(f"{text}: {why}") from None
    return listen


def _check_kind(endpoint: str) -> None:
    while endpoint.startswith(PREFIX):
        endpoint = endpoint.removeprefix(PREFIX)
    kind = endpoint.partition(":")[0]
    if kind in _REFUSED:
        raise ValueError(_REFUSED[kind])
    if kind == SYSTEMD and not _SYSTEMD_DOMAIN.match(endpoint):
        raise ValueError("it must have domain=UNIX, domain=INET or domain=INET6")


def _tcp(text: str, host: str, port: str, *, v6: bool) -> Listen:
    if int(port) > 65_535:  # noqa: PLR2004  (the largest port there is)
        raise ValueError(f"{text!r}: the port is {port}; it must be 0 to 65535")
    if host == "localhost":
        host = "127.0.0.1"
    escaped = host.replace(":", "\\:")
    endpoint = f"{'tcp6' if v6 else 'tcp'}:{port}:interface={escaped}:backlog={BACKLOG}"
    return Listen(text, endpoint, exposed=not _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address_of(port: IListeningPort) -> str:
    """Return the address of *port* as text."""
    return address_text(port.getHost())


def is_guarded(port: IListeningPort) -> bool:
    """Return whether *port* is a Unix socket that only its owner and group may connect to."""
    name: Any = getattr(port.getHost(), "name", None)
    try:
        return bool(name) and not Path(os.fsdecode(name)).stat().st_mode & stat.S_IWOTH
    except (OSError, ValueError):
        return False  # an abstract name has no mode: every local process may connect


def address_text(address: Any) -> str:  # noqa: ANN401  (Twisted's addresses have nothing in common)
    """Return *address* as text: HOST:PORT, a path, or "a process of this machine"."""
    if hasattr(address, "port"):
        return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
    name = getattr(address, "name", "")
    if name is None:
        return "a process of this machine"
    return os.fsdecode(name) if name else str(address)


class ListenFailed(QueueberError):
    """An address cannot be listened on.  The text names the option and the reason."""


class NotPassed(QueueberError):
    """systemd has not passed a socket that an option names.  The text names the option."""


def check_passed(wanted: Iterable[tuple[str, Listen]]) -> None:
    """
    Check that systemd has passed every systemd socket of *wanted*, pairs of an option and an address.

    Raises:
        NotPassed: one is missing.
    """
    missing = [f"--{option} {listen.text}" for option, listen in wanted if not is_passed(listen.endpoint)]
    if missing:
        raise NotPassed(f"{', '.join(missing)}: systemd has passed no such socket to this process")


async def start_listening(
    reactor: Any,  # noqa: ANN401
    listen: Listen,
    factory: IProtocolFactory,
    option: str = "listen",
    bound: Callable[[str], IStreamServerEndpoint | None] = lambda _: None,
) -> IListeningPort:
    """
    Accept connections to *listen*, an address of *option*, with *factory*.

    *bound* returns the endpoint of an endpoint string whose socket is bound already.

    Raises:
        ListenFailed: the address is in use, is not this machine's, or is not permitted.
    """

    def plain(text: str) -> IStreamServerEndpoint:
        return bound(text) or make_endpoint(reactor, text, BACKLOG)

    endpoint = guarded_endpoint(listen.endpoint, plain, reactor.seconds)
    try:
        _clear_leftover(listen.endpoint)
        port: IListeningPort = await endpoint.listen(factory)
    except (CannotListenError, OSError) as why:
        raise ListenFailed(f"--{option} {listen.text}: {reason(why)}") from why
    return port


def _clear_leftover(endpoint: str) -> None:
    """
    Remove the Unix socket that a killed process has left at *endpoint*, and its lock.

    Twisted respects a lock while a process with the number in it exists.  In a container that is always the case,
    because the server has number 1 each time.  So a connection to the socket shows whether a process listens.
    """
    found = _UNIX.match(endpoint)
    if found is None:
        return
    path = Path(re.sub(r"\\(.)", r"\1", found["path"]))
    lock = path.with_name(f"{path.name}.lock")
    if not lock.is_symlink():
        return
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            if path.is_socket() or not path.exists():
                path.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
        except OSError:
            # A process is too busy to accept, or the socket is not accessible: Twisted reports the error.
            return
