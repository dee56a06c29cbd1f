"""
The URL of a queue: the server's address, the queue's name, and options as parameters.

    queueber://HOST:PORT/QUEUE?timeout_ms=5000
    queueber+tls://HOST:PORT/QUEUE?ca=/etc/queueber/ca.pem
    queueber+unix:///PATH/TO/SOCKET?queue=QUEUE

The default port is 9090.  Parts are percent-encoded, and the name of
a queue may contain slashes.  The other forms of an address have no options:
``HOST:PORT``, ``[IPv6]:PORT``, ``unix:PATH`` and Twisted's endpoint strings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from queueber.client_core.address import (
    PORT_MAX,
    Address,
    EndpointString,
    TcpAddress,
    UnixAddress,
    parse,
    socket_address,
    unix_address,
)
from queueber.client_core.arguments import SPAN_MS_MAX, integer
from queueber.client_core.options import ConnectOptions, Tls
from queueber.client_core.queue_calls import checked_name
from queueber.errors import InvalidRequest
from queueber.fixed_limits import FRAME_BYTES_HIGHEST
from queueber.process import expanded

if TYPE_CHECKING:
    from queueber.limits import Limits

PORT_DEFAULT: Final = 9090

_SCHEMES: Final = ("queueber", "queueber+tls", "queueber+unix")
_TLS: Final = ("ca", "certificate", "key", "server_name")
_BOOLEANS: Final = {"true": True, "false": False, "1": True, "0": False}
_URL = re.compile(r"(?P<scheme>[^:/?#\[\]]*)://(?P<host>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?P<rest>#.*)?")
_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^\[\]:]+))(?::(?P<port>.*))?", re.DOTALL)


class Target(NamedTuple):
    """Where a client connects, and how."""

    address: Address
    name: str
    """The address in errors, without parameters."""

    queue: str | None = None
    """The name of the URL's queue; None for the default queue."""

    options: ConnectOptions = ConnectOptions()


def target_of(url: str, **arguments: Any) -> Target:  # noqa: ANN401
    """
    Return the target of *url*, with *arguments*, fields of `ConnectOptions`, in place of the parameters of the URL.

    Arguments that are None are left to the URL.

    Raises:
        InvalidRequest: the URL, the address or an argument is invalid.  The text does not repeat a password.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    if "://" not in url:
        return Target(parse(url), url, None, ConnectOptions(**given))
    found = _URL.fullmatch(url)
    if found is None or not url.isprintable() or " " in url:
        raise InvalidRequest("the URL has a space or a character that does not print: write it in percent-encoding")
    if "@" in found["host"] + found["path"]:
        # A password may have a slash.
        raise InvalidRequest(
            "the URL has a user or a password, and there is no login: remove all up to the @, or write it %40 in a name"
        )
    scheme = found["scheme"].lower()
    if scheme not in _SCHEMES:
        raise InvalidRequest(f"the scheme of the URL is {found['scheme']!r}; it must be one of {', '.join(_SCHEMES)}")
    if found["rest"] is not None:
        raise InvalidRequest("the URL has a #: write it %23 if it belongs to a name")
    name = f"{scheme}://{found['host']}{found['path']}"
    parameters = _parameters(found["query"] or "")
    queue = parameters.pop("queue", None)
    path = _decoded("the path of the URL", found["path"])
    if scheme == "queueber+unix":
        address: Address = _unix(found["host"], path)
    else:
        address = _tcp(found["host"])
        if path[1:] and queue is not None:
            raise InvalidRequest("queue is given twice, in the path of the URL and as a parameter")
        queue = path[1:] or queue
    options = _options(scheme, parameters, given)
    return Target(address, name, None if queue is None else checked_name(queue), options)


def plain_address(text: str) -> TcpAddress | UnixAddress | None:
    """
    Return the address in *text*, a URL or an address, if a plain socket is all that it needs; None otherwise.

    Raises:
        InvalidRequest: as for `target_of`.
    """
    if "://" not in text:
        return socket_address(text)
    target = target_of(text)
    if target.options != ConnectOptions() or isinstance(target.address, EndpointString):
        return None
    return target.address if isinstance(target.address, UnixAddress) or target.address.host.isascii() else None


def _tcp(text: str) -> TcpAddress:
    found = _HOST.fullmatch(text)
    if found is None:
        wanted = "a host name, an IPv4 address or an IPv6 address in brackets, and :PORT"
        raise InvalidRequest(f"the host of the URL is {text!r}; it must be {wanted}")
    port = found["port"]
    if port is not None and not (port.isascii() and port.isdecimal() and 0 < int(port) <= PORT_MAX):
        raise InvalidRequest(f"the port of the URL is {port!r}; it must be a number from 1 to {PORT_MAX}")
    host = found["v6"] or _decoded("the host of the URL", found["host"])
    return TcpAddress(host, PORT_DEFAULT if port is None else int(port))


def _unix(host: str, path: str) -> UnixAddress:
    if host not in ("", "~"):
        raise InvalidRequest(f"the URL of a Unix socket has no host, and this has {host!r}: write three slashes")
    if not path.strip("/") or "\0" in path:
        raise InvalidRequest("the path of the URL is not that of a Unix socket: queueber+unix:///PATH/TO/SOCKET")
    try:
        found = expanded(host + path)
    except ValueError as why:
        raise InvalidRequest(f"the path of the URL {why}") from None
    return unix_address(found)


def _parameters(query: str) -> dict[str, str]:
    """
    Return the parameters in *query*.

    Raises:
        InvalidRequest: one is unknown, given twice, or has no value.
    """
    known = ("queue", *_CONVERTERS, *_TLS)
    found: dict[str, str] = {}
    for each in filter(None, query.split("&")):
        name, _, value = each.partition("=")
        if name not in known:
            raise InvalidRequest(f"the URL has an unknown parameter {name!r}; it must be one of {', '.join(known)}")
        if name in found:
            raise InvalidRequest(f"{name} is given twice in the URL")
        if not value:
            raise InvalidRequest(f"{name} has no value in the URL: it must be {name}=VALUE")
        found[name] = _decoded(name, value)
    return found


def _options(scheme: str, parameters: Mapping[str, str], arguments: Mapping[str, Any]) -> ConnectOptions:
    """Return the options in *parameters*, and in *arguments*, which take precedence."""
    found: dict[str, Any] = {}
    for name, convert in _CONVERTERS.items():
        if name in parameters:
            found |= convert(name, parameters[name])
    tls = {name: parameters[name] for name in _TLS if name in parameters}
    if scheme == "queueber+tls":
        found["tls"] = Tls(**tls)
    elif tls:
        raise InvalidRequest(f"{next(iter(tls))} needs TLS: the URL must begin with queueber+tls://")
    return ConnectOptions(**{**found, **arguments})


def _decoded(name: str, value: str) -> str:
    if "%" not in value:
        return value
    # Imported here, because few URLs need it.
    from urllib.parse import unquote  # noqa: PLC0415

    if re.search(r"%(?![0-9A-Fa-f]{2})", value):
        raise InvalidRequest(f"{name} has a % without two hexadecimal digits; it must be percent-encoded")
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequest(f"{name} is not UTF-8 in percent-encoding") from None


def _number(name: str, value: str, most: int, unit: str) -> int:
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()):
        raise InvalidRequest(f"{name} is {value!r}; it must be a whole number of {unit}")
    return integer(name, int(value) if len(value) < _DIGITS_MAX else most + 1, 1, most, unit)


def _limits(frame_bytes: int) -> Limits:
    # Imported here, because few URLs need it.
    from queueber.limits import Limits  # noqa: PLC0415

    return Limits(frame_bytes=frame_bytes)


def _boolean(name: str, value: str) -> bool:
    if value not in _BOOLEANS:
        raise InvalidRequest(f"{name} is {value!r}; it must be true or false")
    return _BOOLEANS[value]


_DIGITS_MAX: Final = 40
"""Python converts longer numbers slowly, or not at all."""

_CONVERTERS: Final[Mapping[str, Callable[[str, str], dict[str, Any]]]] = {
    "timeout_ms": lambda name, value: {name: _number(name, value, SPAN_MS_MAX, "ms")},
    "attempts": lambda name, value: {name: _number(name, value, (1 << 63) - 1, "attempts")},
    "frame_bytes": lambda name, value: {"limits": _limits(_number(name, value, FRAME_BYTES_HIGHEST, "bytes"))},
    "resend_adds": lambda name, value: {name: _boolean(name, value)},
}
"""The options of `ConnectOptions` by the name of their parameter."""
