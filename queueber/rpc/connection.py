"""
One end of a connection that speaks Cap'n Proto RPC, as a state machine.

Feed it the stream's bytes with `receive_data`, act on the events, and write
what `data_to_send` gives.  It does no I/O and knows no time.  The end that
accepted the connection and the one that made it are alike: each answers what
the other asks.  ``docs/protocol.md`` says what becomes of every message.

State model
-----------

1. OPEN     messages are taken in and sent.
2. CLOSED   we or the peer sent Abort.  What comes is not looked at.  Answering
            and giving up are allowed and change nothing, so that nobody who is
            at work on an answer need know; asking is an error.

There is no way back.  Once closed the tables are not kept up any more.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import frozen

from queueber.capnp.framing import Framer
from queueber.capnp.reader import Frame
from queueber.errors import Kind, LocalProtocolError, RemoteProtocolError
from queueber.limits import Limits
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
    Unimplemented,
    Unknown,
)
from queueber.rpc.patterns import TemplateReaders
from queueber.units import KIB

# What an open answer and a capability take in memory, measured with long names; and in what steps it is told, so that
# most connections never tell anything.
_ANSWER_BYTES = 300
_EXPORT_BYTES = 2_400
_STEP = 16 * KIB

_DISPENSABLE = frozenset({None, "unimplemented", "disembargo", "release", "abort"})
"""The kinds of our messages that a peer need not know."""


@frozen
class ConnectionStats:
    """How much a connection holds at the moment."""

    unanswered: int
    """Calls of the peer's that wait for their Return."""

    answers: int
    """Those, and the ones that were returned but not finished."""

    exports: int
    questions: int
    imports: int
    held_bytes: int
    """Bytes of a message that has begun."""


class Connection:
    """One end of a connection; the module says how to drive it."""

    def __init__(
        self,
        *,
        limits: Limits,
        bootstrap: object | None = None,
        limit_hits: Counter[str] | None = None,
        templates: TemplateReaders | None = None,
    ) -> None:
        """
        A connection on which nothing has been said.

        *bootstrap* is the object that the peer reaches first; without one it can call nothing.  *limit_hits*
        counts the calls that it refuses by itself, by the name of the limit; many connections may share one.
        *templates* say of which methods repeated calls are read by a template.
        """
        self._framer = Framer(limits)
        self._out: list[bytes] = []
        self._events: deque[Event] = deque()
        self._closed = False
        hits: Counter[str] = Counter() if limit_hits is None else limit_hits
        self._callee = Callee(limits, bootstrap, self._out, self._events, hits)
        self._caller = Caller(limits, self._out, self._events)
        self._fast = FastPath(templates, self._framer, self._callee, limits) if templates else None
        self._handlers: dict[type, Callable[[Any], None]] = {
            Abort: self._on_abort,
            Bootstrap: self._callee.on_bootstrap,
            Call: self._callee.on_call,
            Disembargo: self._callee.on_disembargo,
            Finish: self._callee.on_finish,
            Release: self._callee.on_release,
            Resolve: self._caller.on_resolve,
            Return: self._caller.on_return,
            Unimplemented: self._on_unimplemented,
        }

    @property
    def closed(self) -> bool:
        """We or the peer have ended it.  What is left to send should still be sent."""
        return self._closed

    @property
    def held_bytes(self) -> int:
        """Bytes held of a message that has begun; 0 between messages."""
        return len(self._framer.begun)

    @property
    def tables_bytes(self) -> int:
        """About what the peer's open answers and capabilities cost, in whole steps of 16 KiB."""
        cost = _ANSWER_BYTES * len(self._callee.answers.states) + _EXPORT_BYTES * len(self._callee.exports.entries)
        return cost // _STEP * _STEP

    def receive_data(self, data: bytes) -> Iterator[Event]:
        """
        What follows from the stream's next bytes, event by event.

        An event must be dealt with before the next is taken, because what its
        call returns at once is what the next call may be made to; and all must
        be taken before more bytes are given.

        Raises:
            RemoteProtocolError: the peer broke the protocol.  The connection is
                closed, and an Abort is ready to be sent.
        """
        if self._closed or not self._framer.begin(data):
            return iter(())
        calls = None if self._fast is None else self._fast.take()
        if self._framer.data:
            return self._read_on(calls)
        # The fast path took all of it, as it does if one call comes at a time.
        return iter(()) if calls is None else iter((calls,))

    def _read_on(self, calls: Event | None) -> Iterator[Event]:
        """Yield *calls*, which were read already, and what follows from the rest of the bytes."""
        framer, fast, events = self._framer, self._fast, self._events
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
                    self._take(frame)
                    while events:
                        yield events.popleft()
                calls = None if self._closed or fast is None else fast.take()
        except RemoteProtocolError as why:
            self.abort(str(why))
            raise

    def _take(self, frame: Frame) -> None:
        message = decode(frame)
        if isinstance(message, Unknown):
            self._out.append(encoder.unimplemented(frame, message.which))
        else:
            self._handlers[type(message)](message)
        if self._fast is not None:
            self._fast.learn(frame, message)

    def data_to_send(self) -> bytes:
        """Everything that has been said since this was last asked, in one piece; empty when nothing was."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def abort(self, reason: str) -> None:
        """Close, and tell the peer why; for parameters that cannot be read, too.  Does nothing once closed."""
        if not self._closed:
            self._closed = True
            self._framer.discard()
            self._out.append(encoder.abort(reason))

    def end(self) -> None:
        """
        The stream is over, whoever ended it: close, and let go of half a message and of what was not sent.

        Nothing in here refers to itself any more either, so that the memory is free as soon as nobody uses the
        connection, and not only when the garbage collector comes by.
        """
        self._closed = True
        self._framer.discard()
        self._out.clear()
        self._fast = None
        self._handlers.clear()

    def return_results(self, answers: Sequence[AnswerId], contents: Sequence[bytes]) -> None:
        """
        Answer calls of the peer's, each with one of *contents*: a struct as a segment of its own, without capabilities.

        Raises:
            LocalProtocolError: one was answered before, or never made.
        """
        if not self._closed:
            self._callee.answers.send_returns(answers)
            self._out += encoder.results(answers, contents)

    def return_capabilities(self, answer: AnswerId, content: bytes, capabilities: Sequence[object]) -> None:
        """
        Answer a call of the peer's with *content*, whose capability pointers are indices into *capabilities*.

        Each of those stays an export until the peer has both finished the
        answer and released it, and then comes `Released`.  That comes soon if
        they are not sent at all, because the peer has finished already or
        holds too many.

        Raises:
            LocalProtocolError: the call was answered before, or never made.
        """
        if not self._closed:
            self._callee.return_capabilities(answer, content, capabilities)

    def return_exception(self, answer: AnswerId, kind: Kind, reason: str) -> None:
        """
        Answer a call of the peer's with an error that the peer may read.

        Raises:
            LocalProtocolError: the call was answered before, or never made.
        """
        if not self._closed:
            self._callee.return_exception(answer, kind, reason)

    def return_canceled(self, answer: AnswerId) -> None:
        """
        Answer a call of the peer's that it has finished and that was given up.

        Raises:
            LocalProtocolError: the call was answered before, or never made.
        """
        if not self._closed:
            self._callee.return_canceled(answer)

    def bootstrap(self) -> QuestionId:
        """
        Ask for the object that leads to all others; it is all the content of the results.

        Raises:
            LocalProtocolError: the connection is closed.
        """
        self._must_be_open()
        return self._caller.bootstrap()

    def call(self, target: Target, interface_id: int, method_id: int, content: bytes) -> QuestionId:
        """
        Call a method of *target*; *content* is the struct of its parameters as a segment of its own.

        Raises:
            LocalProtocolError: the connection is closed, or *target* is nothing we hold.
        """
        self._must_be_open()
        return self._caller.call(target, interface_id, method_id, content)

    def finish(self, question: QuestionId, *, release_result_caps: bool = True, report: bool = False) -> None:
        """
        Say that the answer to *question* is not needed any more; before its Return this also gives the call up.

        With *release_result_caps* the references that came with the results are
        dropped too.  Without, each must be given to `release` in the end.  With
        *report* a Return that was on its way is still an event, of which the
        references are dropped already.

        Raises:
            LocalProtocolError: it was finished before, or never asked.
        """
        if not self._closed:
            self._caller.finish(question, release_result_caps=release_result_caps, report=report)

    def release(self, number: ImportId) -> None:
        """
        Drop one of the references that came with results.

        Raises:
            LocalProtocolError: none is held.
        """
        if not self._closed:
            self._caller.release(number)

    def stats(self) -> ConnectionStats:
        """How much it holds; cheap."""
        return ConnectionStats(
            unanswered=self._callee.answers.unanswered,
            answers=len(self._callee.answers),
            exports=len(self._callee.exports),
            questions=len(self._caller.questions),
            imports=len(self._caller.imports),
            held_bytes=len(self._framer.begun),
        )

    def dump(self) -> str:
        """Every entry of every table, for a person to read."""
        return "\n".join(["closed" if self._closed else "open", *self._callee.dump(), *self._caller.dump()])

    def check(self) -> None:
        """Raise AssertionError if the tables contradict each other.  It takes its time: for tests."""
        self._callee.check()
        self._caller.check()

    def _must_be_open(self) -> None:
        if self._closed:
            raise LocalProtocolError("the connection is closed")

    def _on_abort(self, message: Abort) -> None:
        self._closed = True
        self._events.append(Aborted(message.reason))

    def _on_unimplemented(self, message: Unimplemented) -> None:
        if message.message not in _DISPENSABLE:
            raise RemoteProtocolError(f"the peer does not implement `{message.message}`")
