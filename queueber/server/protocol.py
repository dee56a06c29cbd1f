"""
A connection: bytes to the RPC machine and events away from it.

Replies are collected, and what one turn or one commit has to say to a peer
goes out in a single write.
"""

from typing import Any

from attrs import define, field
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IPushProducer, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from queueber import wire
from queueber.broker import Broker, Queue, Waiter
from queueber.errors import Kind, RemoteProtocolError
from queueber.limits import Limits
from queueber.server.dispatcher import Dispatcher
from queueber.server.methods import Methods
from queueber.units import MS_PER_SECOND


@define(eq=False)
class Outbox:
    """The connections that have something to say."""

    _waiting: dict["RpcProtocol", None] = field(factory=dict, init=False)

    def put(self, protocol: "RpcProtocol") -> None:
        """Let *protocol* send at the next `flush`."""
        self._waiting[protocol] = None

    def flush(self) -> None:
        """Let all of them send."""
        waiting, self._waiting = self._waiting, {}
        for protocol in waiting:
            protocol.send()


@implementer(IPushProducer)
class RpcProtocol(Protocol):
    """One peer.  Decides nothing."""

    log = Logger()
    transport: ITransport

    def __init__(self, server: "RpcFactory") -> None:
        self._server = server
        self._connection = wire.Connection(limits=server.limits, bootstrap=server.methods.root)
        self._waiters: dict[wire.AnswerId, Waiter] = {}
        self._lost = False
        # Bytes written since the transport's own, small buffer was full; None while it is not.
        self._backlog: int | None = None
        self._paused = False
        self._cut_off: Any = None

    def connectionMade(self) -> None:
        """Join the server's connections."""
        self._server.connections[self] = None
        transport: Any = self.transport
        for option in ("setTcpNoDelay", "setTcpKeepAlive"):
            if hasattr(transport, option):
                getattr(transport, option)(True)
        transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Carry out what the peer asks for."""
        try:
            for event in self._connection.receive_data(data):
                self._handle(event)
        except RemoteProtocolError as why:
            self._connection.abort(str(why))
            self.log.warn("Closing the connection of {peer}: {why}", peer=self.transport.getPeer(), why=str(why)[:200])
            self.close()
        # The machine answers some messages by itself, a Bootstrap for one.
        self._server.outbox.put(self)
        self._server.outbox.flush()

    def _handle(self, event: wire.Event) -> None:
        if type(event) is wire.Called:
            self._server.methods.call(self, event)
        elif type(event) is wire.Finished:
            waiter = self._waiters.get(event.answer)
            if waiter is not None:
                self._server.dispatcher.cancel(waiter)
        elif type(event) is wire.Aborted:
            self.log.debug("{peer} has ended its connection: {why}", peer=self.transport.getPeer(), why=event.reason)
            self.close()

    def close(self) -> None:
        """Send what was said, and end the connection, however little its peer takes of that."""
        self.send()
        self._give_up_polls()
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.loseConnection()
        if self._cut_off is None and not self._lost:
            seconds = self._server.limits.idle_close_ms / MS_PER_SECOND
            self._cut_off = self._server.reactor.callLater(seconds, transport.abortConnection)

    def cut(self) -> None:
        """End the connection at once, whatever its peer has not taken."""
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give up what waits; what is under way takes effect without a reply."""
        self._lost = True
        del self._server.connections[self]
        if reason.check(ConnectionDone) is None:
            self.log.debug("{why}", why=reason.getErrorMessage())
        if self._cut_off is not None and self._cut_off.active():
            self._cut_off.cancel()
        self._give_up_polls()
        self._server.broker.polls.resume(self)

    def _give_up_polls(self) -> None:
        for waiter in list(self._waiters.values()):
            self._server.dispatcher.cancel(waiter)

    # Replies

    def results(self, answer: wire.AnswerId, content: bytes) -> None:
        """Return *content*."""
        self._connection.return_results(answer, content)
        self._answered(answer)

    def queue_results(self, answer: wire.AnswerId, queue: Queue) -> None:
        """Return a capability to *queue*."""
        self._connection.return_results(answer, wire.QUEUE_RESPONSE, (queue,))
        self._answered(answer)

    def error(self, answer: wire.AnswerId, kind: Kind, reason: str) -> None:
        """Return an exception."""
        self._connection.return_exception(answer, kind, reason)
        self._answered(answer)

    def canceled(self, answer: wire.AnswerId) -> None:
        """Return that the call was given up."""
        if not self._lost:
            self._connection.return_canceled(answer)
        self._answered(answer)

    def waits(self, answer: wire.AnswerId, waiter: Waiter) -> None:
        """Remember whose poll to give up when the peer does."""
        self._waiters[answer] = waiter

    def _answered(self, answer: wire.AnswerId) -> None:
        self._server.methods.outstanding -= 1
        if self._waiters:
            self._waiters.pop(answer, None)
        self._server.outbox.put(self)

    def send(self) -> None:
        """Write what has been said, if somebody still listens."""
        data = self._connection.data_to_send()
        if data and not self._lost:
            if self._backlog is not None:
                self._backlog += len(data)
            self.transport.write(data)
            if self._backlog is not None and self._backlog > self._server.limits.unsent_bytes and not self._paused:
                self._pause()

    # Back-pressure.  The transport calls pauseProducing when 64 KiB of replies were not taken, and resumeProducing when
    # all were.  What is written in between is an upper bound of what the peer has not taken.  Making the transport's
    # bufferSize the limit instead would make every read allocate as much.

    def pauseProducing(self) -> None:
        """The peer is behind with its replies: begin to count them."""
        if self._backlog is None:
            self._backlog = FileDescriptor.bufferSize

    def _pause(self) -> None:
        """Too much is not taken: do not read the peer, and serve none of its waiting polls."""
        self._paused = True
        transport: Any = self.transport
        transport.pauseProducing()
        self._server.broker.polls.pause(self)

    def resumeProducing(self) -> None:
        """The peer has taken all its replies."""
        self._backlog = None
        if self._paused:
            self._paused = False
            transport: Any = self.transport
            transport.resumeProducing()
            self._server.broker.polls.resume(self)
            self._server.dispatcher.committer.wake()

    def stopProducing(self) -> None:
        """The connection is on its way out; `connectionLost` does the rest."""


@define(eq=False)
class RpcFactory(Factory):
    """Makes a protocol for each connection, up to as many as there may be."""

    broker: Broker
    methods: Methods
    dispatcher: Dispatcher
    outbox: Outbox
    limits: Limits
    reactor: Any
    connections: dict[RpcProtocol, None] = field(factory=dict, init=False)
    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> RpcProtocol | None:  # noqa: ARG002
        """A protocol for a new peer; None, which closes the connection, when there are too many."""
        if len(self.connections) >= self.limits.connections:
            return None
        return RpcProtocol(self)
