"""
Addresses of servers, parsed without Twisted.

An address is ``HOST:PORT``, ``[IPv6]:PORT``, a client endpoint string of Twisted,
or the endpoint string of a local server, which is the value of its ``--listen``.
"""

import os
import re
from typing import Final, NamedTuple, TypeAlias

from queueber.errors import InvalidRequest, too_large
from queueber.process import expanded_endpoint

PORT_MAX: Final = 65_535
UNIX_PATH_BYTES_MAX: Final = 107
"""The longest path of a Unix socket that the kernel takes: with the NUL after it, it has room for 108 bytes."""

# Compiled when they are used, because most programs have a URL.
# A server's endpoint comes before HOST:PORT, because tcp:9090 is no host named tcp.
_SERVED_TCP = r"(?:tcp:|:)(?P<port>\d+)(?::(?:backlog=\d+|interface=(?P<host>(?:[^:\\]|\\:)*)))*"
_SHORT = r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]=\s]+)):(?P<port>\d+)"
_TCP = r"tcp:(?:host=)?(?P<host>[^:\\=]+):(?:port=)?(?P<port>\d+)"
_UNIX = r"unix:(?:address=|path=)?(?P<path>(?:[^:\\=]|\\.)+)(?::(?:mode|backlog|wantPID|lockfile)=\w+)*"
_TCP_WITH_OPTIONS = r"tcp:(?:host=)?(?P<host>[^:\\=]+)(?::|\Z)"

_ALL_INTERFACES = ("", "0.0.0.0", "::")  # noqa: S104  (addresses of a server on this machine)
_NO_PATH = ("unix:", "unix:path=", "unix:address=")


class TcpAddress(NamedTuple):
    """A host, by name or IP address, and a port."""

    host: str
    port: int


class UnixAddress(NamedTuple):
    """The path of a Unix socket."""

    path: str


class EndpointString(NamedTuple):
    """A client endpoint string of Twisted that is neither of the others; it may be invalid."""

    text: str
    host: str | None
    """The host of a TCP endpoint with options; None for other endpoints."""


Address: TypeAlias = TcpAddress | UnixAddress | EndpointString


def parse(text: str) -> Address:
    """
    Return the address in *text*.

    Raises:
        InvalidRequest: the port is out of range, there is no home directory for a ``~``, *text* contains a NUL, or a
            Unix socket has no path, or one that is too long.
    """
    try:
        text = expanded_endpoint(text)
    except ValueError as why:
        raise InvalidRequest(f"the address {why}") from None
    if "\0" in text or text in _NO_PATH:
        raise no_address(text, "a NUL" if "\0" in text else "no path")
    if served := re.fullmatch(_SERVED_TCP, text, re.ASCII):
        host = _unescaped(served["host"] or "")
        return _tcp("localhost" if host in _ALL_INTERFACES else host, served["port"], text)
    if short := re.fullmatch(_SHORT, text, re.ASCII):
        return _tcp(short["v6"] or short["host"], short["port"], text)
    if tcp := re.fullmatch(_TCP, text, re.ASCII):
        return _tcp(tcp["host"], tcp["port"], text)
    if unix := re.fullmatch(_UNIX, text, re.DOTALL):
        return unix_address(_unescaped(unix["path"]))
    with_options = re.match(_TCP_WITH_OPTIONS, text)
    return EndpointString(text, with_options["host"] if with_options else None)


def unix_address(path: str) -> UnixAddress:
    """
    Return the address of the Unix socket at *path*.

    Raises:
        InvalidRequest: the path is too long, or is no name of a file.
    """
    name = "the path of the Unix socket"
    try:
        length = len(os.fsencode(path))
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name} is not UTF-8: {path!a}") from None
    if length > UNIX_PATH_BYTES_MAX:
        raise too_large(name, value=length, limit=UNIX_PATH_BYTES_MAX, unit="bytes")
    return UnixAddress(path)


def socket_address(text: str) -> TcpAddress | UnixAddress | None:
    """
    Return the address in *text* if a plain socket can connect to it; None if only Twisted can.

    Raises:
        InvalidRequest: as for `parse`.
    """
    address = parse(text)
    if isinstance(address, EndpointString):
        return None
    # Twisted encodes international host names as browsers do; the standard library does not.
    return None if isinstance(address, TcpAddress) and not address.host.isascii() else address


def host_of(address: Address) -> str | None:
    """Return the host of *address*, or None if it has none."""
    return None if isinstance(address, UnixAddress) else address.host


def no_address(text: str, why: object) -> InvalidRequest:
    """Return the error for *text*, which is not an address because of *why*."""
    return InvalidRequest(f"{text!r} is not an address: neither HOST:PORT, [IPv6]:PORT nor a Twisted endpoint ({why})")


def _tcp(host: str, port: str, text: str) -> TcpAddress:
    number = int(port)
    if not 0 < number <= PORT_MAX:
        raise InvalidRequest(f"the port in {text!r} is {number}; the limit is {PORT_MAX}")
    try:
        host.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"the host of the address is not UTF-8: {host!a}") from None
    return TcpAddress(host, number)


def _unescaped(text: str) -> str:
    """Return *text* without the backslashes of an endpoint string."""
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
