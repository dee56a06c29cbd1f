"""A disk that does not respond: the calls that wait for it are bounded, of every kind and over all peers."""

import gc

import pytest
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from queueber import api, rpc
from queueber.errors import Kind
from queueber.server.core.commit_batch import PLAN_BYTES

REMOVE = api.write_remove_request(api.RemoveRequest(bytes(16), bytes(16)))
EXTEND = api.write_extend_request(api.ExtendRequest(bytes(16), 5_000))
NOTHING = api.write_add_request(api.AddRequest([]))


def stand_still(server):
    """Return a peer, while another peer's add is being committed."""
    peer, other = server.connect(), server.connect()
    peer.send()
    other.add(b"x")
    server.turn()
    assert len(server.pool.jobs) == 1
    return peer


def connections_alive():
    """Return how many connections of the RPC layer are in memory."""
    gc.collect()
    return sum(type(each) is rpc.Connection for each in gc.get_objects())


@pytest.mark.parametrize(
    ("method", "content"),
    [(api.REMOVE, REMOVE), (api.EXTEND, EXTEND), (api.ADD, NOTHING)],
    ids=["remove", "extend", "empty add"],
)
def test_calls_that_write_nothing_count_while_they_wait(make_server, method, content):
    server = make_server(pending_bytes=10 * PLAN_BYTES)
    peer = stand_still(server)
    calls = [peer.call(method, content) for _ in range(20)]
    server.turn()
    assert server.committer.pending_bytes == 11 * PLAN_BYTES
    refused = peer.receive()
    assert len(refused) == 1 + 9
    assert {refused[each].kind for each in calls[11:]} == {Kind.OVERLOADED}
    assert "pending_bytes" in refused[calls[-1]].reason
    server.settle()
    outcomes = peer.receive()
    assert not any(isinstance(outcomes[each], rpc.RemoteException) for each in calls[:11])
    assert server.committer.pending_bytes == 0


def test_a_commit_has_a_bounded_number_of_calls_however_little_they_write(make_server):
    server = make_server(commit_rows=10)
    peer = stand_still(server)
    for _ in range(25):
        # Those of one turn are one plan.
        peer.call(api.REMOVE, REMOVE)
        server.turn()
    answered, write = [], peer.transport.write
    peer.transport.write = lambda data: answered.append(25 - server.handlers.outstanding) or write(data)
    server.settle()
    assert answered == [10, 20, 25], "the rest waits for the next commit"


def test_only_the_pending_call_of_a_lost_connection_stays_in_memory(server):
    peer = stand_still(server)
    peer.call(api.REMOVE, REMOVE)
    server.turn()
    before = connections_alive()
    peer.protocol.connectionLost(Failure(ConnectionDone()))
    assert connections_alive() == before - 1
    assert server.handlers.outstanding == 2
    server.settle()
    assert server.handlers.outstanding == 0
    assert not server.deaths
