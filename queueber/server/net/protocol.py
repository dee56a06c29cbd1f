"""
One connection: bytes to the RPC state machine, calls to the handlers, replies to the peer.

The states and their changes are in `states`.  Replies are collected, and those
of one reactor turn or one commit leave in one write.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IHandshakeListener, ISSLTransport, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from queueber import rpc
from queueber.broker import Peer, Waiter
from queueber.errors import Kind, RemoteProtocolError
from queueber.fixed_limits import CONNECTION
from queueber.server.net.context import ServerContext
from queueber.server.net.inbound_buffer import InboundBuffer
from queueber.server.net.listeners import address_text
from queueber.server.net.read_scheduler import exceeds_share, has_room
from queueber.server.net.send_buffer import SendBuffer
from queueber.server.net.states import ENDED, HELD, READING, TAKING_CALLS, ConnectionInput, ConnectionState, next_state
from queueber.server.net.timeouts import ACTIVITY, FIRST_MESSAGE, PROGRESS, REASONS, SILENCE, WHOLE_MESSAGE
from queueber.transport.keepalive import keep_alive
from queueber.transport.protocol_detection import FIRST_BYTES, protocol_of
from queueber.units import KIB, Unit, quantity

TABLES_CHECKED_BYTES: Final = 4 * KIB
"""Received bytes after which the RPC tables are measured: at most 85 answers of 300 bytes.  Exports are at once."""

_CLOSING: Final = "Closing the connection of {peer}: {why}"

_CLOSED: Final = rpc.Connection(limits=CONNECTION)
"""Replaces the RPC state of every lost connection: it drops all replies."""
_CLOSED.end()


@implementer(IHandshakeListener)
class RpcProtocol(Protocol):
    """One connection, as `PeerConnection` and `ReplySink` describe it.  It decides nothing about queues."""

    transport: ITransport

    def __init__(
        self, server: ServerContext, host: str | None, on_handshake: Callable[[], None] = lambda: None
    ) -> None:
        """*on_handshake* is called when the TLS handshake is finished; never without TLS."""
        self._server = server
        self.host, self.address = host, ""
        self._on_handshake = on_handshake
        self._connection = rpc.Connection(
            limits=server.limits.connection,
            bootstrap=server.handlers.root,
            limit_hits=server.connections.limit_hits,
            templates=server.templates,
        )
        self._state = ConnectionState.CONNECTED
        self._waiters: dict[rpc.AnswerId, Waiter] = {}  # the polls that wait
        self._send_buffer: SendBuffer
        self._inbound: InboundBuffer
        self._first = b""  # the first bytes of the stream, which show its protocol
        self._begun = 0  # bytes of an incomplete message after the latest read
        self._transient = self._retained = 0  # bytes in the memory budget
        self._unmeasured = 0  # bytes received since the tables were measured
        self._acked: int | None = None  # bytes that the peer had taken when the progress timer was started
        self._last_active = 0.0  # time of the latest read or reply
        self._on_session_loss: Callable[[], None] | None = None  # set while sessions are attached
        self.peer = Peer(0)

    def connectionMade(self) -> None:
        """Join the server's connections."""
        connections = self._server.connections
        connections.add(self)
        self.peer = Peer(connections.accepted)
        transport: Any = self.transport
        self.address = address_text(transport.getPeer())
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        keep_alive(transport)
        self._send_buffer = SendBuffer(transport, self._on_buffer_change)
        self._inbound = InboundBuffer(
            transport, self._server.read_scheduler, self._process, self._connection.missing_bytes
        )
        connections.timeouts.start(self, FIRST_MESSAGE)

    def handshakeCompleted(self) -> None:
        """Report that the TLS handshake is finished."""
        self._on_handshake()

    # Input

    def dataReceived(self, data: bytes) -> None:
        """Process *data*, now or when the read scheduler gets to it."""
        if self._state is ConnectionState.CONNECTED:
            self._state = next_state(self._state, ConnectionInput.DATA)
        elif self._on_session_loss is not None and self._state not in ENDED:
            self._server.connections.timeouts.start(self, SILENCE)
        inbound = self._inbound
        inbound.receive(data)
        if inbound.waiting:
            self._account()

    def _process(self, data: bytes) -> None:
        """Carry out the calls in *data*, the next bytes of the stream."""
        server, connection = self._server, self._connection
        if self._state is ConnectionState.FIRST_MESSAGE:
            self._first = (self._first + data)[:FIRST_BYTES]
        server.committer.begin_read()
        try:
            for event in connection.receive_data(data):
                if type(event) is rpc.Calls:
                    server.handlers.call(self, event)
                else:
                    self._handle(event)
        except RemoteProtocolError as why:
            self._break_off(why)
        finally:
            server.committer.end_read()
        self._last_active = server.connections.seconds()
        begun = len(connection.framer.begun)
        # Most reads end with a whole message of an open connection, and change no timer and nothing worth measuring.
        if begun or self._begun or self._state is ConnectionState.FIRST_MESSAGE or server.limits.idle_ms:
            self._update_timers(begun, len(data))
        self._unmeasured += len(data)
        if self._begun or self._transient or self._unmeasured >= TABLES_CHECKED_BYTES:
            self._account()
        if connection.unsent:
            # The state machine answers some messages by itself, such as Bootstrap.
            self.send()
        if server.flush_queue.waiting:
            server.flush_queue.flush()

    def _update_timers(self, begun: int, received: int) -> None:
        """Start and clear timers after a read of *received* bytes that left *begun* bytes of an incomplete message."""
        timeouts = self._server.connections.timeouts
        if self._state is ConnectionState.FIRST_MESSAGE and begun < self._begun + received:
            self._state = next_state(self._state, ConnectionInput.MESSAGE)
            timeouts.clear(self, FIRST_MESSAGE)
        if self._state not in ENDED:
            timeouts.start(self, ACTIVITY)
        if begun and self._state in READING:
            timeouts.start(self, WHOLE_MESSAGE)
        elif self._begun:
            timeouts.clear(self, WHOLE_MESSAGE)
        self._begun = begun

    def _handle(self, event: rpc.Event) -> None:
        """Handle an event other than calls."""
        if type(event) is rpc.Finished:
            waiter = self._waiters.get(event.answer)
            if waiter is not None:
                self._server.dispatcher.cancel(waiter)
        elif type(event) is rpc.Aborted:
            line = "{peer} has ended its connection: {why}"
            self._server.connections.debug(self.host, line, peer=self.transport.getPeer(), why=event.reason[:200])
            self.close()

    # The end

    def _break_off(self, why: RemoteProtocolError) -> None:
        """Close the connection of a peer that broke the protocol, or that uses another one."""
        other = protocol_of(self._first) if self._state is ConnectionState.FIRST_MESSAGE else None
        if other is None:
            self._server.connections.count_hit(why.limit)
            self._end(str(why))
        else:
            # As a message, these bytes would hit a limit by chance.
            self._end(f"it speaks {other}, and this port does not")

    def on_timeout(self, limit: str) -> None:
        """Close the connection, unless the delay is the server's or the peer makes progress."""
        timeouts = self._server.connections.timeouts
        if self._is_excused(limit):
            timeouts.start(self, limit)
            return
        self._server.connections.count_hit(limit)
        # A peer that takes nothing would not take the end either, and one in a TLS handshake has to take part in it.
        in_handshake = self._state is ConnectionState.CONNECTED and ISSLTransport.providedBy(self.transport)
        cause = ConnectionInput.ABORT if limit == PROGRESS or in_handshake else ConnectionInput.CLOSE
        reason = f"{REASONS[limit]} {quantity(getattr(self._server.limits, limit), Unit.MS)} ({limit})"
        self._end(reason, cause, "Giving up on {peer}: {why}")

    def _is_excused(self, limit: str) -> bool:
        """Return whether the peer waits for the server, or makes progress, only slowly."""
        if limit == PROGRESS:
            before, self._acked = self._acked, self._send_buffer.bytes_acked()
            return before is not None and self._acked is not None and self._acked > before
        if self._inbound.waiting or (limit == SILENCE and self._state in HELD):
            return True
        return limit == ACTIVITY and self._connection.stats().unanswered > 0

    def evict(self, limit: str, reason: str) -> None:
        """Abort the connection in favour of others, because of *limit*, which *reason* names."""
        self._server.connections.count_hit(limit)
        self._end(reason, ConnectionInput.ABORT)

    def supersede(self) -> None:
        """Close the connection, because its session was attached over another one."""
        self._end("its session was attached over another connection")

    def _end(self, reason: str, cause: ConnectionInput = ConnectionInput.CLOSE, line: str = _CLOSING) -> None:
        """Send *reason* to the peer, log it, and end the connection."""
        self._connection.abort(reason)
        self._server.connections.warn(self.host, line, peer=self.transport.getPeer(), why=reason[:200])
        self._leave(cause)

    def close(self) -> None:
        """Send the replies so far, then close the connection, as soon as the peer takes them."""
        self._leave(ConnectionInput.CLOSE)

    def abort(self) -> None:
        """Close the connection at once, whatever the peer has not taken."""
        self._leave(ConnectionInput.ABORT)

    def _leave(self, cause: ConnectionInput) -> None:
        before, self._state = self._state, next_state(self._state, cause)
        if before not in ENDED:
            self.send()
            self._give_up_polls()
            self._server.connections.timeouts.clear_all(self)
            if self._state is ConnectionState.CLOSING:
                self._start_progress_timer()
            # Before the transport is closed: reading must go on, so that the peer's end is noticed.
            self._inbound.stop()
            self._send_buffer.end()
        if self._state is ConnectionState.ABORTED and before is not ConnectionState.ABORTED:
            self._send_buffer.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give up polls that wait.  Other calls under way take effect without a reply."""
        before, self._state = self._state, next_state(self._state, ConnectionInput.LOSS)
        connections = self._server.connections
        connections.remove(self)
        connections.log_loss(self.host, self.transport.getPeer(), reason, unused=before is ConnectionState.CONNECTED)
        self._give_up_polls()
        self._server.broker.polls.resume(self.peer)
        if self._on_session_loss is not None:
            self._on_session_loss()
            self._on_session_loss = None
        # Replies that wait for the disk refer to this protocol, and would keep megabytes of an incomplete message.
        self._connection.end()
        self._connection = _CLOSED
        self._inbound.stop()
        self._send_buffer.forget()

    def _give_up_polls(self) -> None:
        for waiter in list(self._waiters.values()):
            self._server.dispatcher.cancel(waiter)

    def usage(self) -> rpc.ConnectionStats:
        """Return the sizes of the connection's tables."""
        return self._connection.stats()

    @property
    def idle_since(self) -> float | None:
        """Time of the latest read or reply; None with a session, a call, a message or a reply, or at the end."""
        if self._state in ENDED or self._begun or self._inbound.waiting or self._send_buffer.held:
            return None
        busy = self._on_session_loss is not None or self._connection.stats().unanswered
        return None if busy else self._last_active

    @property
    def held_bytes(self) -> int:
        """Bytes held for the peer: incomplete messages, unprocessed bytes, replies it has not taken, and tables."""
        return self._transient + self._retained

    @property
    def state(self) -> ConnectionState:
        """Where the connection is in its life."""
        return self._state

    # Replies

    def results(self, answers: Sequence[rpc.AnswerId], contents: Sequence[bytes]) -> None:
        """Return one of *contents* for each of *answers*."""
        self._connection.return_results(answers, contents)
        server = self._server  # as in `_answered`, without the call
        server.call_stats.outstanding -= len(answers)
        if self._waiters:
            for answer in answers:
                self._waiters.pop(answer, None)
        if server.limits.idle_ms and self._state not in ENDED:
            server.connections.timeouts.start(self, ACTIVITY)
        server.flush_queue.waiting[self] = None

    def capabilities(self, answer: rpc.AnswerId, content: bytes, objects: Sequence[object]) -> None:
        """Return *content*, whose capability pointers are indices into *objects*."""
        self._connection.return_capabilities(answer, content, objects)
        self._unmeasured = TABLES_CHECKED_BYTES
        self._answered((answer,))

    def error(self, answer: rpc.AnswerId, kind: Kind, reason: str) -> None:
        """Return an exception."""
        self._connection.return_exception(answer, kind, reason)
        self._answered((answer,))

    def canceled(self, answer: rpc.AnswerId) -> None:
        """Return that the call was canceled."""
        self._connection.return_canceled(answer)
        self._answered((answer,))

    def waits(self, answer: rpc.AnswerId, waiter: Waiter) -> None:
        """Note that the call *answer* is a poll that waits, so that its end cancels the poll."""
        self._waiters[answer] = waiter

    def keep_session(self, on_loss: Callable[[], None]) -> None:
        """Call *on_loss* when the connection is lost, as one is that brings nothing for `session_silence_ms`."""
        self._on_session_loss = on_loss
        self._server.connections.timeouts.start(self, SILENCE)

    def _answered(self, answers: Sequence[rpc.AnswerId]) -> None:
        server = self._server
        server.call_stats.outstanding -= len(answers)
        for answer in answers:
            self._waiters.pop(answer, None)
        if server.limits.idle_ms and self._state not in ENDED:
            server.connections.timeouts.start(self, ACTIVITY)
        server.flush_queue.waiting[self] = None

    def send(self) -> None:
        """Send all replies so far."""
        if self._state is ConnectionState.THROTTLED and has_room(self.peer, self._server.request_bytes):
            self._read_on(ConnectionInput.ROOM)
        data = self._connection.data_to_send()
        if not data:
            return
        self._last_active = self._server.connections.seconds()
        buffer = self._send_buffer
        buffer.write(data)
        if buffer.unsent:
            self._account()
            if buffer.unsent > self._server.limits.unsent_bytes and self._state in TAKING_CALLS:
                self._pause()

    def _account(self) -> None:
        """Report the bytes held for the peer to the memory budget, which may evict it, and read on or not."""
        if self._state is ConnectionState.ABORTED:
            return
        transient = len(self._inbound.waiting) + self._begun + self._send_buffer.held
        retained = self._connection.tables_bytes
        self._unmeasured = 0
        if transient != self._transient or retained != self._retained:
            self._transient, self._retained = transient, retained
            self._server.connections.memory.update(self, transient, retained)
        if self._state is ConnectionState.OPEN and exceeds_share(self.peer, self._server.request_bytes):
            self._hold(ConnectionInput.FULL)

    # Back-pressure

    def _on_buffer_change(self) -> None:
        """Handle that the transport is full, or has room again."""
        if self._state is ConnectionState.ABORTED:
            return
        if self._send_buffer.full or self._state is ConnectionState.CLOSING:
            self._start_progress_timer()
        else:
            self._server.connections.timeouts.clear(self, PROGRESS)
        self._account()
        if self._state is ConnectionState.PAUSED and self._send_buffer.unsent <= self._server.limits.unsent_bytes // 2:
            self._read_on(ConnectionInput.DRAINED)
            self._server.broker.polls.resume(self.peer)
            self._server.committer.wake()

    def _start_progress_timer(self) -> None:
        self._acked = self._send_buffer.bytes_acked()
        self._server.connections.timeouts.start(self, PROGRESS)

    def _hold(self, cause: ConnectionInput) -> None:
        """Read nothing more until `_read_on`."""
        self._state = next_state(self._state, cause)
        # From now on a message is incomplete because the server does not read.
        self._server.connections.timeouts.clear(self, WHOLE_MESSAGE)
        self._inbound.hold()

    def _read_on(self, cause: ConnectionInput) -> None:
        self._state = next_state(self._state, cause)
        timeouts = self._server.connections.timeouts
        if self._begun:
            timeouts.start(self, WHOLE_MESSAGE)
        if self._on_session_loss is not None:
            timeouts.start(self, SILENCE)
        self._inbound.release()

    def _pause(self) -> None:
        self._server.connections.count_hit("unsent_bytes")
        self._hold(ConnectionInput.BACKLOG)
        self._server.broker.polls.pause(self.peer)
