"""The life of a connection: the table, its drawing in the documentation, and that connections follow it."""

from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueber import api, rpc
from queueber.limits import Limits
from queueber.rpc import encoder
from queueber.server.net.read_scheduler import REQUEST_WINDOW
from queueber.server.net.states import (
    CONNECTION_TRANSITIONS,
    ENDED,
    HANDSHAKE_TRANSITIONS,
    READING,
    ConnectionInput,
    ConnectionState,
    HandshakeInput,
    HandshakeState,
    next_state,
)
from queueber.server.net.timeouts import FIRST_MESSAGE, WHOLE_MESSAGE
from queueber.testing import InProcessServer
from queueber.units import KIB

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"


def name(each):
    return each.name.lower().replace("_", " ")


def drawn(states, inputs, transitions):
    """Return the tables of the documentation, one line each."""
    yield "| State | Meaning |"
    yield "|---|---|"
    yield from (f"| {name(state)} | {state.value} |" for state in states)
    yield ""
    yield "| Input | Cause |"
    yield "|---|---|"
    yield from (f"| {name(cause)} | {cause.value} |" for cause in inputs)
    yield ""
    yield f"| | {' | '.join(map(name, inputs))} |"
    yield "|---|" + "---|" * len(inputs)
    for state in states:
        cells = [name(transitions[state][cause]) if cause in transitions[state] else "" for cause in inputs]
        yield f"| **{name(state)}** | {' | '.join(cells)} |"


MACHINES = [
    (ConnectionState, ConnectionInput, CONNECTION_TRANSITIONS),
    (HandshakeState, HandshakeInput, HANDSHAKE_TRANSITIONS),
]


@pytest.mark.parametrize("machine", MACHINES, ids=["connection", "handshake"])
def test_the_documentation_has_the_tables(machine):
    section = PAGE.read_text().partition("\n## The life of a connection\n")[2].partition("\n## ")[0]
    assert "\n".join(drawn(*machine)) in section, "\n".join(drawn(*machine))


@pytest.mark.parametrize("machine", MACHINES, ids=["connection", "handshake"])
def test_every_state_is_reached_and_nothing_follows_a_lost_connection(machine):
    states, _, transitions = machine
    assert set(transitions) == set(states)
    assert {after for row in transitions.values() for after in row.values()} | {next(iter(states))} == set(states)
    assert not transitions[states.LOST]


def test_a_connection_can_be_lost_in_every_state():
    assert {next_state(state, ConnectionInput.LOSS) for state in ConnectionState} == {ConnectionState.LOST}


def test_an_end_is_final():
    for state in ENDED:
        assert set(CONNECTION_TRANSITIONS[state].values()) <= ENDED
    assert not READING & ENDED


def test_an_input_that_a_state_does_not_list_changes_nothing():
    table = CONNECTION_TRANSITIONS
    unlisted = [(state, cause) for state in ConnectionState for cause in ConnectionInput if cause not in table[state]]
    assert len(unlisted) > len(ConnectionState)
    assert all(next_state(state, cause) is state for state, cause in unlisted)


def silence(peer):
    """Let the transport take no more replies."""
    peer.stop_reading()


def exceed_the_backlog(peer):
    silence(peer)
    peer.add(b"a")  # not read while the connection is throttled
    peer.server.settle()


def fill_the_share(peer):
    """Have two adds and another connection's wait for the disk: the share is half of the window."""
    peer.server.connect().add(b"a")
    for _ in range(2):
        peer.add(bytes(REQUEST_WINDOW // 4))
        peer.server.turn()


CAUSES = {
    ConnectionInput.DATA: lambda peer: peer.protocol.dataReceived(b"\0\0\0"),
    ConnectionInput.MESSAGE: lambda peer: peer.protocol.dataReceived(peer.connection.data_to_send()[3:]),
    ConnectionInput.BACKLOG: exceed_the_backlog,
    ConnectionInput.DRAINED: lambda peer: peer.read_on(),
    ConnectionInput.FULL: fill_the_share,
    ConnectionInput.ROOM: lambda peer: peer.server.settle(),
    ConnectionInput.CLOSE: lambda peer: peer.protocol.close(),
    ConnectionInput.ABORT: lambda peer: peer.protocol.abort(),
    ConnectionInput.LOSS: lambda peer: peer.protocol.connectionLost(),
}
"""The cause of each input, applied to a connection."""

PATHS = {
    ConnectionState.CONNECTED: [],
    ConnectionState.FIRST_MESSAGE: [ConnectionInput.DATA],
    ConnectionState.OPEN: [ConnectionInput.DATA, ConnectionInput.MESSAGE],
    ConnectionState.PAUSED: [ConnectionInput.DATA, ConnectionInput.MESSAGE, ConnectionInput.BACKLOG],
    ConnectionState.THROTTLED: [ConnectionInput.DATA, ConnectionInput.MESSAGE, ConnectionInput.FULL],
    ConnectionState.CLOSING: [ConnectionInput.DATA, ConnectionInput.CLOSE],
    ConnectionState.ABORTED: [ConnectionInput.ABORT],
}
"""The inputs that lead to each state."""


@pytest.fixture
def peer(make_server):
    """A peer whose first message, a Bootstrap, begins with the three bytes of `ConnectionInput.DATA`."""
    return make_server(unsent_bytes=10).connect()


@pytest.mark.parametrize(
    ("state", "cause"),
    [(state, cause) for state, row in CONNECTION_TRANSITIONS.items() for cause in row],
    ids=name,
)
def test_a_connection_follows_the_table(peer, state, cause):
    for step in PATHS[state]:
        CAUSES[step](peer)
    assert peer.protocol.state is state
    CAUSES[cause](peer)
    assert peer.protocol.state is next_state(state, cause)
    assert not peer.server.deaths


@pytest.mark.parametrize("state", sorted(ENDED, key=name), ids=name)
def test_input_is_dropped_at_the_end(peer, state):
    for step in {**PATHS, ConnectionState.LOST: [ConnectionInput.LOSS]}[state]:
        CAUSES[step](peer)
    peer.transport.clear()
    peer.protocol.dataReceived(encoder.bootstrap(1))
    peer.server.settle()
    assert peer.transport.value() == b""
    assert peer.protocol.state is state


def test_a_connection_that_is_aborted_counts_no_more_in_the_memory_budget(peer):
    """Eviction removes it from the budget, and its last replies must not bring it back."""
    peer.send()
    exceed_the_backlog(peer)
    memory = peer.server.connections.memory
    assert memory.total
    memory.update(peer.protocol, 0)
    peer.protocol.evict("buffered_bytes", "there is no room")
    peer.read_on()
    assert memory.total == 0
    assert peer.aborted


@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.lists(st.integers(1, 300), max_size=40))
def test_timers_and_memory_follow_every_read(sizes, cuts):
    """A read that ends with a whole message skips most of the work, and must leave the same timers and bytes."""
    server = InProcessServer(Limits())
    protocol, _ = server.connect()
    connection = rpc.Connection(limits=Limits())
    root = connection.bootstrap()
    messages = [connection.data_to_send()]
    for size in sizes:
        content = api.write_add_request(api.AddRequest([api.NewItem(bytes(size), 0)]))
        connection.call(rpc.PromisedAnswer(root), api.QUEUE_INTERFACE_ID, api.ADD, content)
        messages.append(connection.data_to_send())
    ends = [0, *accumulate(map(len, messages))]
    stream, at = b"".join(messages), 0
    running = server.connections.timeouts.running
    for cut in [*cuts, len(stream)]:
        if at == len(stream):
            break
        protocol.dataReceived(stream[at : at + cut])
        at = min(at + cut, len(stream))
        begun = at - max(end for end in ends if end <= at)
        assert server.connections.memory.total == protocol.held_bytes == begun
        assert (protocol in running(FIRST_MESSAGE)) is (at < ends[1])
        assert (protocol in running(WHOLE_MESSAGE)) is (begun > 0)
        assert protocol.state is (ConnectionState.OPEN if at >= ends[1] else ConnectionState.FIRST_MESSAGE)
    server.settle()
    assert server.broker.stats().items == len(sizes)


def test_open_answers_are_measured_without_a_long_read(peer):
    """A peer that never sends Finish, one short call at a time, comes to count with its tables."""
    peer.send()
    peer.server.settle()
    held = []
    for _ in range(200):
        peer.call(99, bytes(8))
        held.append(peer.protocol.held_bytes)
    assert held[0] == 0
    assert held[-1] >= 3 * 16 * KIB
