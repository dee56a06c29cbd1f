"""
Workers in processes of their own, and a server on a disk: kills, pauses, broken networks and handlers that misbehave.

Each test says what is promised in its case.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from queueber.sync import connect
from queueber.worker.signals import AGAIN_SECONDS
from tests.process.certificates import Authority
from tests.support.processes import free_port
from tests.support.server_process import Server
from tests.support.waiting import until

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parents[1] / "support" / "worker_program.py"
LOST = "the lease on item"
SILENCE = "--limit-session-silence-ms=1s"


class Process:
    """A worker in a process."""

    def __init__(self, url, handler="thread", **options):
        given = {"session_grace": "10", "grace": "5", **{name: str(value) for name, value in options.items()}}
        command = [sys.executable, str(PROGRAM), url, handler, *(f"{name}={value}" for name, value in given.items())]
        self.lines = []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        with self.process.stdout:
            for line in self.process.stdout:
                self.lines.append((time.monotonic(), line.rstrip()))

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()

    def line(self, pattern, seconds=60):
        """Wait for a line that matches; return when it came."""
        found = lambda: next((at for at, line in list(self.lines) if re.search(pattern, line)), None)  # noqa: E731
        try:
            return until(found, seconds)
        except AssertionError:
            raise AssertionError(f"no line {pattern!r} in:\n{self.text()}") from None

    def text(self):
        return "\n".join(line for _, line in list(self.lines))

    def send(self, number):
        self.process.send_signal(number)
        return time.monotonic()

    def ends(self, seconds=60):
        status = self.process.wait(seconds)
        return status, time.monotonic()


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path / "data", SILENCE)
    yield made
    end(made)


def end(server):
    server.stop()
    server.process.stdout.close()


@pytest.fixture
def queue(server):
    with connect(f"queueber://127.0.0.1:{server.port}/work") as client:
        yield client.queue()


@pytest.fixture
def work(server):
    """Start a worker process; it is killed at the end."""
    made = []

    def start(handler="thread", url=None, **options):
        made.append(Process(url or f"queueber://127.0.0.1:{server.port}/work", handler, **options))
        return made[-1]

    yield start
    for each in made:
        each.kill()


def items_left(queue, wait_ms=0):
    """Return (contents, attempt) of all items that can be had now, and leave them as they were."""
    batch = queue.poll(100, wait_ms=wait_ms)
    found = [(item.contents, item.attempt) for item in batch.items]
    for item in batch.items:
        item.defer()
    return found


class Relay:
    """A TCP proxy whose traffic can be held, as by a network that is gone without a word."""

    def __init__(self, port):
        self.to = port
        self.held = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = [self.listener]
        self.threads = []
        self._start(self._accept)

    def _start(self, target, *arguments):
        self.threads.append(threading.Thread(target=target, args=arguments, daemon=True))
        self.threads[-1].start()

    def _accept(self):
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.to))
                self.sockets += [near, far]
                self._start(self._pass, near, far)
                self._start(self._pass, far, near)

    def _pass(self, source, sink):
        with suppress(OSError):
            while data := source.recv(65_536):
                while self.held.is_set():
                    time.sleep(0.02)
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self):
        """End the connections; others may be made at once."""
        for each in self.sockets[1:]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.held.clear()
        for each in self.sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for each in self.threads:
            each.join()
        for each in self.sockets:
            each.close()


@pytest.fixture
def relay(server):
    made = Relay(server.port)
    yield made
    made.close()


def killed(work, queue, url):
    """A worker is killed: the grace counts from the end of the connection, which the kernel reports at once."""
    first = work(url=url)
    queue.add(b"sleep 60")
    first.line("begin sleep 1")
    at = first.send(signal.SIGKILL)
    began = work(url=url, concurrency=1).line("begin sleep 2")
    assert 9.9 <= began - at < 16
    return began - at


def stopped(work, queue, url):
    """A process is stopped, and goes on when it is too late: it acknowledges nothing, and works on."""
    first = work(url=url)
    queue.add(b"sleep 0.5")
    first.line("begin sleep 1")
    at = first.send(signal.SIGSTOP)
    second = work(url=url, concurrency=1)
    began = second.line("begin sleep 2")
    assert 10.5 <= began - at < 18
    second.line("end sleep 2")
    first.send(signal.SIGCONT)
    first.line("done after its lease had ended|is lost:")
    second.process.kill()
    queue.add(b"sleep 0")
    first.line("end sleep 1")
    return began - at


def without_network(work, queue, url):
    """The network is gone without a word: the worker cancels its handler before the item runs elsewhere."""
    relay = Relay(int(re.search(r":(\d+)/", url)[1]))
    try:
        first = work("loop", url=re.sub(r":\d+/", f":{relay.port}/", url))
        queue.add(b"await 100")
        first.line("begin await 1")
        relay.held.set()
        at = time.monotonic()
        second = work("loop", url=url)
        cancelled = first.line("cancelled True")
        began = second.line("begin await 2")
    finally:
        relay.close()
    # It relies on its lease until the sending of the last answered ping, and the grace.
    assert 9.4 <= cancelled - at <= 12
    assert cancelled < began < at + 20
    return began - at


def held_interpreter(work, queue, url):
    """A handler holds the interpreter lock for longer than silence and grace: its result is not acknowledged."""
    first = work(url=url)
    queue.add(b"gil 14")
    first.line("begin gil 1")
    at = time.monotonic()
    second = work(url=url, concurrency=1)
    began = second.line("begin gil 2")
    first.line("end gil 1")
    first.line("done after its lease had ended|is lost:")
    second.process.kill()
    return began - at


class TestGone:
    def test_items_of_workers_that_are_gone_run_elsewhere_after_their_grace(self, server, work, record_property):
        """Four cases at once, because each has to wait for the grace, which is at least ten seconds."""
        cases = (killed, stopped, without_network, held_interpreter)
        with ExitStack() as stack, ThreadPoolExecutor() as pool:
            running = {}
            for case in cases:
                url = f"queueber://127.0.0.1:{server.port}/{case.__name__}"
                queue = stack.enter_context(connect(url)).queue()
                running[case.__name__] = pool.submit(case, work, queue, url)
            for name, case in running.items():
                record_property(name, round(case.result(), 2))

    def test_one_that_takes_over_its_session_ends_its_leases_at_once(self, server, queue, work):
        """However large the items are.  The grace would be ten seconds."""
        session = json.dumps(os.urandom(16).hex())
        with connect(f"queueber://127.0.0.1:{server.port}/work") as client:
            added = [queue.add(b"sleep 60 " + bytes(4_000_000))[0] for _ in range(5)]
            first = work(session=session, concurrency=5)
            until(lambda: first.text().count("begin sleep 1") == 5)
            at = first.send(signal.SIGKILL)
            second = work(session=session, concurrency=5)
            until(lambda: second.text().count("begin sleep 2") == 5)
            assert time.monotonic() - at < 9
            facts = client.control("work").get(added[0]).facts
        assert (facts.losses, facts.failures) == (1, 0)

    def test_a_short_pause_of_the_process_costs_nothing(self, queue, work):
        worker = work("loop")
        queue.add(b"await 2")
        worker.line("begin await 1")
        worker.send(signal.SIGSTOP)
        time.sleep(2.5)
        worker.send(signal.SIGCONT)
        worker.line("end await 1")
        assert worker.send(signal.SIGTERM)
        assert worker.ends()[0] == 0
        assert items_left(queue) == []
        assert LOST not in worker.text()


class TestNetwork:
    def test_a_network_that_is_gone_for_a_moment_costs_nothing(self, relay, queue, work):
        worker = work("loop", url=f"queueber://127.0.0.1:{relay.port}/work")
        queue.add(b"await 4")
        worker.line("begin await 1")
        relay.held.set()
        time.sleep(2.5)
        relay.held.clear()
        worker.line("end await 1")
        worker.send(signal.SIGTERM)
        assert worker.ends()[0] == 0
        assert items_left(queue) == []
        assert LOST not in worker.text()


class TestTls:
    def test_a_connection_that_is_cut_comes_back_and_keeps_its_leases(self, tmp_path, work):
        """The item is longer under way than the server would wait for a silent session."""
        authority = Authority(tmp_path / "ca")
        certificate, key = authority.sign("server", alternative="DNS:localhost")
        server = Server(
            tmp_path / "secured",
            SILENCE,
            "--listen-tls=127.0.0.1:0",
            f"--tls-certificate={certificate}",
            f"--tls-key={key}",
        )
        relay = Relay(server.port)
        url = f"queueber+tls://localhost:{{}}/work?ca={authority.pem}"
        try:
            with connect(url.format(server.port)) as client:
                queue = client.queue()
                worker = work("loop", url=url.format(relay.port))
                queue.add(b"await 6")
                worker.line("begin await 1")
                for _ in range(2):
                    time.sleep(1.5)
                    relay.cut()
                worker.line("end await 1")
                worker.send(signal.SIGTERM)
                assert worker.ends()[0] == 0
                assert items_left(queue) == []
            assert worker.text().count("the connection is lost; connecting again") == 2
            assert LOST not in worker.text()
        finally:
            relay.close()
            end(server)


class TestServerRestart:
    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
    def test_a_restart_in_the_middle_costs_no_item_and_no_attempt(self, tmp_path, how, record_property):
        port = free_port()
        server = Server(tmp_path / "data", SILENCE, f"--listen=127.0.0.1:{port}")
        server.line("Listening")
        worker = Process(f"queueber://127.0.0.1:{port}/work", "loop")
        try:
            with connect(f"queueber://127.0.0.1:{port}/work") as client:
                queue = client.queue()
                queue.add(b"await 3", b"await 3", *[b"sleep 0"] * 20)
                worker.line("begin await 1")
                time.sleep(0.5)
                server.process.send_signal(how)
                server.wait()
                server.process.stdout.close()
                restarted = time.monotonic()
                server = Server(tmp_path / "data", SILENCE, f"--listen=127.0.0.1:{port}")
                worker.line("end await 1")
                queue.add(b"wait")
                began = worker.line("begin wait 1")
                record_property("seconds", round(began - restarted, 2))
                until(lambda: len([1 for _, line in worker.lines if line.startswith("end")]) == 22)
                worker.send(signal.SIGTERM)
                assert worker.ends()[0] == 0
                assert items_left(queue) == []
                assert not re.search(rf"begin \w+ 2|{LOST}", worker.text()), worker.text()
        finally:
            worker.kill()
            end(server)


class TestSignals:
    @pytest.mark.parametrize("handler", ["thread", "loop"])
    def test_the_first_signal_gives_back_at_once_waits_for_the_grace_and_exits_with_0(
        self, queue, work, handler, record_property
    ):
        worker = work(handler, concurrency=1, prefetch=3)
        queue.add(b"sleep 2", b"sleep 0", b"sleep 0")
        worker.line("begin sleep 1")
        until(lambda: items_left(queue) == [])
        signalled = worker.send(signal.SIGTERM)
        until(lambda: items_left(queue) == [(b"sleep 0", 1), (b"sleep 0", 1)])
        record_property("given back", round(time.monotonic() - signalled, 3))
        assert time.monotonic() - signalled < 1.5
        status, ended = worker.ends()
        record_property("ended", round(ended - signalled, 2))
        assert status == 0
        assert "ended" in worker.text()
        assert items_left(queue) == [(b"sleep 0", 1), (b"sleep 0", 1)]

    def test_after_the_grace_the_rest_is_deferred(self, queue, work):
        worker = work("loop", grace=1)
        queue.add(b"await 60")
        worker.line("begin await 1")
        worker.send(signal.SIGTERM)
        worker.line("cancelled False the worker stops")
        assert worker.ends()[0] == 0
        assert items_left(queue) == [(b"await 60", 1)]

    @pytest.mark.parametrize(("handler", "contents"), [("thread", b"never"), ("loop", b"await 60"), ("loop", b"never")])
    def test_a_second_signal_ends_at_once_and_burns_no_attempt(self, queue, work, handler, contents, record_property):
        worker = work(handler, grace=60)
        queue.add(contents)
        worker.line("begin")
        worker.send(signal.SIGTERM)
        worker.line("log SIGTERM")
        signalled = worker.send(signal.SIGTERM)
        assert items_left(queue, 5_000) == [(contents, 1)]
        status, ended = worker.ends()
        record_property("ended", round(ended - signalled, 2))
        assert status == 0
        # A loop that a handler blocks is given three more seconds.
        assert ended - signalled < (6 if (handler, contents) == ("loop", b"never") else 2.5)

    def test_a_signal_after_the_end_ends_a_process_whose_loop_is_blocked(self, queue, work):
        worker = work("loop", grace=60)
        queue.add(b"never")
        worker.line("begin never")
        while worker.process.poll() is None:
            worker.send(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(AGAIN_SECONDS + 0.1)
        assert worker.ends()[0] == 0
        assert items_left(queue) == [(b"never", 1)]
        assert "the process ends" not in worker.text()

    def test_a_signal_reaches_a_worker_whose_loop_is_blocked(self, queue, work):
        worker = work("loop", grace=0, concurrency=1, prefetch=2)
        queue.add(b"never", b"sleep 0")
        worker.line("begin never")
        worker.send(signal.SIGTERM)
        until(lambda: items_left(queue) == [(b"never", 1), (b"sleep 0", 1)])
        assert worker.ends()[0] == 0


def length_for(seconds):
    """Return the length of a text on which the regular expression spends about *seconds*; each letter doubles them."""
    length, began = 16, time.monotonic()
    re.match(r"(a+)+$", "a" * length + "b")
    spent = time.monotonic() - began
    while spent < seconds / 1.5:
        length, spent = length + 1, spent * 2
    return length


class TestHandlers:
    @pytest.mark.parametrize(("handler", "by"), [("thread", "gil"), ("loop", "regex")])
    def test_holding_the_interpreter_lock_for_less_than_the_grace_keeps_the_item(self, queue, work, handler, by):
        """Silence of the server is a second here: it ends the session, whose grace begins, and it attaches again."""
        worker = work(handler)
        queue.add(b"gil 2.5" if by == "gil" else b"regex %d" % length_for(2.5))
        worker.line(f"end {by} 1")
        worker.send(signal.SIGTERM)
        assert worker.ends()[0] == 0
        assert items_left(queue) == []
        assert f"begin {by} 2" not in worker.text()

    @pytest.mark.parametrize("handler", ["thread", "loop"])
    def test_a_child_that_returns_from_the_handler_ends_and_its_parent_goes_on(self, queue, work, handler):
        worker = work(handler)
        queue.add(b"fork", b"child", b"sleep 0")
        worker.line("parent has 1 connections")
        worker.line("child has 0 connections")
        worker.line("a handler has ended in a child process")
        worker.line("end sleep 1")
        worker.line("end child 1")
        worker.send(signal.SIGTERM)
        assert worker.ends()[0] == 0
        assert items_left(queue) == []

    def test_a_handler_that_never_returns_loses_its_item_after_max_runtime(self, queue, work):
        worker = work(max_runtime=1, concurrency=2)
        queue.add(b"never")
        worker.line("begin never 1")
        # Asked to end after a second, given up after five more.
        worker.line("begin never 2", 30)
        assert "is returned, but its handler is still running" in worker.text()

    def test_a_handler_that_blocks_the_loop_loses_its_item_after_the_stall(self, queue, work):
        worker = work("loop", stall=7)
        queue.add(b"never", b"await 0")
        worker.line("begin never 1")
        worker.line("has been blocked for 5 s, in this code")
        other = work("loop", stall=7)
        other.line("begin never 2", 30)
        assert "in work" in worker.text()
        assert "has been blocked for 7 s" in worker.text()
