"""The ages of queues that no worker polls, after a start."""

import pytest

from queueber import api
from queueber.api import control_types as types
from queueber.api.control import read_queues_response, write_queues_request
from queueber.broker import first_dues
from queueber.broker.model import LOWEST
from queueber.errors import StorageError
from queueber.server.core import first_due_reader
from queueber.server.monitoring.metrics import ScrapeData, exposition
from queueber.store import open_store
from queueber.testing import in_process
from queueber.units import SpanMs
from queueber.values import NewItem
from tests.server.conftest import Server

QUEUES = 10


@pytest.fixture
def restart(monkeypatch):
    """Return a function that starts a server on a store."""

    def restart(store):
        with monkeypatch.context() as other:
            other.setattr(in_process, "DisklessStore", lambda: store)
            return Server()

    return restart


@pytest.fixture
def restarted(server, restart):
    """Return a server that has started with ten queues of one item each, and reads three at a time, twice in a run."""
    for number in range(QUEUES):
        add(server, f"queue {number}")
    server.settle()
    return restart(server.store)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(first_dues, "QUEUES_MAX", 3)
    monkeypatch.setattr(first_due_reader, "SLICES", 2)


def add(server, name, delay=0):
    items = [NewItem(b"x", SpanMs(delay))]
    server.committer.submit(server.broker.add(server.broker.queue(name), [items], server.clock.now()), lambda _: None)


def known(server):
    """Return how many queues have a known age."""
    return sum(queue.window.first_due() is not None for queue in server.broker.queues)


def run(server):
    done = server.first_due_reader.run()
    server.settle()
    assert done.called
    assert server.deaths == []


def test_all_queues_are_read_on_the_storage_pool(restarted):
    restarted.first_due_reader.run()
    assert (len(restarted.pool.jobs), known(restarted)) == (1, 0)

    restarted.settle()

    assert (restarted.first_due_reader.slices, known(restarted)) == (1, QUEUES)
    assert restarted.broker.queues.windows.bytes == 0
    run(restarted)
    assert restarted.first_due_reader.slices == 1, "there is nothing more to read"


def test_the_work_of_a_run_is_bounded(restarted, small):
    counts = []
    for _ in range(3):
        run(restarted)
        counts.append((restarted.first_due_reader.slices, known(restarted)))

    assert counts == [(2, 6), (4, QUEUES), (4, QUEUES)]


def test_one_slice_is_read_at_a_time(restarted, small):
    restarted.first_due_reader.run()
    restarted.pool.step()

    assert len(restarted.pool.jobs) == 1


def test_a_read_that_a_run_does_not_finish_goes_on_in_the_next(server, restart, monkeypatch):
    monkeypatch.setattr(first_due_reader, "SLICES", 1)
    peer = server.connect()
    peer.add(*[b"x"] * (first_dues.KEYS + 1))
    poll = peer.poll(first_dues.KEYS, lease=60_000)
    server.settle()
    assert poll in peer.receive()
    server = restart(server.store)
    queue = server.broker.queue("default")
    # As if an item had come back below them, and had been cancelled.
    queue.window.covered_to = queue.floor = LOWEST

    run(server)
    assert (server.first_due_reader.slices, known(server)) == (1, 0)
    run(server)

    assert (server.first_due_reader.slices, known(server)) == (2, 1)


def test_nothing_more_is_read_once_the_server_drains(restarted, small):
    done = restarted.first_due_reader.run()
    restarted.handlers.drain()
    restarted.pool.step()

    assert done.called
    assert (len(restarted.pool.jobs), known(restarted)) == (0, 3)
    run(restarted)
    assert known(restarted) == 3


@pytest.mark.parametrize(("error", "known_kind"), [(StorageError("a block is damaged"), True), (KeyError(), False)])
def test_a_queue_that_cannot_be_read_hides_no_other_and_is_read_again(restarted, log_lines, error, known_kind):
    keys, number = restarted.store.keys, restarted.broker.queue("queue 3").number

    def read(queue, *args, **kwargs):
        if queue == number:
            raise error
        return keys(queue, *args, **kwargs)

    restarted.store.keys = read
    run(restarted)
    run(restarted)

    assert (restarted.first_due_reader.unreadable, known(restarted)) == (1, QUEUES - 1)
    (line,) = log_lines("Reading the first key")
    assert line["queue"] == "queue 3"
    assert (line.get("why") == "a block is damaged") is known_kind
    restarted.store.keys = keys
    restarted.reactor.advance(60)
    run(restarted)
    assert known(restarted) == QUEUES


def test_a_look_at_a_queue_without_an_age_has_it_read(restarted):
    run(restarted)
    window = restarted.broker.queue("queue 3").window
    window.extend([], window.covered_to)
    run(restarted)
    assert known(restarted) == QUEUES - 1

    peer = restarted.connect()
    look = peer.call_broker(api.QUEUES, write_queues_request(types.QueuesRequest()))
    restarted.settle()
    assert len(read_queues_response(peer.receive()[look]).found) == QUEUES
    run(restarted)

    assert known(restarted) == QUEUES


def test_a_queue_in_a_directory_shows_its_age_after_a_restart_without_any_poll(tmp_path, restart):
    server = restart(open_store(tmp_path / "data"))
    for name, delay in (("waits", 0), ("waits", 500_000), ("later", 1_000_000)):
        add(server, name, delay)
    server.settle()
    server.store.close()

    server = restart(open_store(tmp_path / "data"))
    for timer in server.parts.timers:
        timer.startService()
    server.settle()
    server.reactor.advance(900)
    server.settle()
    stats = []
    server.parts.diagnostics.queue_stats().addCallback(stats.append)
    text, _ = exposition(server.parts.diagnostics, ScrapeData(stats[0], None, 0, 0), "text/plain")
    peer = server.connect()
    look = peer.call_broker(api.QUEUES, write_queues_request(types.QueuesRequest()))
    server.settle()
    later, waits = [each.stats for each in read_queues_response(peer.receive()[look]).found]
    for timer in server.parts.timers:
        timer.stopService()

    lines = text.decode().splitlines()
    assert 'queueber_oldest_ready_seconds{queue="waits"} 900.0' in lines
    assert 'queueber_oldest_ready_seconds{queue="later"} 0.0' in lines
    assert 'queueber_items{queue="later",state="delayed"} 1.0' in lines
    assert waits.oldest_due_ms == 1_000_000
    assert (waits.ready, waits.ready_max) == (1, 2)
    assert (later.ready, later.ready_max, later.delayed) == (0, 0, 1)
    assert server.broker.queues.windows.bytes == 0
    assert (server.handlers.stats.begun["poll"], server.deaths) == (0, [])
    server.store.close()
