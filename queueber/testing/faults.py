"""
Faults that a test can switch on: what they do to the connections of a test server.

`FaultyFactory` makes the server's own protocol with a few hooks.  All belongs to
the server's thread but `Fault`, which a test holds.
"""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from attrs import define, evolve, field
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from queueber import rpc
from queueber.broker import Waiter
from queueber.errors import Kind
from queueber.server.core.handlers import Handlers
from queueber.server.core.replies import ReplySink
from queueber.server.core.stats import METHODS, OTHER_METHOD
from queueber.server.net.context import ServerContext
from queueber.server.net.protocol import RpcProtocol
from queueber.server.net.rpc_factory import RpcFactory

ON_ITEMS: Final = ("add", "poll", "poll_any", "remove", "extend", "settle")
"""The methods that faults concern unless one is named."""

_OURS: Final = {
    wire: "".join(f"_{each.lower()}" if each.isupper() else each for each in wire) for wire in METHODS.values()
}


class Fault:
    """
    A fault of a test server, which lasts until `end`, or until the end of its `with` block.

    The fault begins when the method of `TestServer` returns it, not with the block.
    """

    def __init__(self, switch: "Switch", end: Callable[[], None]) -> None:
        """Made by `TestServer`."""
        self._switch = switch
        self._end = end

    @property
    def happened(self) -> int:
        """The calls that met the fault so far, or connections for `silence_clients`; 0 for faults of another kind."""
        return self._switch.happened

    def end(self) -> None:
        """End the fault.  Further calls have no effect."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, where: TracebackType | None
    ) -> None:
        self.end()


@define(eq=False)
class Switch:
    """A fault that is on."""

    methods: frozenset[str] = frozenset()
    """The calls that it concerns."""

    times: int | None = None
    """The number of calls that it still meets; None: any number."""

    happened: int = 0

    def meets(self, method: str) -> bool:
        """Return whether a call of *method* meets the fault, and count it."""
        if method not in self.methods or self.times == 0:
            return False
        if self.times is not None:
            self.times -= 1
        self.happened += 1
        return True


def checked_methods(method: str | None) -> frozenset[str]:
    """
    Return the methods that a fault of *method* concerns.

    Raises:
        ValueError: there is no such method.
    """
    if method is None:
        return frozenset(ON_ITEMS)
    if method not in _OURS.values():
        raise ValueError(f"no method is named {method!r}; there are {', '.join(sorted(set(_OURS.values())))}")
    return frozenset([method])


@define(eq=False)
class Faults:
    """The faults of one server that are on."""

    lose: list[Switch] = field(factory=list)
    """Replies to lose, each with its connection."""

    overload: list[Switch] = field(factory=list)
    """Calls to refuse."""

    hang: list[Switch] = field(factory=list)
    """While there is one, nothing is read or sent."""

    silenced: dict["FaultyProtocol", Switch] = field(factory=dict)
    """Connections whose peers hang."""

    activity: int = 0
    """Counts what arrives: reads, new connections and ends of connections."""

    def loses(self, method: str) -> bool:
        """Return whether the reply to a call of *method* will be lost."""
        return any(each.meets(method) for each in self.lose)

    def refuses(self, method: str) -> bool:
        """Return whether a call of *method* will be refused as overloaded."""
        return any(each.meets(method) for each in self.overload)


class FaultyProtocol(RpcProtocol):
    """A connection that faults can meet."""

    def __init__(
        self, server: ServerContext, host: str | None, faults: Faults, on_wait: Callable[[Waiter], None]
    ) -> None:
        super().__init__(server, host)
        self._faults = faults
        self._on_wait = on_wait
        self.calls: dict[rpc.AnswerId, str] = {}
        """The methods of the calls that are not answered."""

    # Input

    def connectionMade(self) -> None:
        """Join the connections; while the server hangs, read nothing."""
        self._faults.activity += 1
        super().connectionMade()
        if self._faults.hang:
            self.deaf()

    def dataReceived(self, data: bytes) -> None:
        """Count what arrives, and process it."""
        self._faults.activity += 1
        super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave the connections."""
        self._faults.activity += 1
        self._faults.silenced.pop(self, None)
        super().connectionLost(reason)

    def deaf(self) -> None:
        """Read nothing more: what the peer sends stays in the socket, its end included."""
        transport: Any = self.transport
        transport.pauseProducing()

    def hear(self) -> None:
        """Read again, and send what was held back."""
        transport: Any = self.transport
        transport.resumeProducing()
        self.send()

    # Replies

    def send(self) -> None:
        """Send all replies so far, unless the server hangs."""
        if not self._faults.hang:
            super().send()

    def results(self, answers: Sequence[rpc.AnswerId], contents: Sequence[bytes]) -> None:
        """Return results, up to the first reply that is lost."""
        for place, answer in enumerate(answers):
            if self._is_lost(answer):
                if place:
                    super().results(answers[:place], contents[:place])
                self._lose(answers[place:])
                return
        super().results(answers, contents)

    def capabilities(self, answer: rpc.AnswerId, content: bytes, objects: Sequence[object]) -> None:
        """Return an object, unless the reply is lost."""
        if self._is_lost(answer):
            self._lose([answer])
        else:
            super().capabilities(answer, content, objects)

    def error(self, answer: rpc.AnswerId, kind: Kind, reason: str) -> None:
        """Return an exception, unless the reply is lost."""
        if self._is_lost(answer):
            self._lose([answer])
        else:
            super().error(answer, kind, reason)

    def waits(self, answer: rpc.AnswerId, waiter: Waiter) -> None:
        """Note that the call is a poll that waits."""
        super().waits(answer, waiter)
        self._on_wait(waiter)

    def canceled(self, answer: rpc.AnswerId) -> None:
        """Send the Return of a call that was cancelled."""
        self.calls.pop(answer, None)
        super().canceled(answer)

    def refuse(self, answers: Sequence[rpc.AnswerId], kind: Kind, reason: str) -> None:
        """Answer calls that the server has not seen with an exception."""
        self._server.call_stats.outstanding += len(answers)
        for answer in answers:
            self.error(answer, kind, reason)

    def _is_lost(self, answer: rpc.AnswerId) -> bool:
        return self._faults.loses(self.calls.pop(answer, OTHER_METHOD))

    def _lose(self, answers: Sequence[rpc.AnswerId]) -> None:
        """Cut the connection instead of answering."""
        self._server.call_stats.outstanding -= len(answers)
        for answer in answers:
            self._waiters.pop(answer, None)
        self.abort()


class FaultyHandlers:
    """The server's handlers, but for the calls that are to be refused."""

    def __init__(self, handlers: Handlers, faults: Faults) -> None:
        self._handlers = handlers
        self._faults = faults
        self.root = handlers.root

    def call(self, sink: ReplySink, calls: rpc.Calls) -> None:
        """Refuse those of *calls* that meet a fault, and carry out the others."""
        assert isinstance(sink, FaultyProtocol)
        name = METHODS.get((calls.interface_id, calls.method_id), OTHER_METHOD)
        method = _OURS.get(name, name)
        sink.calls.update(dict.fromkeys(calls.answers, method))
        refused = [self._faults.refuses(method) for _ in calls.answers] if self._faults.overload else []
        if not any(refused):
            self._handlers.call(sink, calls)
            return
        answers = [answer for answer, no in zip(calls.answers, refused, strict=True) if no]
        sink.refuse(answers, Kind.OVERLOADED, "the test server is overloaded, as the test has it")
        places = [place for place, no in enumerate(refused) if not no]
        if places:
            self._handlers.call(sink, calls.select(places))


class FaultyFactory(RpcFactory):
    """Makes the connections of a test server."""

    def __init__(self, server: ServerContext, faults: Faults, on_wait: Callable[[Waiter], None]) -> None:
        super().__init__(evolve(server, handlers=FaultyHandlers(server.handlers, faults)))
        self._faults = faults
        self._on_wait = on_wait

    def build(self, addr: IAddress | None, on_handshake: Callable[[], None] = lambda: None) -> RpcProtocol | None:  # noqa: ARG002
        """Return the protocol of a new connection; None if there are too many."""
        host = getattr(addr, "host", None)
        if not self.connections.admit(host):
            return None
        return FaultyProtocol(self.server, host, self._faults, self._on_wait)
