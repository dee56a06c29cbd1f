"""A server that knows only the first methods of the interface, over each face."""

import os
import socket
import threading
from contextlib import contextmanager, suppress

import pytest

from queueber import api, rpc
from queueber.client_core.kept_session import SessionState
from queueber.errors import Kind, Unimplemented
from queueber.limits import DEFAULTS
from queueber.units import WallMs


class OldServer:
    """Serves one item for ever: add, poll, remove, extend, and nothing else."""

    def __init__(self, made):
        self.ended = []
        self._made = made
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with suppress(OSError):
            while True:
                peer, _ = self._made.accept()
                threading.Thread(target=self._talk, args=(peer,), daemon=True).start()

    def _talk(self, peer):
        connection = rpc.Connection(limits=DEFAULTS, bootstrap="root")
        with peer, suppress(OSError):
            while data := peer.recv(65_536):
                for event in connection.receive_data(data):
                    if isinstance(event, rpc.Calls):
                        self._answer(connection, event)
                peer.sendall(connection.data_to_send())

    def _answer(self, connection, event):
        called = (event.interface_id, event.method_id)
        if called == (api.BROKER_INTERFACE_ID, api.QUEUE):
            connection.return_capabilities(event.answer, api.QUEUE_RESPONSE, ("a queue",))
        elif called == (api.QUEUE_INTERFACE_ID, api.ADD):
            connection.return_results([event.answer], api.write_add_responses([[b"i" * 16]]))
        elif called == (api.QUEUE_INTERFACE_ID, api.POLL):
            item = api.PolledItem(b"x", b"i" * 16, 1, WallMs(0))
            response = api.PollResponse([item], b"l" * 16, WallMs(0))
            connection.return_results([event.answer], api.write_poll_responses([response]))
        elif called == (api.QUEUE_INTERFACE_ID, api.REMOVE):
            connection.return_results([event.answer], api.write_remove_responses([True]))
        elif called == (api.QUEUE_INTERFACE_ID, api.EXTEND):
            self.ended.append(api.read_extend_request(event.params, limits=DEFAULTS).lease_ms)
            connection.return_results([event.answer], api.write_extend_responses([True]))
        else:
            connection.return_exception(event.answer, Kind.UNIMPLEMENTED, "no such method")


@contextmanager
def old_server():
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield OldServer(made), f"queueber://127.0.0.1:{made.getsockname()[1]}/q"
        made.shutdown(socket.SHUT_RDWR)


async def test_what_it_does_not_know_is_one_sentence_that_names_the_method(face):
    with old_server() as (_, url):
        async with face.client(url) as client:
            queue = client.queue()
            calls = [
                (queue.fail(b"i" * 16, b"l" * 16), "Queue.settle"),
                (queue.dead_letters().poll(), "Queue.deadLetters"),
                (client.limits(), "Broker.limits"),
                (client.attach(os.urandom(16)), "Broker.attach"),
                (client.ping(), "Broker.ping"),
                (client.queues(), "Broker.queues"),
                (client.poll_any(["q"]), "Broker.pollAny"),
                (client.control("q").stats(), "Broker.control"),
            ]
            for call, method in calls:
                with pytest.raises(Unimplemented) as refused:
                    await call
                said = f"the server does not know {method}, which is newer than the server: no such method"
                assert str(refused.value) == said


async def test_items_are_worked_on_all_the_same(face):
    with old_server() as (_, url):
        async with face.client(url) as client:
            assert await client.queue().add(b"x") == [b"i" * 16]
            async with await client.queue().poll() as item:
                assert item.contents == b"x"


async def test_a_failure_cannot_be_counted_and_says_so(face):
    with old_server() as (_, url):
        async with face.client(url) as client:
            with pytest.raises(ZeroDivisionError) as raised:
                async with await client.queue().poll():
                    raise ZeroDivisionError
            (note,) = raised.value.__notes__
            assert "the server does not know Queue.settle" in note


async def test_a_kept_session_is_not_supported_and_leases_have_a_deadline(face):
    with old_server() as (_, url):
        async with face.client(url) as client, client.session() as session:
            assert session.state is SessionState.UNSUPPORTED
            batch = await client.queue().poll(session=session)
            assert not batch.session
