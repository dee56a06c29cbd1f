"""
One end of a Cap'n Proto RPC connection, as a state machine.

Pass the bytes of the stream to `receive_data`, act on the events, and write
the bytes that `data_to_send` returns.  This module does no I/O and knows no
time.  Both ends of a connection are alike: each answers the other's calls.
``docs/protocol.md`` lists how each message is handled.

State model
-----------

1. OPEN     messages are received and sent.
2. CLOSED   we or the peer sent Abort.  Bytes that arrive are ignored.  Returns,
            Finishes and Releases are accepted and have no effect, because calls
            may still be under way; making a call is an error.

CLOSED is final.  The tables are not updated after it.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from queueber.capnp.framing import Framer
from queueber.capnp.reader import Frame
from queueber.errors import Kind, LocalProtocolError, RemoteProtocolError
from queueber.fixed_limits import ConnectionLimits
from queueber.rpc import encoder
from queueber.rpc.callee import Callee
from queueber.rpc.caller import Caller
from queueber.rpc.decoder import decode
from queueber.rpc.events import Aborted, Event
from queueber.rpc.fastpath import FastPath
from queueber.rpc.messages import (
    Abort,
    AnswerId,
    Bootstrap,
    Call,
    Disembargo,
    Finish,
    ImportId,
    QuestionId,
    Release,
    Resolve,
    Return,
    Target,
    UnimplementedMessage,
    Unknown,
)
from queueber.rpc.patterns import TemplateReaders
from queueber.units import KIB

# Memory of an open answer and of a capability, measured with long names.  It is reported in whole steps, so that most
# connections never report a change.
_ANSWER_BYTES = 300
_EXPORT_BYTES = 2_400
_STEP = 16 * KIB

_OPTIONAL = frozenset({None, "unimplemented", "disembargo", "release", "abort"})
"""The kinds of our messages that a peer need not implement."""


class ConnectionStats(NamedTuple):
    """The current sizes of a connection's tables and buffer."""

    unanswered: int
    """Calls of the peer that wait for their Return."""

    answers: int
    """Calls of the peer that were not both returned and finished."""

    exports: int
    questions: int
    imports: int
    held_bytes: int
    """Bytes of an incomplete message."""


class Connection:
    """One end of a connection; the module's docstring explains its use."""

    def __init__(
        self,
        *,
        limits: ConnectionLimits,
        bootstrap: object | None = None,
        limit_hits: Counter[str] | None = None,
        templates: TemplateReaders | None = None,
    ) -> None:
        """
        Create a connection on which no message was sent.

        *bootstrap* is the object that the peer reaches first; without one it can call nothing.  *limit_hits*
        counts the calls that the connection itself refuses, by the name of the limit; many connections may share one.
        *templates* are the readers of methods whose repeated calls take the fast path.
        """
        self.framer = Framer(limits)
        """The framer, whose `begun` holds an incomplete message."""

        self.unsent: list[bytes] = []
        """The messages that `data_to_send` will return."""

        self._events: deque[Event] = deque()
        self._closed = False
        hits: Counter[str] = Counter() if limit_hits is None else limit_hits
        self._callee = Callee(limits, bootstrap, self.unsent, self._events, hits)
        self._caller = Caller(limits, self.unsent, self._events)
        self._fast = FastPath(templates, self.framer, self._callee) if templates else None
        self._handlers: dict[type, Callable[[Any], None]] = {
            Abort: self._on_abort,
            Bootstrap: self._callee.on_bootstrap,
            Call: self._callee.on_call,
            Disembargo: self._callee.on_disembargo,
            Finish: self._callee.on_finish,
            Release: self._callee.on_release,
            Resolve: self._caller.on_resolve,
            Return: self._caller.on_return,
            UnimplementedMessage: self._on_unimplemented,
        }

    @property
    def closed(self) -> bool:
        """Whether we or the peer ended the connection.  Bytes that are left in `data_to_send` should still be sent."""
        return self._closed

    def missing_bytes(self) -> int:
        """Return how many bytes an incomplete message lacks, as far as is known; 0 between messages."""
        return self.framer.missing

    @property
    def tables_bytes(self) -> int:
        """Approximate memory of the peer's open answers and capabilities, in whole steps of 16 KiB."""
        cost = _ANSWER_BYTES * len(self._callee.answers.states) + _EXPORT_BYTES * len(self._callee.exports.entries)
        return cost // _STEP * _STEP

    def receive_data(self, data: bytes) -> Iterator[Event]:
        """
        Process the next bytes of the stream, and return the events that follow, one by one.

        Handle each event before you take the next, because the next call may be
        made to the results of this one.  Take all of them before you pass more
        bytes.

        Raises:
            RemoteProtocolError: the peer broke the protocol.  The connection is
                closed, and an Abort is ready to be sent.
        """
        if self._closed or not self.framer.begin(data):
            return iter(())
        calls = None if self._fast is None else self._fast.take()
        if self.framer.data:
            return self._read_on(calls)
        # The fast path took all of it, as it does if one call comes at a time.
        return iter(()) if calls is None else iter((calls,))

    def _read_on(self, calls: Event | None) -> Iterator[Event]:
        """Yield *calls*, which were read already, and the events that follow from the rest of the bytes."""
        framer, fast, events = self.framer, self._fast, self._events
        try:
            if calls is not None:
                yield calls
                calls = None if self._closed or fast is None else fast.take()
            while not self._closed:
                if calls is not None:
                    yield calls
                else:
                    frame = framer.next()
                    if frame is None:
                        return
                    self._process(frame)
                    while events:
                        yield events.popleft()
                calls = None if self._closed or fast is None else fast.take()
        except RemoteProtocolError as why:
            self.abort(str(why))
            raise

    def _process(self, frame: Frame) -> None:
        message = decode(frame)
        if isinstance(message, Unknown):
            self.unsent.append(encoder.unimplemented(frame, message.which))
        else:
            self._handlers[type(message)](message)
        if self._fast is not None:
            self._fast.learn(frame, message)

    def data_to_send(self) -> bytes:
        """Return the bytes to send since the last time, in one piece; empty if there are none."""
        data = b"".join(self.unsent)
        self.unsent.clear()
        return data

    def abort(self, reason: str) -> None:
        """Close the connection and send *reason*; also for malformed parameters.  Does nothing once closed."""
        if not self._closed:
            self._closed = True
            self.framer.discard()
            self.unsent.append(encoder.abort(reason))

    def end(self) -> None:
        """
        Close the connection after the end of the stream, and discard an incomplete message and unsent bytes.

        This also breaks the reference cycles of the connection, so that its memory is freed with the last reference to
        it and not by the garbage collector.
        """
        self._closed = True
        self.framer.discard()
        self.unsent.clear()
        self._fast = None
        self._handlers.clear()

    def return_results(self, answers: Sequence[AnswerId], contents: Sequence[bytes]) -> None:
        """
        Return to each of *answers* one of *contents*: a struct as a segment of its own, without capabilities.

        Raises:
            LocalProtocolError: one of the calls was returned before, or never made.
        """
        if not self._closed:
            self._callee.answers.send_returns(answers)
            self.unsent += encoder.results(answers, contents)

    def return_capabilities(self, answer: AnswerId, content: bytes, capabilities: Sequence[object]) -> None:
        """
        Return *content*, whose capability pointers are indices into *capabilities*.

        Each capability stays an export until the peer has both finished the
        answer and released it.  `Released` reports that.  If the capabilities are
        not sent at all, because the peer has finished the call already or holds
        too many, `Released` follows at once.

        Raises:
            LocalProtocolError: the call was returned before, or never made.
        """
        if not self._closed:
            self._callee.return_capabilities(answer, content, capabilities)

    def return_exception(self, answer: AnswerId, kind: Kind, reason: str) -> None:
        """
        Return an exception, whose *reason* the peer may read.

        Raises:
            LocalProtocolError: the call was returned before, or never made.
        """
        if not self._closed:
            self._callee.return_exception(answer, kind, reason)

    def return_canceled(self, answer: AnswerId) -> None:
        """
        Return that a call was canceled after the peer finished it.

        Raises:
            LocalProtocolError: the call was returned before, or never made.
        """
        if not self._closed:
            self._callee.return_canceled(answer)

    def bootstrap(self) -> QuestionId:
        """
        Ask for the bootstrap object; it is the whole content of the results.

        Raises:
            LocalProtocolError: the connection is closed.
        """
        self._check_open()
        return self._caller.bootstrap()

    def call(self, target: Target, interface_id: int, method_id: int, content: bytes) -> QuestionId:
        """
        Call a method of *target*; *content* is the struct of its parameters as a segment of its own.

        Raises:
            LocalProtocolError: the connection is closed, or *target* is neither an import nor an open question.
        """
        self._check_open()
        return self._caller.call(target, interface_id, method_id, content)

    def finish(self, question: QuestionId, *, release_result_caps: bool = True, report: bool = False) -> None:
        """
        Send that the answer to *question* is not needed any more; before its Return this also cancels the call.

        With *release_result_caps* the references that came with the results are
        dropped too; otherwise each must be passed to `release` in the end.  With
        *report* a Return that arrives later is still an event; its references are
        dropped already.

        Raises:
            LocalProtocolError: the question was finished before, or never asked.
        """
        if not self._closed:
            self._caller.finish(question, release_result_caps=release_result_caps, report=report)

    def release(self, number: ImportId) -> None:
        """
        Drop one of the references to an import.

        Raises:
            LocalProtocolError: no reference is held.
        """
        if not self._closed:
            self._caller.release(number)

    def stats(self) -> ConnectionStats:
        """Return the sizes of the tables; cheap."""
        return ConnectionStats(
            unanswered=self._callee.answers.unanswered,
            answers=len(self._callee.answers),
            exports=len(self._callee.exports),
            questions=len(self._caller.questions),
            imports=len(self._caller.imports),
            held_bytes=len(self.framer.begun),
        )

    def dump(self) -> str:
        """Return every entry of every table, one a line, for people."""
        return "\n".join(["closed" if self._closed else "open", *self._callee.dump(), *self._caller.dump()])

    def check(self) -> None:
        """Raise AssertionError if the tables contradict each other.  Slow; for tests."""
        self._callee.check()
        self._caller.check()

    def _check_open(self) -> None:
        if self._closed:
            raise LocalProtocolError("the connection is closed")

    def _on_abort(self, message: Abort) -> None:
        self._closed = True
        self._events.append(Aborted(message.reason))

    def _on_unimplemented(self, message: UnimplementedMessage) -> None:
        if message.message not in _OPTIONAL:
            raise RemoteProtocolError(f"the peer does not implement `{message.message}`")
