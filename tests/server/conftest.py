"""A server without sockets, threads or a real clock, and clients of it."""

import pytest
from attrs import define, field
from twisted.internet.testing import StringTransport

from queueber import wire
from queueber.limits import Limits
from queueber.testing import InProcessServer


@define(eq=False)
class Peer:
    """A client's end, and the transport that its bytes would take."""

    hand: "Hand"
    protocol: object
    transport: StringTransport
    connection: wire.Connection = field(factory=lambda: wire.Connection(limits=Limits()))
    outcomes: dict = field(factory=dict)
    _root: wire.QuestionId = None
    aborted: list = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self._root = self.connection.bootstrap()
        self.transport.abortConnection = lambda: self.aborted.append(True)

    def call(self, method, content, target=None):
        question = self.connection.call(
            target or wire.PromisedAnswer(self._root), wire.QUEUE_INTERFACE_ID, method, content
        )
        self.send()
        return question

    def send(self) -> None:
        self.protocol.dataReceived(self.connection.data_to_send())

    def receive(self):
        """All outcomes so far, by question."""
        data, self.transport.io = self.transport.value(), type(self.transport.io)()
        for event in self.connection.receive_data(data):
            self.outcomes[event.question] = event.outcome
        return self.outcomes

    def add(self, *contents):
        items = [wire.NewItem(each, 0) for each in contents]
        return self.call(wire.ADD, wire.write_add_request(wire.AddRequest(items)))

    def poll(self, count=1, *, wait=None, no_wait=False, lease=1000):
        return self.call(wire.POLL, wire.write_poll_request(wire.PollRequest(lease, count, wait, no_wait)))


class Hand(InProcessServer):
    """The server, with peers that speak."""

    def connect(self) -> Peer:
        return Peer(self, *super().connect())


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def make_hand():
    return lambda **limits: Hand(Limits(**limits))
