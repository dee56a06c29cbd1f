"""
Target: the RPC machine, at both ends, between a stream and a driver that answers at random later moments.

For every input it raises only `RemoteProtocolError`, its tables agree after every
step, each call has one Return, and once everything is finished and released
nothing is left.  The stream alone decides how it is cut and what the driver does,
so a failing stream always fails.
"""

import re
from collections import Counter
from contextlib import suppress
from random import Random
from zlib import crc32

from attrs import define, field
from conversations import CLIENT_QUESTIONS
from target_framing import pieces
from views import READER_OF, REQUESTS, RESPONSES

from queueber.api import QUEUE_INTERFACE_ID, QUEUE_RESPONSE, AddRequest, write_add_request
from queueber.api.templates import template_readers
from queueber.capnp.framing import Framer
from queueber.errors import InvalidRequest, Kind, RemoteProtocolError
from queueber.limits import Limits
from queueber.rpc import (
    Aborted,
    Calls,
    Connection,
    Finished,
    ImportedCap,
    PromisedAnswer,
    Released,
    Results,
    Returned,
    encoder,
)
from queueber.rpc import messages as m
from queueber.rpc.decoder import decode

LIMITS = Limits(frame_bytes=1 << 16, segments=64, outstanding_calls=12, exports=6, open_answers=40)


@define(eq=False)
class Thing:
    """An object to export."""

    released: int = 0


@define
class Serving:
    """A server's end that answers at random."""

    dice: Random
    root: Thing = field(factory=Thing)

    said: bytes = b""
    waiting: list = field(factory=list)
    called: Counter = field(factory=Counter)
    connection: Connection = field(init=False)

    def __attrs_post_init__(self):
        self.connection = Connection(limits=LIMITS, bootstrap=self.root, templates=template_readers(LIMITS))

    def take(self, data):
        """Give it *data* and do what follows."""
        connection, last = self.connection, None
        try:
            for event in connection.receive_data(data):
                assert not isinstance(last, Aborted), "an event after the last"
                last = event
                self.handle(event)
                self.check()
        except RemoteProtocolError as why:
            # The caller of the state machine reads the parameters of a call and judges them.
            assert connection.closed or isinstance(last, Calls), "an error of the peer's has not closed it"
            connection.abort(str(why))
        self.say()
        self.check()

    def handle(self, event):
        if isinstance(event, Calls):
            assert not {*event.answers} & {*self.waiting}, "a call came twice"
            self.called.update(event.answers)
            with suppress(InvalidRequest):
                place = READER_OF.get((event.interface_id, event.method_id), event.method_id)
                read = REQUESTS[place % len(REQUESTS)]
                _ = read(event.params) if event.encoded else event.requests
            self.waiting += event.answers
            for _ in event.answers:
                if self.dice.random() < 0.6:
                    self.answer()
        elif isinstance(event, Finished):
            assert event.answer in self.waiting, "a call was finished that is not under way"
            if self.dice.random() < 0.5:
                self.waiting.remove(event.answer)
                self.connection.return_canceled(event.answer)
        elif isinstance(event, Released):
            event.object.released += 1
        else:
            assert isinstance(event, Aborted), f"{event} at a server"

    def answer(self):
        """Answer one of the calls that wait."""
        answer = self.waiting.pop(self.dice.randrange(len(self.waiting)))
        roll = self.dice.random()
        if roll < 0.3:
            self.connection.return_exception(answer, Kind(self.dice.randrange(4)), "so it goes")
        elif roll < 0.65:
            self.connection.return_capabilities(answer, QUEUE_RESPONSE, [self.dice.choice([self.root, Thing()])])
        else:
            self.connection.return_results([answer], [bytes(8)])

    def say(self):
        self.said += self.connection.data_to_send()

    def check(self):
        connection = self.connection
        if connection.closed:
            return
        connection.check()
        stats = connection.stats()
        assert stats.held_bytes <= LIMITS.frame_bytes
        assert stats.unanswered == len(self.waiting) <= LIMITS.outstanding_calls
        assert stats.answers <= LIMITS.open_answers
        assert stats.exports <= LIMITS.exports
        assert stats.questions == stats.imports == 0

    def end(self):
        """Answer, finish and release everything, and check that nothing is left."""
        while self.waiting:
            self.answer()
        self.say()
        answers = re.findall(r"^a(\d+) ", self.connection.dump(), re.MULTILINE)
        self.take(b"".join(encoder.finish(int(answer), release_result_caps=False) for answer in answers))
        exports = re.findall(r"^e(\d+) .* references=(\d+)", self.connection.dump(), re.MULTILINE)
        self.take(b"".join(encoder.release(int(number), int(held)) for number, held in exports if held != "0"))
        stats = self.connection.stats()
        assert not self.connection.closed
        assert (stats.answers, stats.unanswered, stats.exports) == (0, 0, 0), self.connection.dump()
        self.connection.check()


def messages_in(stream):
    """Return the messages of a stream before the first that cannot be read."""
    found = []
    with suppress(RemoteProtocolError):
        for frame in Framer(LIMITS).feed(stream):
            found.append(decode(frame))  # noqa: PERF401 -- those before the bad one count
    return found


def check_closed(end):
    """Check that a closed connection stays closed: no events, no bytes, and answers change nothing."""
    for stream in (b"", b"\0" * 16, encoder.bootstrap(99)):
        assert list(end.connection.receive_data(stream)) == []
    end.connection.abort("again")
    for answer in getattr(end, "waiting", ()):
        end.connection.return_capabilities(answer, QUEUE_RESPONSE, [Thing()])
    assert end.connection.data_to_send() == b""


def rest_is_untouched(end, stream):
    """Give *end* what it has no frame for: the half message at the end of *stream* would swallow what follows."""
    if not end.connection.closed:
        held = end.connection.stats().held_bytes
        assert held <= len(stream)
        # The conversation goes on as if those bytes had not come yet.
        end.connection.framer = Framer(LIMITS)


def serve(stream):
    """Raise unless a server's end copes with *stream*."""
    end = Serving(Random(crc32(stream)))
    for piece in pieces(stream, end.dice):
        end.take(piece)
        if end.connection.closed:
            break
    if end.connection.closed:
        said = messages_in(end.said)
        ours = bool(said) and isinstance(said[-1], m.Abort)
        assert sum(isinstance(each, m.Abort) for each in said) == ours, "an Abort is not the last word"
        assert ours or any(isinstance(each, m.Abort) for each in messages_in(stream)), "closed for no reason"
        check_closed(end)
        return
    rest_is_untouched(end, stream)
    end.end()
    asked = Counter(each.question for each in messages_in(stream) if isinstance(each, m.Bootstrap | m.Call))
    answered = Counter(each.answer for each in messages_in(end.said) if isinstance(each, m.Return))
    assert asked == answered, "not every call has one Return"
    assert not end.called - asked


@define
class Listening:
    """A client that has asked a number of questions and handles the replies at random."""

    dice: Random
    connection: Connection = field(factory=lambda: Connection(limits=LIMITS))
    open: list = field(factory=list)
    held: list = field(factory=list)
    """The references we own."""

    returned: dict = field(factory=dict)
    """The outcomes of the questions that are open and answered."""

    def ask(self):
        """Ask as many questions as a server is going to answer."""
        root = self.connection.bootstrap()
        content = write_add_request(AddRequest([]))
        for _ in range(CLIENT_QUESTIONS - 1):
            self.open.append(self.connection.call(PromisedAnswer(root), QUEUE_INTERFACE_ID, 0, content))
        self.open.insert(0, root)
        for question in self.dice.sample(self.open, 2):
            self.finish(question)

    def take(self, data):
        try:
            for event in self.connection.receive_data(data):
                self.handle(event)
                self.check()
        except RemoteProtocolError:
            assert self.connection.closed
        self.connection.data_to_send()

    def handle(self, event):
        if isinstance(event, Aborted):
            return
        assert isinstance(event, Returned), f"{event} at a client"
        assert event.question in self.open, "a Return to a question that is not open"
        assert event.question not in self.returned, "two Returns"
        self.returned[event.question] = event.outcome
        if isinstance(event.outcome, Results):
            for read in RESPONSES:
                with suppress(RemoteProtocolError):
                    read(event.outcome)
        roll = self.dice.random()
        if roll < 0.6:
            self.finish(event.question)
        elif roll < 0.7 and self.held:
            self.open.append(
                self.connection.call(ImportedCap(self.dice.choice(self.held)), QUEUE_INTERFACE_ID, 0, bytes(8))
            )

    def finish(self, question):
        """Finish an answer, and release or keep the references that came with it."""
        self.open.remove(question)
        outcome = self.returned.pop(question, None)
        release = self.dice.random() < 0.5
        self.connection.finish(question, release_result_caps=release)
        if isinstance(outcome, Results) and not release:
            self.held += [each for each in outcome.capabilities if each is not None]
        if self.dice.random() < 0.3 and self.held:
            self.connection.release(self.held.pop())

    def check(self):
        if not self.connection.closed:
            self.connection.check()
            stats = self.connection.stats()
            assert stats.imports <= LIMITS.exports
            assert stats.answers <= LIMITS.open_answers
            assert stats.exports == stats.unanswered == 0
            assert len(self.open) <= stats.questions <= len(self.open) + CLIENT_QUESTIONS * 2

    def end(self):
        """Finish and release everything, let abandoned calls be answered, and check that nothing is left."""
        for question in list(self.open):
            self.finish(question)
        abandoned = re.findall(r"^q(\d+) ", self.connection.dump(), re.MULTILINE)
        self.take(b"".join(encoder.canceled(int(number)) for number in abandoned))
        while self.held:
            self.connection.release(self.held.pop())
        stats = self.connection.stats()
        assert not self.connection.closed
        assert (stats.questions, stats.imports) == (0, 0), self.connection.dump()


def listen(stream):
    """Raise unless a client's end copes with *stream*."""
    end = Listening(Random(crc32(stream)))
    end.ask()
    for piece in pieces(stream, end.dice):
        end.take(piece)
        if end.connection.closed:
            check_closed(end)
            return
    rest_is_untouched(end, stream)
    end.end()


def check(stream):
    """Raise unless both ends cope with *stream*."""
    serve(stream)
    listen(stream)
