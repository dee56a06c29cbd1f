"""The counts of the storage threads."""

import threading
from contextlib import closing
from select import select
from types import SimpleNamespace

from queueber.server.core.pool import StoragePool
from tests.support.waiting import until

TIMEOUT_SECONDS = 120


class Reactor:
    """Reads when it is asked to."""

    def __init__(self):
        self.readers = []
        self.addReader, self.removeReader = self.readers.append, self.readers.remove

    def turn(self):
        readable, _, _ = select(self.readers, [], [], 0)
        for reader in readable:
            reader.doRead()


def test_only_jobs_that_no_thread_has_begun_are_waiting():
    """A finished job does not count, even before the reactor has its result."""
    reactor, finished = Reactor(), []
    pool = StoragePool(reactor, 2)
    pool.start()
    go_on = threading.Event()
    with closing(SimpleNamespace(close=pool.stop)):
        for _ in range(5):
            pool.run(go_on.wait, TIMEOUT_SECONDS).addCallback(finished.append)
        until(lambda: pool.busy == 2)
        assert pool.waiting == 3
        go_on.set()
        until(lambda: pool.busy == 0)
        assert pool.waiting == 0
        assert finished == []
        until(lambda: reactor.turn() or len(finished) == 5)
    assert reactor.readers == []


def test_a_job_that_fails_fails_its_deferred():
    reactor, failures = Reactor(), []
    pool = StoragePool(reactor, 1)
    pool.start()
    with closing(SimpleNamespace(close=pool.stop)):
        pool.run(int, "x").addErrback(failures.append)
        until(lambda: reactor.turn() or failures)
    assert failures[0].check(ValueError)


def test_all_jobs_are_run_before_the_threads_end():
    reactor, results = Reactor(), []
    pool = StoragePool(reactor, 2)
    pool.start()
    for number in range(20):
        pool.run(results.append, number)
    pool.stop()
    assert sorted(results) == list(range(20))
