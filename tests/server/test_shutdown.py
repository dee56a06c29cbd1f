"""The shutdown, with a disk or with peers that do not let it finish."""

from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import Logger, formatEvent

from queueber.broker import StoreStalled
from queueber.server.app.sd_notify import Notifier
from queueber.server.app.service import QueueberService
from queueber.server.app.shutdown import GracefulShutdown


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def committer():
    idle = Deferred()
    return SimpleNamespace(stalled=True, idle=lambda: idle, done=idle)


@pytest.fixture
def settled(clock, committer):
    drain = GracefulShutdown(clock, 10, Notifier.from_environment({}))
    return ensureDeferred(drain._commit_rest(SimpleNamespace(committer=committer)))


def test_the_wait_for_a_stalled_store_has_a_time_limit(clock, settled):
    clock.pump([0.01] * 900)
    assert not settled.called
    clock.pump([0.01] * 200)
    failures = []
    settled.addErrback(failures.append)
    with pytest.raises(StoreStalled, match="has to catch up first, and does not"):
        failures[0].raiseException()


def test_the_wait_for_a_slow_disk_has_no_time_limit(clock, committer, settled):
    committer.stalled = False
    clock.pump([0.01] * 3_000)
    assert not settled.called
    committer.done.callback(None)
    clock.advance(0.01)
    assert settled.called
    assert settled.result is None


def test_ended_polls_are_answered_first(clock):
    """Other calls may have to wait for the disk."""
    done = []
    methods = SimpleNamespace(outstanding=1, drain=lambda: done.append("draining"))
    up = SimpleNamespace(
        ports=[],
        broker=SimpleNamespace(polls=SimpleNamespace(waiting=3)),
        dispatcher=SimpleNamespace(end_waiting=lambda why: done.append(str(why))),
        handlers=methods,
        sessions=SimpleNamespace(drain=lambda: done.append("no grace begins")),
        connections=[],
        flush_queue=SimpleNamespace(flush=lambda: done.append("sent")),
    )
    stopping = ensureDeferred(GracefulShutdown(clock, 10, Notifier.from_environment({})).run(up))
    clock.advance(1)
    assert (done, stopping.called) == (["draining", "no grace begins", "the server is stopping", "sent"], False)


class Connection:
    """A connection whose peer receives its replies when the test says so, or never."""

    def __init__(self, connections):
        self.connections, self.done = connections, []
        connections.append(self)

    def close(self):
        self.done.append("close")

    def abort(self):
        self.done.append("abort")
        self.connections.remove(self)


@pytest.fixture
def disconnected(clock, monkeypatch):
    """Begin the disconnection of *connections*, with a time limit of 3 seconds."""

    def disconnected(connections):
        up, lines = SimpleNamespace(connections=connections), []
        monkeypatch.setattr(GracefulShutdown, "log", Logger(observer=lambda event: lines.append(formatEvent(event))))
        drain = GracefulShutdown(clock, 3, Notifier.from_environment({}))
        return drain, ensureDeferred(drain._disconnect(up)), lines

    return disconnected


def test_peers_that_do_not_receive_their_replies_are_disconnected(clock, disconnected):
    connections = []
    peer = Connection(connections)
    drain, waited, lines = disconnected(connections)
    clock.pump([0.01] * 290)
    assert (drain.stage, peer.done) == ("for 1 peer to take all replies", ["close"])
    clock.pump([0.01] * 20)
    assert (peer.done, waited.called) == (["close", "abort"], True)
    assert lines == ["Cutting 1 connection over which not all replies were taken within 3 s (drain-seconds)"]


def test_the_wait_ends_when_all_peers_have_received_their_replies(clock, disconnected):
    connections = []
    peer = Connection(connections)
    _, waited, lines = disconnected(connections)
    clock.advance(0.01)
    connections.remove(peer)
    clock.pump([0.01] * 3)
    assert (peer.done, waited.called, lines) == (["close"], True, [])


def test_a_start_that_reads_the_store_is_interrupted():
    given_up = []

    async def stopped():
        given_up.append("then stopped")

    service = QueueberService.__new__(QueueberService)
    service._notifier = SimpleNamespace(stopping=lambda: None)
    service._restore_handlers = []
    service._startup = SimpleNamespace(cancel=lambda: given_up.append("given up"))
    service._stop = stopped
    assert service.stopService().called
    assert given_up == ["given up", "then stopped"]
