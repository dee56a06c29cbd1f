"""
A connection: bytes to the RPC machine and events away from it.

Replies are collected, and what one turn or one commit has to say to a peer
goes out in a single write.
"""

from collections.abc import Sequence
from typing import Any
from typing import Protocol as Interface

from attrs import define
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHandshakeListener, ISSLTransport, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from queueber import api, rpc
from queueber.broker import Broker, Peer, Queue, Waiter
from queueber.errors import Kind, RemoteProtocolError, tls_reason
from queueber.limits import DEFAULTS, Limits
from queueber.server.core.dispatcher import Dispatcher
from queueber.server.core.handlers import ReplySink
from queueber.server.net.connections import Connections
from queueber.server.net.read_scheduler import InboundBuffer, ReadScheduler
from queueber.server.net.send_buffer import FlushQueue, SendBuffer
from queueber.server.net.timeouts import ACTIVITY, FIRST_MESSAGE, PROGRESS, WHOLE_MESSAGE
from queueber.transport.keepalive import keep_alive
from queueber.transport.protocol_detection import FIRST_BYTES, protocol_of
from queueber.units import Unit, quantity


class Handlers(Interface):
    """Carries out the calls of a connection."""

    @property
    def root(self) -> object:
        """The object that a connection bootstraps."""

    outstanding: int
    """Calls that have not been answered."""

    def call(self, sink: ReplySink, calls: rpc.Calls) -> None:
        """
        Carry out *calls*; *sink* takes each reply, now or later.

        Raises:
            RemoteProtocolError: the parameters cannot be read.
        """


_OVER = rpc.Connection(limits=DEFAULTS)
"""What is left of every connection that was lost: whatever it is told is said to nobody."""
_OVER.end()

OVERDUE = {
    FIRST_MESSAGE: "no message came whole within",
    WHOLE_MESSAGE: "a message has begun, and nothing more of it came for",
    PROGRESS: "none of the replies that wait was taken for",
    ACTIVITY: "nothing came for",
}


@implementer(IHandshakeListener)
class RpcProtocol(Protocol):
    """One peer.  Decides nothing."""

    transport: ITransport

    def __init__(self, server: "RpcFactory", host: str | None) -> None:
        self._server = server
        self.host = host
        """The peer's address, if it has one."""

        self._connection = rpc.Connection(
            limits=server.limits,
            bootstrap=server.methods.root,
            limit_hits=server.connections.limit_hits,
            templates=server.templates,
        )
        self._waiters: dict[rpc.AnswerId, Waiter] = {}
        self._replies: SendBuffer
        self._intake: InboundBuffer
        self._heard = self._spoken = False
        self._first = b""
        self._begun = self._held = 0
        self._acknowledged: int | None = None
        self._last = 0.0
        self._lost = False
        self._closing = self._evicted = False
        self._paused = False
        self.peer = Peer(0)
        """Which of all connections it is, counted as they were made."""

        self.request_bytes = 0
        """Length of the adds that wait for the disk."""

    def connectionMade(self) -> None:
        """Join the server's connections."""
        self._server.connections.joined(self)
        self.peer = Peer(self._server.connections.made)
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        keep_alive(transport)
        self._replies = SendBuffer(transport, self._replies_moved)
        self._intake = InboundBuffer(transport, self._server.turns, self._carry_out)
        self._server.connections.patience.expect(self, FIRST_MESSAGE)

    def handshakeCompleted(self) -> None:
        """The connection is secured."""
        transport: Any = self.transport
        transport.greeting.finished()

    def dataReceived(self, data: bytes) -> None:
        """Carry out what the peer asks for, now or when it is its turn."""
        self._heard = True
        self._intake.received(data)
        if self._intake:
            self._account()

    def _carry_out(self, data: bytes) -> None:
        if not self._spoken and len(self._first) < FIRST_BYTES:
            self._first += data[: FIRST_BYTES - len(self._first)]
        try:
            for event in self._connection.receive_data(data):
                self._handle(event)
        except RemoteProtocolError as why:
            other = None if self._spoken else protocol_of(self._first)
            if other is not None:
                # What its first bytes would be as a message says nothing about the limits.
                self._end("Closing the connection of {peer}: {why}", f"it speaks {other}, and this port does not")
            else:
                self._server.connections.hit(why.limit)
                self._end("Closing the connection of {peer}: {why}", str(why))
        self._keep_watch(len(data))
        # The machine answers some messages by itself, a Bootstrap for one.
        self._server.outbox.waiting[self] = None
        self._server.outbox.flush()

    def _keep_watch(self, received: int) -> None:
        """Wait for the rest of a message that has begun, and for the first one to come whole."""
        patience, begun = self._server.connections.patience, self._connection.held_bytes
        if not self._spoken and begun < self._begun + received:
            self._spoken = True
            patience.content(self, FIRST_MESSAGE)
        if self._server.limits.idle_ms:
            patience.expect(self, ACTIVITY)
        if begun or self._begun:
            self._begun = begun
            if begun and not self._closing and not self._paused:
                patience.expect(self, WHOLE_MESSAGE)
            else:
                patience.content(self, WHOLE_MESSAGE)
        self._account()

    def _handle(self, event: rpc.Event) -> None:
        if type(event) is rpc.Calls:
            self._server.methods.call(self, event)
        elif type(event) is rpc.Finished:
            waiter = self._waiters.get(event.answer)
            if waiter is not None:
                self._server.dispatcher.cancel(waiter)
        elif type(event) is rpc.Aborted:
            line = "{peer} has ended its connection: {why}"
            self._server.connections.debug(self.host, line, peer=self.transport.getPeer(), why=event.reason[:200])
            self.close()

    def overdue(self, limit: str) -> None:
        """The peer has kept us waiting for longer than *limit*."""
        if self._is_excused(limit):
            self._server.connections.patience.expect(self, limit)
            return
        self._server.connections.hit(limit)
        reason = f"{OVERDUE[limit]} {quantity(getattr(self._server.limits, limit), Unit.MS)} ({limit})"
        self._end("Giving up on {peer}: {why}", reason)
        if limit == PROGRESS or (not self._heard and ISSLTransport.providedBy(self.transport)):
            # A TLS connection that was not even agreed upon could only be ended by its peer.
            self.cut()

    def _is_excused(self, limit: str) -> bool:
        """Whether it is rather us who keep the peer waiting, or it does move, only slowly."""
        if limit == PROGRESS:
            before, self._acknowledged = self._acknowledged, self._replies.bytes_acked()
            return before is not None and self._acknowledged is not None and self._acknowledged > before
        return bool(self._intake) or (limit == ACTIVITY and self._connection.stats().unanswered > 0)

    def evict(self) -> None:
        """Make room: all connections together hold too much, and this one more than its share."""
        self._evicted = True
        self._server.connections.hit("buffered_bytes")
        limit = self._server.limits.buffered_bytes
        reason = f"all connections hold more than {limit:,} bytes (buffered_bytes), this one {self._held:,} of them"
        self._end("Closing the connection of {peer}: {why}", reason)
        self.cut()

    def give_way(self) -> None:
        """Somebody else needs the place more."""
        reason = "it has been idle for longest, and there are as many connections as there may be (connections)"
        self._end("Closing the connection of {peer}: {why}", reason)
        self.cut()

    def _end(self, line: str, reason: str) -> None:
        self._connection.abort(reason)
        self._server.connections.warn(self.host, line, peer=self.transport.getPeer(), why=reason[:200])
        self.close()

    def close(self) -> None:
        """Send what was said, and end the connection, however little its peer takes of that."""
        if self._closing or self._lost:
            return
        self._closing = True
        self.send()
        self._give_up_polls()
        self._server.connections.patience.forget(self)
        self._acknowledged = self._replies.bytes_acked()
        self._server.connections.patience.expect(self, PROGRESS)
        # Before the transport is told that it ends: it must be read to see that the peer does.
        self._intake.forget()
        self._replies.end()

    def cut(self) -> None:
        """End the connection at once, whatever its peer has not taken."""
        self._replies.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give up what waits; what is under way takes effect without a reply."""
        self._lost = True
        self._server.connections.left(self)
        refused = None if self._heard else tls_reason(reason.value)
        if refused is not None:
            line = "No TLS with {peer}: {why}"
            self._server.connections.warn(self.host, line, peer=self.transport.getPeer(), why=refused)
        elif reason.check(ConnectionDone) is None:
            self._server.connections.debug(
                self.host, "Lost the connection of {host}: {why}", why=reason.getErrorMessage()
            )
        self._give_up_polls()
        self._server.broker.polls.resume(self.peer)
        # Connections come and go by the thousand, each with half a message of megabytes if its peer likes.
        self._connection.end()
        # Replies that wait for the disk have the protocol to be given to, and would keep its tables until then.
        self._connection = _OVER
        self._intake.forget()
        self._replies.forget()

    def _give_up_polls(self) -> None:
        for waiter in list(self._waiters.values()):
            self._server.dispatcher.cancel(waiter)

    def usage(self) -> rpc.ConnectionStats:
        """What the peer's calls take up at the moment."""
        return self._connection.stats()

    @property
    def idle_since(self) -> float | None:
        """When its peer last said or was told something; None while anything is under way."""
        if self._closing or self._lost or self._begun or self._intake or self._replies.held:
            return None
        return None if self._connection.stats().unanswered else self._last

    @property
    def held_bytes(self) -> int:
        """What is held for the peer: of a message that has begun, and of replies that it has not taken."""
        return self._held

    @property
    def paused(self) -> bool:
        """Whether nothing is read from it because it takes no replies."""
        return self._paused

    # Replies

    def results(self, answers: Sequence[rpc.AnswerId], contents: Sequence[bytes]) -> None:
        """Return one of *contents* for each of *answers*."""
        self._connection.return_results(answers, contents)
        self._answered(answers)

    def queue_results(self, answer: rpc.AnswerId, queue: Queue) -> None:
        """Return a capability to *queue*."""
        self._connection.return_capabilities(answer, api.QUEUE_RESPONSE, (queue,))
        self._answered((answer,))

    def error(self, answer: rpc.AnswerId, kind: Kind, reason: str) -> None:
        """Return an exception."""
        self._connection.return_exception(answer, kind, reason)
        self._answered((answer,))

    def canceled(self, answer: rpc.AnswerId) -> None:
        """Return that the call was given up."""
        if not self._lost:
            self._connection.return_canceled(answer)
        self._answered((answer,))

    def waits(self, answer: rpc.AnswerId, waiter: Waiter) -> None:
        """Remember whose poll to give up when the peer does."""
        self._waiters[answer] = waiter

    def _answered(self, answers: Sequence[rpc.AnswerId]) -> None:
        self._server.methods.outstanding -= len(answers)
        if self._waiters:
            for answer in answers:
                self._waiters.pop(answer, None)
        if self._server.limits.idle_ms and not self._lost and not self._closing:
            self._server.connections.patience.expect(self, ACTIVITY)
        self._server.outbox.waiting[self] = None

    def send(self) -> None:
        """Write what has been said, if somebody still listens."""
        self._last = self._server.connections.seconds()
        data = self._connection.data_to_send()
        if data and not self._lost:
            self._replies.write(data)
            if self._replies.unsent:
                self._account()
                if self._replies.unsent > self._server.limits.unsent_bytes and not self._paused:
                    self._pause()

    def _account(self) -> None:
        """Tell what is held for the peer."""
        moving, kept = len(self._intake) + self._begun + self._replies.held, self._connection.tables_bytes
        if moving + kept != self._held and not self._evicted:
            self._held = moving + kept
            self._server.connections.buffers.hold(self, moving, kept)

    # Back-pressure

    def _replies_moved(self) -> None:
        """The peer has taken some, or is behind from now on."""
        patience, replies = self._server.connections.patience, self._replies
        if replies.full or self._closing:
            self._acknowledged = self._replies.bytes_acked()
            patience.expect(self, PROGRESS)
        else:
            patience.content(self, PROGRESS)
        self._account()
        if self._paused and replies.unsent <= self._server.limits.unsent_bytes // 2:
            self._go_on()

    def _pause(self) -> None:
        """Too much is not taken: do not read the peer, and serve none of its waiting polls."""
        self._server.connections.hit("unsent_bytes")
        self._paused = True
        # It is us who do not read on.
        self._server.connections.patience.content(self, WHOLE_MESSAGE)
        self._intake.hold()
        self._server.broker.polls.pause(self.peer)

    def _go_on(self) -> None:
        self._paused = False
        if self._begun and not self._closing:
            self._server.connections.patience.expect(self, WHOLE_MESSAGE)
        self._intake.release()
        self._server.broker.polls.resume(self.peer)
        self._server.dispatcher.committer.wake()


@define(eq=False)
class RpcFactory(Factory):
    """Makes a protocol for each connection, up to as many as there may be."""

    broker: Broker
    methods: Handlers
    dispatcher: Dispatcher
    outbox: FlushQueue
    connections: Connections
    limits: Limits
    turns: ReadScheduler
    templates: rpc.TemplateReaders
    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> RpcProtocol | None:
        """A protocol for a new peer; None, which closes the connection, when there are too many."""
        host = getattr(addr, "host", None)
        return RpcProtocol(self, host) if self.connections.admits(host) else None
