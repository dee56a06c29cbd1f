"""Real workers, in threads of the test, on a test server with faults."""

import threading
from contextlib import contextmanager

import pytest

from queueber.tasks import Tasks
from queueber.worker import Worker

pytestmark = pytest.mark.slow

TIMEOUT_SECONDS = 30


@contextmanager
def working(worker):
    """Run *worker* in a thread."""
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop(0)
        thread.join()


class Handler:
    """Stops in each run until the test lets it go on."""

    def __init__(self):
        self.began = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.attempts = []
        self.lost = []

    def __call__(self, item):
        self.attempts.append(item.attempt)
        self.began.release()
        while not self.go_on.acquire(timeout=0.01) and not item.lost:
            pass
        self.lost.append(item.lost)

    def wait(self):
        assert self.began.acquire(timeout=TIMEOUT_SECONDS)


@pytest.fixture
def handler():
    return Handler()


def wait_until_empty(server):
    left = threading.Event()
    for _ in range(TIMEOUT_SECONDS * 100):
        if not server.items("mail"):
            return
        left.wait(0.01)
    server.assert_empty()


def test_a_worker_keeps_its_lease_however_far_time_moves(server, mail, handler):
    with working(Worker(server.url("mail"), handler)):
        mail.add(b"x")
        handler.wait()
        server.advance(7 * 86_400)
        handler.go_on.release()
        wait_until_empty(server)
    assert (handler.attempts, handler.lost) == ([1], [False])


def test_a_worker_notices_that_its_lease_was_ended(server, mail):
    """By the next ping, a quarter of the grace later in real time."""
    began, ended = threading.Semaphore(0), []

    def handle(item):
        began.release()
        if item.attempt == 1:
            item.wait(TIMEOUT_SECONDS)
        ended.append((item.attempt, item.lost))

    with working(Worker(server.url("mail"), handle, session_grace=10)):
        mail.add(b"x")
        assert began.acquire(timeout=TIMEOUT_SECONDS)
        assert server.end_leases("mail") == 1
        assert began.acquire(timeout=TIMEOUT_SECONDS)
        wait_until_empty(server)
        while len(ended) < 2:
            pass
    assert ended == [(2, False), (1, True)]


def test_a_worker_survives_cut_connections_and_lost_replies(server, mail, handler):
    with working(Worker(server.url("mail"), handler)):
        mail.add(b"x")
        handler.wait()
        assert server.drop_connections() == 2
        fault = server.lose_next_reply("settle")
        handler.go_on.release()
        wait_until_empty(server)
        with server.down():
            pass
        mail.add(b"y")
        handler.wait()
        handler.go_on.release()
        wait_until_empty(server)
    assert fault.happened == 1
    assert (handler.attempts, handler.lost) == ([1, 1], [False, False])


def test_an_adopted_app_has_workers(server):
    app = Tasks("queueber://queue.invalid:9090/mail")
    done = threading.Event()

    @app.task(every=3_600)
    def report() -> None:
        done.set()

    with server.adopt(app), working(app.worker()):
        server.advance(3_600)
        assert done.wait(TIMEOUT_SECONDS)
        wait_until_empty(server)
