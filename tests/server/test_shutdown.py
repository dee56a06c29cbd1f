"""The shutdown, with a disk or with peers that do not let it finish."""

from types import SimpleNamespace

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock
from twisted.logger import Logger, formatEvent

from queueber import api
from queueber.broker import StoreStalled
from queueber.errors import Stopping
from queueber.server.app.fd_limit import Descriptors
from queueber.server.app.sd_notify import Notifier
from queueber.server.app.shutdown import GracefulShutdown
from queueber.server.app.startup import Startup
from queueber.server.config.settings import Settings
from queueber.server.net.bound_sockets import BoundPorts
from queueber.store import open_store
from queueber.testing import InProcessServer, StepPool
from queueber.values import Action, Settlement
from tests.server.conftest import Server


class Committer:
    """A committer whose last commit is over when the test says so."""

    def __init__(self, *, stalled):
        self.stalled, self.done = stalled, Deferred()

    def idle(self):
        return self.done


class Connection:
    """A connection that stays in *connections* while its peer does not take its replies."""

    def __init__(self, connections):
        self.connections, self.done = connections, []
        connections.append(self)

    def close(self):
        self.done.append("close")

    def abort(self):
        self.done.append("abort")
        self.connections.remove(self)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def stop(clock, monkeypatch):
    """Return a function that stops a server of the given parts; it returns the shutdown, its end and its warnings."""

    def begin(connections=(), committer=None, seconds=3):
        lines, server = [], InProcessServer()
        idle = SimpleNamespace(stalled=False, idle=lambda: succeed(None))
        up = evolve(server.parts, connections=connections, timers=[], committer=committer or idle)
        monkeypatch.setattr(GracefulShutdown, "log", Logger(observer=lambda event: lines.append(formatEvent(event))))
        shutdown = GracefulShutdown(clock, seconds, Notifier.from_environment({}))
        stopped = ensureDeferred(shutdown.run(up))
        clock.advance(0)
        assert lines.pop(0).startswith("Stopping: 0 calls are under way")
        return shutdown, stopped, lines

    return begin


def test_the_wait_for_a_stalled_store_has_a_time_limit(clock, stop):
    shutdown, stopped, _ = stop(committer=Committer(stalled=True), seconds=10)
    clock.pump([0.01] * 900)
    assert (shutdown.stage, stopped.called) == ("for the last commit", False)
    clock.pump([0.01] * 200)
    failures = []
    stopped.addErrback(failures.append)
    with pytest.raises(StoreStalled, match="has to catch up first, and does not"):
        failures[0].raiseException()


def test_the_wait_for_a_slow_disk_has_no_time_limit(clock, stop):
    committer = Committer(stalled=False)
    _, stopped, _ = stop(committer=committer, seconds=10)
    clock.pump([0.01] * 3_000)
    assert not stopped.called
    committer.done.callback(None)
    clock.advance(0.01)
    assert stopped.called
    assert stopped.result is None


class TestReads:
    """A settle whose rows are still being read when `drain-seconds` ends."""

    @pytest.fixture
    def server(self):
        server = Server()
        worker = server.connect()
        worker.add(*[b"%d" % number for number in range(250)])
        lease = worker.polled(250, lease=60_000).lease
        entry = Settlement(lease, b"", Action.FAIL, None, "")
        worker.call(api.SETTLE, api.write_settle_request(api.SettleRequest([entry])))
        assert len(server.pool.jobs) == 1
        return server

    def stop(self, server, clock):
        """Stop until only the read is waited for; return the shutdown and its end."""
        shutdown = GracefulShutdown(clock, 3, Notifier.from_environment({}))
        stopped = ensureDeferred(shutdown.run(evolve(server.parts, timers=[])))
        clock.pump([0.01] * 310)
        server.turn()
        for connection in list(server.connections):
            connection.connectionLost()
        clock.pump([0.01] * 2)
        server.turn()
        clock.pump([0.01] * 2)
        assert (shutdown.stage, stopped.called) == ("for 1 read of the store to end", False)
        return stopped

    def test_the_store_stays_open_until_it_ends_and_nothing_is_decided_from_it(self, server, clock):
        stopped, commits = self.stop(server, clock), server.committer.commits
        server.pool.step()
        clock.advance(0.01)
        assert stopped.called
        server.settle()
        assert (server.committer.commits, server.deaths) == (commits, [])
        assert len(server.broker.leases) == 1

    def test_it_reads_no_further_rows(self, server, clock):
        sizes, read = [], server.store.read
        stopped = []

        def read_slowly(number, keys):
            sizes.append(len(keys))
            if not stopped:
                stopped.append(self.stop(server, clock))
            return read(number, keys)

        server.store.read = read_slowly
        server.pool.step()
        assert sizes == [100]
        clock.advance(0.01)
        assert stopped[0].called

    def test_it_is_read_in_slices_otherwise(self, server):
        sizes, read = [], server.store.read
        server.store.read = lambda number, keys: sizes.append(len(keys)) or read(number, keys)
        server.settle()
        assert sizes == [100, 100, 50]
        assert len(server.broker.leases) == 0


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


def test_peers_that_do_not_receive_their_replies_are_disconnected(clock, stop):
    connections = []
    peer = Connection(connections)
    shutdown, stopped, lines = stop(connections)
    clock.pump([0.01] * 290)
    assert (shutdown.stage, peer.done) == ("for 1 peer to take all replies", ["close"])
    clock.pump([0.01] * 20)
    assert (peer.done, stopped.called) == (["close", "abort"], True)
    assert lines == ["Cutting 1 connection over which not all replies were taken within 3 s (drain-seconds)"]


def test_the_wait_ends_when_all_peers_have_received_their_replies(clock, stop):
    connections = []
    peer = Connection(connections)
    _, stopped, lines = stop(connections)
    clock.advance(0.01)
    connections.remove(peer)
    clock.pump([0.01] * 3)
    assert (peer.done, stopped.called, lines) == (["close"], True, [])


def test_a_start_that_reads_the_store_is_interrupted(clock, tmp_path):
    settings, pool = Settings(listen=(), data_dir=tmp_path / "data"), StepPool()
    progress = SimpleNamespace(at=lambda _: None)
    startup = Startup(clock, settings, pool, BoundPorts(clock), progress, Logger(observer=lambda _: None))
    starting = ensureDeferred(startup.recover(Descriptors(None, 10, 100, 0), None))
    failures = []
    starting.addErrback(failures.append)
    while not failures:
        if pool.jobs[0][1].__name__ == "recover":
            startup.cancel()
        pool.step()
    assert failures[0].check(Stopping)
    store = open_store(tmp_path / "data")
    assert store.clean_shutdown
    store.close()
