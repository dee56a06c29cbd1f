"""Server addresses: the forms that can be parsed without Twisted."""

import re
from typing import Final

from attrs import frozen

from queueber.errors import InvalidRequest
from queueber.paths import expanded_endpoint

PORT_MAX: Final = 65_535

_SHORT = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]=\s]+)):(?P<port>\d+)", re.ASCII)

# Server endpoints that Twisted's clients do not understand.
_SERVED_TCP = re.compile(r"(?:tcp:|:)(?P<port>\d+)(?::(?:backlog=\d+|interface=(?P<host>(?:[^:\\]|\\:)*)))*", re.ASCII)
_SERVED_UNIX = re.compile(r"unix:(?:address=)?(?P<path>(?:[^:\\=]|\\.)+)(?::(?:mode|backlog|wantPID|lockfile)=\w+)*")
_EVERYWHERE = ("", "0.0.0.0", "\\:\\:")  # noqa: S104  (addresses of a server on this machine)

_NO_PATH = ("unix:", "unix:path=", "unix:address=")

_TCP = re.compile(r"tcp:(?:host=)?(?P<host>[^:\\=]+)(?P<v6>)(?::|\Z)")

_PLAIN_TCP = re.compile(r"tcp:(?:host=)?(?P<host>[^:\\=]+):(?:port=)?(?P<port>\d+)", re.ASCII)
_PLAIN_UNIX = re.compile(r"unix:(?:path=)?(?P<path>(?:[^:\\=]|\\.)+)", re.DOTALL)


@frozen
class TcpAddress:
    """A host, by name or IP address, and a port."""

    host: str
    port: int


@frozen
class UnixAddress:
    """The path of a Unix socket."""

    path: str


def short_address(address: str) -> TcpAddress | None:
    """
    Return host and port if *address* is ``HOST:PORT`` or ``[IPv6]:PORT``, else None.

    Raises:
        InvalidRequest: the port is out of range.
    """
    found = _SHORT.fullmatch(address)
    return _tcp(found["v6"] or found["host"], found["port"], address) if found else None


def plain_address(address: str) -> TcpAddress | UnixAddress | None:
    """
    Return the TCP or Unix address that a plain socket can connect to, if *address* is an endpoint without options.

    None for any other Twisted endpoint, and for text that is not an address.

    Raises:
        InvalidRequest: the port is out of range, or there is no home directory for a ``~``.
    """
    address = as_client(address)
    if unix := _PLAIN_UNIX.fullmatch(address):
        return UnixAddress(re.sub(r"\\(.)", r"\1", unix["path"], flags=re.DOTALL))
    tcp = _PLAIN_TCP.fullmatch(address)
    found = _tcp(tcp["host"], tcp["port"], address) if tcp else short_address(address)
    # Twisted encodes international host names as browsers do; the standard library does not.
    return found if found and found.host.isascii() else None


def _tcp(host: str, port: str, address: str) -> TcpAddress:
    number = int(port)
    if not 0 < number <= PORT_MAX:
        raise InvalidRequest(f"the port in {address!r} is {number}; the limit is {PORT_MAX}")
    return TcpAddress(host, number)


def host_in(address: str) -> str | None:
    """Return the host in *address* if it is in a short form or a TCP endpoint of Twisted, else None."""
    address = as_client(address)
    short = _SHORT.fullmatch(address) or _TCP.match(address)
    return (short["v6"] or short["host"]) if short else None


def as_client(address: str) -> str:
    """
    Translate a server's endpoint to the client's endpoint for it.  Other addresses are returned unchanged.

    Raises:
        InvalidRequest: there is no home directory for a ``~``, *address* holds a NUL, or a Unix socket has no path.
    """
    try:
        address = expanded_endpoint(address)
    except ValueError as why:
        raise InvalidRequest(f"the address {why}") from None
    tcp = _SERVED_TCP.fullmatch(address)
    if tcp is not None:
        host = tcp["host"] or ""
        return f"tcp:{'localhost' if host in _EVERYWHERE else host}:{tcp['port']}"
    if "\0" in address or address in _NO_PATH:
        raise no_address(address, "a NUL" if "\0" in address else "no path")
    unix = _SERVED_UNIX.fullmatch(address)
    return f"unix:path={unix['path']}" if unix is not None else address


def no_address(address: str, why: object) -> InvalidRequest:
    """Return the error for *address*, which is not an address because of *why*."""
    return InvalidRequest(
        f"{address!r} is not an address: neither HOST:PORT, [IPv6]:PORT nor a Twisted endpoint ({why})"
    )
