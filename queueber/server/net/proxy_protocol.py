"""
Endpoints that read PROXY headers from a load balancer (`haproxy:`).

Twisted's parser raises one documented exception for malformed headers and lets
others escape, each of which is logged as a traceback.  Here every malformed
header ends its connection with one rate-limited log line.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from twisted.internet.interfaces import IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.protocols.haproxy import proxyEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer

from queueber.server.core.log_rate_limit import LogRateLimiter

PREFIX: Final = "haproxy:"


def guarded_endpoint(
    text: str, plain: Callable[[str], IStreamServerEndpoint], seconds: Callable[[], float]
) -> IStreamServerEndpoint:
    """
    Return the endpoint that *text* describes, with a `HeaderGuard` if it expects PROXY headers.

    *plain* makes endpoints without PROXY headers.  *seconds* is the reactor's clock.
    """
    if not text.startswith(PREFIX):
        return plain(text)
    inner = guarded_endpoint(text.removeprefix(PREFIX), plain, seconds)
    wrapped: IStreamServerEndpoint = proxyEndpoint(_GuardedEndpoint(inner, LogRateLimiter(seconds)))
    return wrapped


@implementer(IStreamServerEndpoint)
class _GuardedEndpoint:
    """An endpoint whose connections end if their PROXY header is malformed."""

    def __init__(self, endpoint: Any, rate_limiter: LogRateLimiter) -> None:  # noqa: ANN401
        self._endpoint = endpoint
        self._rate_limiter = rate_limiter

    def listen(self, factory: IProtocolFactory) -> Any:  # noqa: ANN401
        """Listen with the guarded *factory*."""
        return self._endpoint.listen(HeaderGuard(factory, self._rate_limiter))


class _GuardedProtocol(ProtocolWrapper):
    log = Logger()

    def dataReceived(self, data: bytes) -> None:
        """Pass *data* to the parser, and end the connection if it raises."""
        try:
            super().dataReceived(data)  # type: ignore[no-untyped-call]
        except Exception as why:
            if _is_ours(why.__traceback__):
                raise
            self._end(type(why).__name__)

    def _end(self, why: str) -> None:
        transport: Any = self.transport
        host = getattr(transport.getPeer(), "host", None)
        more = self.factory.rate_limiter.passes(host, "PROXY header")
        if more is not None:
            line = "Closing the connection of {host}: its PROXY header cannot be read ({why}){more}"
            self.log.warn(line, host=host, why=why, more=more)
        transport.abortConnection()


def _is_ours(traceback: TracebackType | None) -> bool:
    """Return whether an exception passed through a module of Queueber's below the parser: then it is a bug."""
    # The first entry is the guard itself.
    traceback = traceback and traceback.tb_next
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__", "").startswith("queueber."):
            return True
        traceback = traceback.tb_next
    return False


class HeaderGuard(WrappingFactory):
    """Guards the connections of an endpoint that expects PROXY headers."""

    protocol = _GuardedProtocol
    noisy = False

    def __init__(self, factory: IProtocolFactory, rate_limiter: LogRateLimiter) -> None:
        """Guard the connections of *factory*.  *rate_limiter* bounds the log lines about them."""
        super().__init__(factory)  # type: ignore[no-untyped-call]
        self.rate_limiter = rate_limiter

    def buildProtocol(self, addr: Any) -> Any:  # noqa: ANN401
        """Return a guarded protocol; None if the wrapped factory refuses the connection."""
        guarded: Any = super().buildProtocol(addr)
        return None if guarded.wrappedProtocol.wrappedProtocol is None else guarded
