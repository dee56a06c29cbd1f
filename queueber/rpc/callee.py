"""
The half of a connection that receives calls.

It keeps the calls of the peer, and those of our objects that the peer can call.
A call is never queued: its target is known when it arrives, or it fails.
"""

from collections import Counter, deque
from collections.abc import Sequence

from queueber.capnp.reader import WORD
from queueber.errors import Kind, Overloaded
from queueber.fixed_limits import ConnectionLimits
from queueber.rpc import encoder
from queueber.rpc.answers import Answers, AnswerState, HeldResults
from queueber.rpc.events import Calls, Event, Finished, Released
from queueber.rpc.exports import Export, Exports
from queueber.rpc.messages import AnswerId, Bootstrap, Call, Disembargo, ExportId, Finish, PromisedAnswer, Release

_FIRST_CAPABILITY = (3).to_bytes(WORD, "little")
"""Content that is the first capability of its message."""


class Callee:
    """The answers and exports of one connection; appends messages to *out* and events to *events*."""

    def __init__(
        self,
        limits: ConnectionLimits,
        bootstrap: object | None,
        out: list[bytes],
        events: deque[Event],
        limit_hits: Counter[str],
    ) -> None:
        self._limit_hits = limit_hits
        self._bootstrap = bootstrap
        self._out = out
        self._events = events
        self.answers = Answers(limits.open_answers, limits.outstanding_calls)
        self.exports = Exports(limits.exports)

    # Returns.  `Connection` documents these methods.

    def return_exception(self, answer: AnswerId, kind: Kind, reason: str) -> None:
        """Return an exception."""
        if self.answers.send_returns((answer,)):
            self.answers.fail(answer, kind, reason)
        self._out.append(encoder.exception(answer, kind, reason))

    def return_canceled(self, answer: AnswerId) -> None:
        """Return that a finished call was canceled."""
        self.answers.send_returns((answer,))
        self._out.append(encoder.canceled(answer))

    def return_capabilities(self, answer: AnswerId, content: bytes, capabilities: Sequence[object]) -> None:
        """Return *content*, whose capability pointers are indices into *capabilities*."""
        try:
            self.exports.admit(capabilities)
        except Overloaded as why:
            self._refuse(answer, why)
            self._report_released(capabilities)
            return
        if not self.answers.send_returns((answer,)):
            # The peer finished the call, and would never release the capabilities.
            self._out.append(encoder.canceled(answer))
            self._report_released(capabilities)
            return
        exports = [self.exports.send(each) for each in capabilities]
        ids = [export.id for export in exports if export.id is not None]
        self.answers.hold(answer, HeldResults(content, exports))
        self._out.append(encoder.results_with_capabilities(answer, content, ids))

    def _refuse(self, answer: AnswerId, why: Overloaded) -> None:
        assert why.limit is not None, "each refusal here is for a limit"
        self._limit_hits[why.limit] += 1
        self.return_exception(answer, why.kind, str(why))

    def _report_released(self, objects: Sequence[object]) -> None:
        """Report the release of those *objects* that the peer cannot call."""
        distinct = {id(each): each for each in objects}
        self._events.extend(Released(each) for each in distinct.values() if not self.exports.knows(each))

    # Messages of the peer.

    def on_bootstrap(self, message: Bootstrap) -> None:
        """Return the bootstrap object."""
        self.answers.begin(message.question)
        if self._bootstrap is None:
            self.return_exception(message.question, Kind.FAILED, "there is no object to bootstrap here")
        elif message.names_object:
            self.return_exception(message.question, Kind.FAILED, "deprecatedObjectId is not used here")
        else:
            self.return_capabilities(message.question, _FIRST_CAPABILITY, [self._bootstrap])

    def on_call(self, call: Call) -> None:
        """
        Append the event of *call*, or return an exception at once.

        Raises:
            RemoteProtocolError: the question is open already, or the peer holds no such export.
        """
        answer = call.question
        self.answers.begin(answer)
        export = self._target(call.target)
        busy = self.answers.why_busy()
        if busy is not None:
            self._refuse(answer, busy)
        elif call.target is None:
            self.return_exception(answer, Kind.UNIMPLEMENTED, "calls are made to imports and promised answers only")
        elif export is None:
            self.return_exception(answer, *self._target_error(call.target))
        elif not call.to_caller:
            self.return_exception(answer, Kind.UNIMPLEMENTED, "results are sent to the caller only")
        else:
            params = call.params
            calls = Calls([answer], export.object, call.interface_id, call.method_id, params, [params.frame_bytes])
            self._events.append(calls)

    def _target(self, target: ExportId | PromisedAnswer | None) -> Export | None:
        """Return the object of a call; None if the promised answer holds no capability there."""
        if isinstance(target, int):
            return self.exports.find(target)
        if target is None or target.path is None:
            return None
        return self.answers.find(AnswerId(target.question), target.path)

    def _target_error(self, target: ExportId | PromisedAnswer | None) -> tuple[Kind, str]:
        """Return the error of a call without an object: that of the promised answer, if it returned one."""
        failure = self.answers.failure(AnswerId(target.question)) if isinstance(target, PromisedAnswer) else None
        return failure or (Kind.FAILED, "the call was made to an answer that holds no capability there, or not yet")

    def on_finish(self, message: Finish) -> None:
        """
        Forget an answer; an unknown one is ignored, because Finish and Return may cross.

        Raises:
            RemoteProtocolError: the Finish releases references that were released before.
        """
        state, held = self.answers.receive_finish(message.question)
        if state is AnswerState.RUNNING:
            self._events.append(Finished(message.question))
        if held is None:
            return
        for export in held.exports:
            if message.release_result_caps:
                self.exports.release(export, 1)
            if self.exports.unpin(export):
                self._events.append(Released(export.object))

    def on_release(self, message: Release) -> None:
        """
        Drop references of the peer.

        Raises:
            RemoteProtocolError: the peer holds fewer references.
        """
        export = self.exports.find(message.id)
        if self.exports.release(export, message.references):
            self._events.append(Released(export.object))

    def on_disembargo(self, message: Disembargo) -> None:
        """
        Echo the Disembargo: no promise of ours resolves to an object of the peer, so no call can be on its way back.

        Raises:
            RemoteProtocolError: the peer holds no such export.
        """
        if isinstance(message.target, int):
            self.exports.find(message.target)
        if message.target is not None:
            self._out.append(encoder.receiver_loopback(message.target, message.embargo))

    # Diagnostics.

    def dump(self) -> list[str]:
        """Return every entry of the tables, one a line."""
        lines = [f"a{number} {state.name}" for number, state in self.answers.items()]
        for each in self.exports.items():
            name = "e-" if each.id is None else f"e{each.id}"
            lines.append(f"{name} {each.object!r} references={each.references} pins={each.pins}")
        return lines

    def check(self) -> None:
        """Raise AssertionError if the tables contradict themselves or each other."""
        self.answers.check()
        self.exports.check()
        pinned = [id(export) for export in self.answers.pinned()]
        assert {*pinned} <= {id(export) for export in self.exports.items()}
        assert all(export.pins == pinned.count(id(export)) for export in self.exports.items())
