"""
The half of a connection that answers what the peer asks.

It keeps the peer's calls and the objects of ours that the peer can call.  A
call is never queued: what it is made to is known when it comes, or it fails.
"""

from collections import Counter, deque
from collections.abc import Sequence

from queueber.capnp.reader import WORD
from queueber.errors import Kind, Overloaded
from queueber.limits import Limits
from queueber.rpc import encoder
from queueber.rpc.answers import Answers, HeldResults, State
from queueber.rpc.events import Calls, Event, Finished, Released
from queueber.rpc.exports import Export, Exports
from queueber.rpc.messages import AnswerId, Bootstrap, Call, Disembargo, ExportId, Finish, PromisedAnswer, Release

_FIRST_CAPABILITY = (3).to_bytes(WORD, "little")
"""Content that is the first of the capabilities it comes with."""


class Callee:
    """Answers and exports of one connection; appends what it says to *out* and what it learns to *events*."""

    def __init__(
        self,
        limits: Limits,
        bootstrap: object | None,
        out: list[bytes],
        events: deque[Event],
        limit_hits: Counter[str],
    ) -> None:
        self._calls_max = limits.outstanding_calls
        self._limit_hits = limit_hits
        self._bootstrap = bootstrap
        self._out = out
        self._events = events
        self.answers = Answers(limits.open_answers)
        self.exports = Exports(limits.exports)

    # What the driver answers.  `Connection` documents these.

    def return_exception(self, answer: AnswerId, kind: Kind, reason: str) -> None:
        """Answer with an error."""
        if self.answers.send_return(answer):
            self.answers.fail(answer, kind, reason)
        self._out.append(encoder.exception(answer, kind, reason))

    def return_canceled(self, answer: AnswerId) -> None:
        """Answer a call that was finished first."""
        self.answers.send_return(answer)
        self._out.append(encoder.canceled(answer))

    def return_capabilities(self, answer: AnswerId, content: bytes, capabilities: Sequence[object]) -> None:
        """Answer with *content*, whose capability pointers are indices into *capabilities*."""
        try:
            self.exports.admit(capabilities)
        except Overloaded as why:
            self._refuse(answer, why)
            self._say_released(capabilities)
            return
        if not self.answers.send_return(answer):
            # The peer finished: nobody would ever release what went with the results.
            self._out.append(encoder.canceled(answer))
            self._say_released(capabilities)
            return
        exports = [self.exports.send(each) for each in capabilities]
        ids = [export.id for export in exports if export.id is not None]
        self.answers.hold(answer, HeldResults(content, exports))
        self._out.append(encoder.results_with_capabilities(answer, content, ids))

    def _refuse(self, answer: AnswerId, why: Overloaded) -> None:
        assert why.limit is not None, "everything that is refused here is refused for a limit"
        self._limit_hits[why.limit] += 1
        self.return_exception(answer, why.kind, str(why))

    def _say_released(self, objects: Sequence[object]) -> None:
        """Tell of those *objects* that the peer never got to call."""
        distinct = {id(each): each for each in objects}
        self._events.extend(Released(each) for each in distinct.values() if not self.exports.knows(each))

    # What the peer sends.

    def on_bootstrap(self, message: Bootstrap) -> None:
        """Answer with the object that leads to all others."""
        self.answers.begin(message.question)
        if self._bootstrap is None:
            self.return_exception(message.question, Kind.FAILED, "there is no object to bootstrap here")
        elif message.names_object:
            self.return_exception(message.question, Kind.FAILED, "deprecatedObjectId is not used here")
        else:
            self.return_capabilities(message.question, _FIRST_CAPABILITY, [self._bootstrap])

    def on_call(self, call: Call) -> None:
        """
        Say which object is called, or answer at once.

        Raises:
            RemoteProtocolError: the question is open already, or the peer does not hold that object.
        """
        answer = call.question
        self.answers.begin(answer)
        export = self._target(call.target)
        if self.answers.unanswered > self._calls_max:
            self._refuse_one_more(answer)
        elif call.target is None:
            self.return_exception(answer, Kind.UNIMPLEMENTED, "calls are made to imports and promised answers only")
        elif export is None:
            self.return_exception(answer, *self._why_nothing(call.target))
        elif not call.to_caller:
            self.return_exception(answer, Kind.UNIMPLEMENTED, "results are sent to the caller only")
        else:
            params = call.params
            calls = Calls([answer], export.object, call.interface_id, call.method_id, params, [params.frame_bytes])
            self._events.append(calls)

    def _refuse_one_more(self, answer: AnswerId) -> None:
        waiting = self.answers.unanswered - 1
        most = f"{self._calls_max:,} (outstanding_calls)"
        reason = f"unanswered calls of this connection are {waiting:,} already; the limit is {most}"
        self._refuse(answer, Overloaded(reason, limit="outstanding_calls"))

    def _target(self, target: ExportId | PromisedAnswer | None) -> Export | None:
        """The object a message is for; None when it is promised where it is not."""
        if isinstance(target, int):
            return self.exports.find(target)
        if target is None or target.path is None:
            return None
        return self.answers.find(AnswerId(target.question), target.path)

    def _why_nothing(self, target: ExportId | PromisedAnswer | None) -> tuple[Kind, str]:
        """Why there is no object: the promised answer's own error, if that is what it was."""
        failure = self.answers.failure(AnswerId(target.question)) if isinstance(target, PromisedAnswer) else None
        return failure or (Kind.FAILED, "the call was made to an answer that holds no capability there, or not yet")

    def on_finish(self, message: Finish) -> None:
        """
        Let go of an answer; one that is unknown is none of ours to judge, because Finish and Return may cross.

        Raises:
            RemoteProtocolError: it gives back references that were given back before.
        """
        state, held = self.answers.receive_finish(message.question)
        if state is State.RUNNING:
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
        Take references back.

        Raises:
            RemoteProtocolError: the peer does not hold so many.
        """
        export = self.exports.find(message.id)
        if self.exports.release(export, message.count):
            self._events.append(Released(export.object))

    def on_disembargo(self, message: Disembargo) -> None:
        """
        Echo it: what we host never turns out to be the peer's own, so no call can be on its way back to it.

        Raises:
            RemoteProtocolError: the peer does not hold that object.
        """
        if isinstance(message.target, int):
            self.exports.find(message.target)
        if message.target is not None:
            self._out.append(encoder.receiver_loopback(message.target, message.embargo))

    # Self-knowledge.

    def dump(self) -> list[str]:
        """Every entry of the tables."""
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
