"""The half of a connection that makes calls: our questions, and the objects of the peer that we hold."""

from collections import deque

from queueber.errors import LocalProtocolError, RemoteProtocolError
from queueber.fixed_limits import ConnectionLimits
from queueber.rpc import encoder
from queueber.rpc.events import Event, Returned
from queueber.rpc.imports import Imports
from queueber.rpc.messages import ImportId, PromisedAnswer, QuestionId, Resolve, Results, Return, Target
from queueber.rpc.questions import Questions


class Caller:
    """The questions and imports of one connection; appends messages to *out* and events to *events*."""

    def __init__(self, limits: ConnectionLimits, out: list[bytes], events: deque[Event]) -> None:
        self._out = out
        self._events = events
        self.questions = Questions()
        self.imports = Imports(limits.exports)

    # Calls.  `Connection` documents these methods.

    def bootstrap(self) -> QuestionId:
        """Ask for the bootstrap object."""
        question = self.questions.ask()
        self._out.append(encoder.bootstrap(question))
        return question

    def call(self, target: Target, interface_id: int, method_id: int, content: bytes) -> QuestionId:
        """Call a method of *target*."""
        if isinstance(target, PromisedAnswer):
            if not self.questions.open(target.question):
                raise LocalProtocolError(f"question {target.question} is not open")
            question = self.questions.ask()
            self._out.append(encoder.pipelined_call(question, target, interface_id, method_id, content))
            return question
        if target.id not in self.imports:
            raise LocalProtocolError(f"{target.id} is not an import")
        question = self.questions.ask()
        self._out.append(encoder.call(question, target.id, interface_id, method_id, content))
        self._out.append(content)
        return question

    def finish(self, question: QuestionId, *, release_result_caps: bool, report: bool) -> None:
        """Send that the answer to *question* is not needed any more."""
        asked = self.questions.send_finish(question)
        asked.report = report
        if asked.finish_needed:
            # References that came are released one by one, because some may have been released already.  The peer
            # releases those of a Return that has not arrived.
            came = asked.state is None
            self._out.append(encoder.finish(question, release_result_caps=not came))
        if release_result_caps:
            for number in asked.capabilities:
                self.release(number)

    def release(self, number: ImportId) -> None:
        """Drop one reference."""
        count = self.imports.drop(number)
        if count:
            self._out.append(encoder.release(number, count))

    # Messages of the peer.

    def on_return(self, message: Return) -> None:
        """
        Record a Return and the references that come with it.

        Raises:
            RemoteProtocolError: there is no such question, or it was returned in a way that we did not ask for.
        """
        if message.outcome is None:
            raise RemoteProtocolError(f"question {message.answer} was answered in a way that was not asked for")
        question = self.questions.receive_return(message.answer)
        if question.state is None:
            if question.report:
                self._events.append(Returned(message.answer, message.outcome))
            return
        question.finish_needed = message.finish_needed
        if isinstance(message.outcome, Results):
            question.capabilities = tuple(each for each in message.outcome.capabilities if each is not None)
            for number in question.capabilities:
                self.imports.receive(number)
        self._events.append(Returned(message.answer, message.outcome))

    def on_resolve(self, message: Resolve) -> None:
        """Release the capability that a promise resolved to: calls to the promise itself keep working."""
        if message.capability is not None:
            self.imports.receive(message.capability)
            self.release(message.capability)

    # Diagnostics.

    def dump(self) -> list[str]:
        """Return every entry of the tables, one a line."""
        lines = [f"q{number} {each.state.name}" for number, each in self.questions.items() if each.state]
        return lines + [f"i{number} held={each.held} received={each.received}" for number, each in self.imports.items()]

    def check(self) -> None:
        """Raise AssertionError if the tables contradict themselves."""
        self.questions.check()
        self.imports.check()
