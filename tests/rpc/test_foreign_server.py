"""Our calling half against pycapnp's own RPC server, in a process of its own."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import define

from queueber.api import (
    ADD,
    BROKER_INTERFACE_ID,
    EXTEND,
    POLL,
    QUEUE,
    QUEUE_INTERFACE_ID,
    REMOVE,
    AddRequest,
    ExtendRequest,
    NewItem,
    PolledItem,
    PollRequest,
    RemoveRequest,
    read_add_response,
    read_bootstrap,
    read_extend_response,
    read_poll_response,
    read_queue_response,
    read_remove_response,
    write_add_request,
    write_extend_request,
    write_poll_request,
    write_queue_request,
    write_remove_request,
)
from queueber.errors import Kind
from queueber.limits import Limits
from queueber.rpc import Connection, ImportedCap, PromisedAnswer
from queueber.units import SpanMs

pytestmark = pytest.mark.slow


@define
class Client:
    """Our end, driven over a socket."""

    socket: socket.socket
    connection: Connection

    def outcomes(self, *questions):
        """Wait until each of *questions* has been answered; their outcomes, in the order of the questions."""
        found = {}
        while not found.keys() >= set(questions):
            self.socket.sendall(self.connection.data_to_send())
            data = self.socket.recv(65_536)
            assert data, "the server hung up"
            for event in self.connection.receive_data(data):
                found[event.question] = event.outcome
            self.connection.check()
        return [found[question] for question in questions]

    def queue(self, target, method, content):
        return self.connection.call(target, QUEUE_INTERFACE_ID, method, content)


@pytest.fixture
def client():
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    script = Path(__file__).parents[1] / "support" / "foreign_server.py"
    server = subprocess.Popen([sys.executable, script, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    theirs.close()
    with ours:
        yield Client(ours, Connection(limits=Limits()))
    assert server.wait(timeout=120) == 0


@pytest.fixture
def root(client):
    question = client.connection.bootstrap()
    (outcome,) = client.outcomes(question)
    client.connection.finish(question, release_result_caps=False)
    return ImportedCap(read_bootstrap(outcome))


def test_every_method(client, root):
    items = [NewItem(b"a" * 10_000, SpanMs(5)), NewItem(b"b", SpanMs(0))]
    questions = [
        client.queue(root, ADD, write_add_request(AddRequest(items))),
        client.queue(root, REMOVE, write_remove_request(RemoveRequest(b"there", b"l" * 16))),
        client.queue(root, REMOVE, write_remove_request(RemoveRequest(b"not there", b"l" * 16))),
        client.queue(root, EXTEND, write_extend_request(ExtendRequest(b"there", SpanMs(1)))),
        client.queue(root, POLL, write_poll_request(PollRequest(SpanMs(1_500), 5, None, no_wait=True))),
    ]
    added, removed, kept, extended, polled = client.outcomes(*questions)
    assert read_add_response(added).ids == [b"default " + b"a" * 10_000 + b" 5", b"default b 0"]
    assert [read_remove_response(each) for each in (removed, kept)] == [True, False]
    assert read_extend_response(extended)
    response = read_poll_response(polled)
    assert (response.lease, response.deadline) == (b"l" * 16, 1_500)
    assert response.items == [
        PolledItem(bytes([index]) * 3_000, b"%16d" % index, index + 1, index + 2) for index in range(5)
    ]
    for question in questions:
        client.connection.finish(question)
    assert client.connection.stats().questions == 0


def test_named_queues_in_one_round_trip(client):
    """Bootstrap, the call for the queue, and the add are sent together."""
    root = client.connection.bootstrap()
    queue = client.connection.call(PromisedAnswer(root), BROKER_INTERFACE_ID, QUEUE, write_queue_request("mail"))
    content = write_add_request(AddRequest([NewItem(b"letter", SpanMs(0))]))
    added = client.queue(PromisedAnswer(queue, (0,)), ADD, content)
    _, named, stored = client.outcomes(root, queue, added)
    assert read_add_response(stored).ids == [b"mail letter 0"]
    kept = ImportedCap(read_queue_response(named))
    for question in (root, added):
        client.connection.finish(question)
    client.connection.finish(queue, release_result_caps=False)
    again = client.queue(kept, ADD, content)
    (stored,) = client.outcomes(again)
    assert read_add_response(stored).ids == [b"mail letter 0"]
    client.connection.finish(again)
    client.connection.release(kept.id)
    assert client.connection.stats() == Connection(limits=Limits()).stats()


def test_errors_have_a_kind_and_a_reason(client, root):
    bad = client.queue(root, POLL, write_poll_request(PollRequest(SpanMs(0), 1, None, no_wait=True)))
    unknown = client.queue(root, 77, write_queue_request(""))
    refused, missing = client.outcomes(bad, unknown)
    assert refused.kind == Kind.FAILED
    assert "leaseValidity" in refused.reason
    assert missing.kind == Kind.UNIMPLEMENTED


def test_a_waiting_poll_can_be_canceled(client, root):
    """The server returns canceled or results; either way the question id is free again."""
    waiting = client.queue(root, POLL, write_poll_request(PollRequest(SpanMs(1), 99, None, no_wait=False)))
    client.connection.finish(waiting)
    (outcome,) = client.outcomes(client.queue(root, REMOVE, write_remove_request(RemoveRequest(b"there", b"l" * 16))))
    assert read_remove_response(outcome)
    assert client.connection.stats().questions == 1
