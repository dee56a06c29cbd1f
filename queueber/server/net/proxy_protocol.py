"""
Connections through a balancer that says whose they are (`haproxy:`), where what it says may be anything.

Twisted's parser of PROXY headers knows one exception for those that are wrong
and lets others through, which end up in the log as a traceback each.  Whatever
it is: the connection ends, with a line of the log that is bounded as all are.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any

from twisted.internet.interfaces import IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.protocols.haproxy import proxyEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer

from queueber.server.net.log_rate_limit import LogRateLimiter

PREFIX = "haproxy:"


def endpoint_of(
    text: str, plain: Callable[[str], IStreamServerEndpoint], seconds: Callable[[], float]
) -> IStreamServerEndpoint:
    """
    The endpoint that *text* describes; what is malformed at one behind a balancer ends quietly.

    *plain* makes those that are behind none; *seconds* is the reactor's clock.
    """
    if not text.startswith(PREFIX):
        return plain(text)
    inner = endpoint_of(text.removeprefix(PREFIX), plain, seconds)
    wrapped: IStreamServerEndpoint = proxyEndpoint(_Guarded(inner, LogRateLimiter(seconds)))
    return wrapped


@implementer(IStreamServerEndpoint)
class _Guarded:
    """An endpoint whose connections end when their header cannot be read."""

    def __init__(self, endpoint: Any, throttle: LogRateLimiter) -> None:  # noqa: ANN401
        self._endpoint = endpoint
        self._throttle = throttle

    def listen(self, factory: IProtocolFactory) -> Any:  # noqa: ANN401
        """As the endpoint does."""
        guard = HeaderGuard(factory)  # type: ignore[no-untyped-call]
        guard.passes = self._throttle.passes
        return self._endpoint.listen(guard)


class _Guarding(ProtocolWrapper):
    log = Logger()

    def dataReceived(self, data: bytes) -> None:
        """Give it to the parser and to whoever is behind it."""
        try:
            super().dataReceived(data)  # type: ignore[no-untyped-call]
        except Exception as why:
            if _is_ours(why.__traceback__):
                raise
            self._end(type(why).__name__)

    def _end(self, why: str) -> None:
        transport: Any = self.transport
        host = getattr(transport.getPeer(), "host", None)
        more = self.factory.passes(host, "PROXY header")
        if more is not None:
            line = "Closing the connection of {host}: its PROXY header cannot be read ({why}){more}"
            self.log.warn(line, host=host, why=why, more=more)
        transport.abortConnection()


def _is_ours(traceback: TracebackType | None) -> bool:
    """Whether an exception came out of what is behind the parser: then it is a bug of ours."""
    # The first is the guard itself.
    traceback = traceback and traceback.tb_next
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__", "").startswith("queueber."):
            return True
        traceback = traceback.tb_next
    return False


class HeaderGuard(WrappingFactory):
    """For the connections of an endpoint behind a balancer."""

    protocol = _Guarding
    noisy = False
    passes: Callable[[object, str], str | None]

    def buildProtocol(self, addr: Any) -> Any:  # noqa: ANN401
        """A protocol, unless whoever is behind takes no more."""
        guarding: Any = super().buildProtocol(addr)
        return None if guarding.wrappedProtocol.wrappedProtocol is None else guarding
