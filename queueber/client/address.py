"""What people write for the address of a server, in the forms that can be read without Twisted."""

import re
from typing import Final

from attrs import frozen

from queueber.errors import InvalidRequest
from queueber.paths import expanded_endpoint

PORT_MAX: Final = 65_535

_SHORT = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]=]+)):(?P<port>\d+)", re.ASCII)

# What a server may be told to listen at, beyond what Twisted's clients know.
_SERVED_TCP = re.compile(r"(?:tcp:|:)(?P<port>\d+)(?::(?:backlog=\d+|interface=(?P<host>(?:[^:\\]|\\:)*)))*", re.ASCII)
_SERVED_UNIX = re.compile(r"unix:(?:address=)?(?P<path>(?:[^:\\=]|\\.)+)(?::(?:mode|backlog|wantPID|lockfile)=\w+)*")
_EVERYWHERE = ("", "0.0.0.0", "\\:\\:")  # noqa: S104  (of a server on this machine)

_TCP = re.compile(r"tcp:(?:host=)?(?P<host>[^:\\=]+)(?P<v6>)(?::|\Z)")

_PLAIN_TCP = re.compile(r"tcp:(?:host=)?(?P<host>[^:\\=]+):(?:port=)?(?P<port>\d+)", re.ASCII)
_PLAIN_UNIX = re.compile(r"unix:(?:path=)?(?P<path>(?:[^:\\=]|\\.)+)", re.DOTALL)


@frozen
class TcpAddress:
    """A host, by its name or an address, and a port."""

    host: str
    port: int


@frozen
class UnixAddress:
    """The path of a socket."""

    path: str


def short_address(address: str) -> TcpAddress | None:
    """
    The host and port in *address*, if it is ``HOST:PORT`` or ``[IPv6]:PORT``; otherwise None.

    Raises:
        InvalidRequest: there is no such port.
    """
    found = _SHORT.fullmatch(address)
    return _tcp(found["v6"] or found["host"], found["port"], address) if found else None


def plain_address(address: str) -> TcpAddress | UnixAddress | None:
    """
    What *address* means, if a plain socket can be connected to it: a TCP or Unix endpoint without further options.

    None for any other Twisted endpoint, and for what is no address.

    Raises:
        InvalidRequest: there is no such port, or no home directory for a ``~``.
    """
    address = as_client(address)
    if unix := _PLAIN_UNIX.fullmatch(address):
        return UnixAddress(re.sub(r"\\(.)", r"\1", unix["path"], flags=re.DOTALL))
    tcp = _PLAIN_TCP.fullmatch(address)
    found = _tcp(tcp["host"], tcp["port"], address) if tcp else short_address(address)
    # Twisted encodes the names of hosts as browsers do, which the standard library does not.
    return found if found and found.host.isascii() else None


def _tcp(host: str, port: str, address: str) -> TcpAddress:
    number = int(port)
    if not 0 < number <= PORT_MAX:
        raise InvalidRequest(f"the port in {address!r} is {number}; the limit is {PORT_MAX}")
    return TcpAddress(host, number)


def host_in(address: str) -> str | None:
    """The host that *address* names, if it is one of the short forms or one of Twisted's for TCP."""
    address = as_client(address)
    short = _SHORT.fullmatch(address) or _TCP.match(address)
    return (short["v6"] or short["host"]) if short else None


def as_client(address: str) -> str:
    """
    How a client reaches what a server is told to listen at by *address*; any other address as it is.

    Raises:
        InvalidRequest: there is no home directory for the ``~`` in it.
    """
    try:
        address = expanded_endpoint(address)
    except ValueError as why:
        raise InvalidRequest(f"the address {why}") from None
    tcp = _SERVED_TCP.fullmatch(address)
    if tcp is not None:
        host = tcp["host"] or ""
        return f"tcp:{'localhost' if host in _EVERYWHERE else host}:{tcp['port']}"
    unix = _SERVED_UNIX.fullmatch(address)
    return f"unix:path={unix['path']}" if unix is not None else address
