"""Liveness: the answer, the file, the page and the log."""

import json
import logging
import os
import socket
import struct
import threading
import urllib.error
import urllib.request
import warnings
from types import SimpleNamespace

import pytest

from queueber.client_core.errors import NotConnected
from queueber.errors import InvalidRequest
from queueber.sync.io_thread import IoThread
from queueber.worker import Worker
from queueber.worker.health_page import HealthPage
from queueber.worker.liveness import (
    BUSY_SECONDS,
    FILE_SECONDS,
    NOT_STARTED,
    QUIET_SECONDS,
    LivenessFile,
    Watch,
    health_of,
    judge,
)
from queueber.worker.policy import ENDING_SECONDS
from tests.support.waiting import until
from tests.support.worker_scene import Scene


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


class Taken:
    """A port of another program."""

    def __init__(self):
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.free = self._server.close


@pytest.fixture
def taken():
    made = Taken()
    yield made
    made.free()


def verdict(scene, away_since=None):
    return judge(scene.rules, scene.now, away_since)


class TestJudgement:
    def test_a_worker_gets_on_while_its_polls_are_answered(self):
        scene = Scene()
        assert verdict(scene) == (True, "polling")
        scene.deliver()
        scene.advance(QUIET_SECONDS - 1)
        assert verdict(scene) == (True, "polling")

    def test_a_worker_that_is_connected_and_whose_polls_are_not_answered_does_not(self):
        scene = Scene()
        scene.advance(QUIET_SECONDS)
        assert verdict(scene) == (False, "connected, no poll was answered for 60 s")

    def test_a_worker_without_a_connection_has_a_minute(self):
        scene = Scene()
        begin = scene.now
        scene.advance(QUIET_SECONDS - 1)
        assert verdict(scene, begin) == (True, "not connected for 59 s; the last poll was answered 59 s ago")
        scene.advance(1)
        assert not verdict(scene, begin)[0]

    def test_a_full_worker_that_loses_its_connection_has_a_minute_from_then_on(self):
        scene = Scene(concurrency=1, prefetch=0)
        scene.deliver("a")
        scene.advance(1_000)
        lost = scene.now
        assert verdict(scene, lost)[0]
        scene.advance(QUIET_SECONDS)
        assert verdict(scene, lost) == (False, "not connected for 60 s; the last poll was answered 1060 s ago")

    def test_a_worker_whose_places_are_all_taken_gets_on(self):
        scene = Scene(concurrency=1, prefetch=0)
        scene.deliver("a")
        scene.advance(1_000)
        assert verdict(scene) == (True, "busy: all handlers are running")

    def test_a_worker_whose_handlers_were_all_given_up_does_not(self):
        scene = Scene(concurrency=1, prefetch=0, max_runtime=1)
        scene.deliver("a")
        scene.advance(1 + ENDING_SECONDS)
        assert verdict(scene) == (False, "all handlers are still running although their items were given up")

    def test_a_worker_whose_loop_stands_does_not(self):
        scene = Scene(stall=30)
        scene.deliver("a")
        scene.advance(31)
        assert verdict(scene) == (False, "the event loop has been blocked for 31 s")

    def test_a_worker_that_stops_gets_on(self):
        scene = Scene()
        scene.deliver("a")
        scene.stop()
        scene.advance(5)
        assert verdict(scene) == (True, "stopping")

    def test_the_answer_has_the_counts(self):
        scene = Scene(concurrency=1, prefetch=2)
        scene.deliver("a", "b", "c")
        scene.finish("a")
        health = health_of(scene.rules, scene.now + 2, None)
        assert (health.alive, health.running, health.prefetched, health.settling) == (True, 1, 1, 1)
        assert (health.delivered, health.removed, health.last_poll_seconds) == (3, 0, 2.0)
        assert health.polls == 1


class TestWatch:
    def look(self, watch, scene):
        watch.look(scene.rules, scene.now, None)

    def test_the_log_says_each_minute_that_it_does_not_get_on(self, caplog):
        scene, watch = Scene(), Watch()
        for _ in range(int(QUIET_SECONDS * 2.5)):
            scene.advance(1)
            self.look(watch, scene)
        lines = [each.getMessage() for each in caplog.records]
        assert lines == [
            f"the worker makes no progress: connected, no poll was answered for {seconds} s" for seconds in (60, 120)
        ]

    def test_the_log_says_that_no_handler_ends(self, caplog):
        caplog.set_level(logging.WARNING)
        scene, watch = Scene(concurrency=1, prefetch=0), Watch()
        scene.deliver("a")
        for _ in range(int(BUSY_SECONDS / 10) + 1):
            scene.advance(10)
            self.look(watch, scene)
        assert [each.getMessage() for each in caplog.records] == [
            "all 1 handlers have been running for 600 s; max_runtime would end them"
        ]

    def test_the_file_changes_while_the_worker_gets_on(self, tmp_path):
        path = tmp_path / "alive"
        scene, watch = Scene(), Watch(LivenessFile(path))
        path.unlink()
        self.look(watch, scene)
        assert path.exists()
        path.unlink()
        scene.advance(FILE_SECONDS / 2)
        self.look(watch, scene)
        assert not path.exists()
        scene.advance(FILE_SECONDS)
        self.look(watch, scene)
        assert path.exists()
        path.unlink()
        scene.advance(QUIET_SECONDS)
        self.look(watch, scene)
        assert not path.exists()

    def test_a_file_that_cannot_be_written_later_is_logged(self, tmp_path, caplog):
        folder = tmp_path / "folder"
        folder.mkdir()
        file = LivenessFile(folder / "alive")
        (folder / "alive").unlink()
        folder.rmdir()
        for second in range(int(QUIET_SECONDS) + 1):
            file.touch(float(second))
        (first, second) = caplog.messages
        assert first == second
        assert first.startswith("the liveness file cannot be written")

    def test_a_file_that_cannot_be_written_at_all_is_an_error(self, tmp_path):
        with pytest.raises(InvalidRequest, match=r"liveness_file cannot be written: .*: No such file or directory"):
            LivenessFile(tmp_path / "missing" / "alive")
        with pytest.raises(InvalidRequest, match=r"liveness_file cannot be written: .*: Is a directory"):
            LivenessFile(tmp_path)

    def test_a_file_that_cannot_be_removed_does_not_hold_up_the_end(self, work, tmp_path, caplog):
        path = tmp_path / "alive"
        with work(print, liveness_file=path):
            until(path.exists)
            path.unlink()
            path.mkdir()
        assert "the liveness file cannot be removed" in caplog.text


class TestPage:
    def get(self, address, path="/", method="GET"):
        request = urllib.request.Request("http://%s:%d%s" % (*address, path), method=method)  # noqa: UP031
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as why:
            with why:
                return why.code, why.read()

    def test_the_page_answers_with_the_health(self):
        health = [NOT_STARTED]
        page = HealthPage(lambda: health[0], 0, "127.0.0.1")
        try:
            status, body = self.get(page.address, "/healthz")
            assert (status, json.loads(body)["why"]) == (503, "not started")
            assert self.get(page.address, method="HEAD") == (503, b"")
            assert self.get(page.address, "/secret")[0] == 404
        finally:
            page.close()

    def test_a_port_that_is_taken_is_an_error(self):
        page = HealthPage(lambda: NOT_STARTED, 0, "127.0.0.1")
        try:
            port = page.address[1]
            text = f"http_port {port} of 127.0.0.1 cannot be opened: Address already in use"
            with pytest.raises(InvalidRequest, match=text):
                HealthPage(lambda: NOT_STARTED, port, "127.0.0.1")
        finally:
            page.close()

    def test_a_port_without_a_thread_for_it_is_an_error(self, monkeypatch):
        def fail(_):
            raise RuntimeError("can't start new thread")

        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", fail)
            with pytest.raises(InvalidRequest, match="cannot be opened: can't start new thread"):
                HealthPage(lambda: NOT_STARTED, port, "127.0.0.1")
        HealthPage(lambda: NOT_STARTED, port, "127.0.0.1").close()

    def test_a_host_that_is_not_of_this_machine_is_an_error(self):
        for host in ("203.0.113.1", "a" * 64):
            with pytest.raises(InvalidRequest, match=f"http_port 0 of {host} cannot be opened"):
                HealthPage(lambda: NOT_STARTED, 0, host)

    @pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
    def test_an_address_of_ipv6(self):
        page = HealthPage(lambda: NOT_STARTED, 0, "::1")
        try:
            host, port = page.address
            assert self.get((f"[{host}]", port))[0] == 503
        finally:
            page.close()

    def test_a_probe_that_opens_a_connection_and_resets_it_prints_nothing(self, caplog, capfd):
        """A balancer looks like this whether the port is there."""
        caplog.set_level(logging.DEBUG, "queueber.worker")
        page = HealthPage(lambda: NOT_STARTED, 0, "127.0.0.1")
        try:
            with socket.create_connection(page.address) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            until(lambda: "of the health page is gone" in caplog.text)
        finally:
            page.close()
        assert {each.levelno for each in caplog.records} == {logging.DEBUG}
        assert capfd.readouterr().err == ""

    def test_a_child_process_does_not_keep_the_port(self):
        """A handler may fork, and the child live on."""
        page = HealthPage(lambda: NOT_STARTED, 0, "127.0.0.1")
        ours, theirs = socket.socketpair()
        with ours, theirs:
            with warnings.catch_warnings(action="ignore"):
                child = os.fork()
            if not child:
                ours.close()
                theirs.recv(1)
                os._exit(0)
            try:
                page.close()
                HealthPage(lambda: NOT_STARTED, page.address[1], "127.0.0.1").close()
            finally:
                ours.close()
                os.waitpid(child, 0)

    def test_a_worker_shows_its_health(self, server, add, work, tmp_path):
        path = tmp_path / "alive"
        with work(lambda _: None, http_port=0, liveness_file=path) as worker:
            add(b"a")
            until(lambda: worker.health.removed == 1)
            status, body = self.get(worker.http_address)
            assert (status, json.loads(body)["removed"]) == (200, 1)
            assert worker.last_poll < 30
            assert worker.health.alive
            assert path.exists()
        assert not path.exists()
        assert worker.http_address is None


class TestBegin:
    """The page and the file are there while the worker runs, and not since it was made."""

    def test_a_worker_that_is_made_opens_nothing(self, server, taken, tmp_path):
        """A module that makes one may be imported by any number of processes."""
        path = tmp_path / "alive"
        worker = Worker(server.url("work"), print, http_port=taken.port, liveness_file=path, telemetry=False)
        assert not path.exists()
        text = f"http_port {taken.port} of 127.0.0.1 cannot be opened: Address already in use"
        with pytest.raises(InvalidRequest, match=text):
            worker.run()
        assert not path.exists()
        # It has not run, and may when the port is free.
        taken.free()
        worker.stop()
        worker.run()
        assert worker.health.why == "stopping"

    def test_nothing_is_left_of_a_worker_that_cannot_connect(self, tmp_path, monkeypatch):
        def fail(_):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(IoThread, "start", fail)
        path = tmp_path / "alive"
        worker = Worker("queueber://127.0.0.1:1/work", print, http_port=0, liveness_file=path, telemetry=False)
        with pytest.raises(NotConnected):
            worker.run()
        assert (worker.http_address, path.exists()) == (None, False)

    def test_a_file_that_cannot_be_written_closes_the_page(self, tmp_path):
        worker = Worker("queueber://127.0.0.1:1/work", print, http_port=0, liveness_file=tmp_path, telemetry=False)
        with pytest.raises(InvalidRequest, match="Is a directory"):
            worker.show_health()
        assert worker.http_address is None

    def test_the_working_directory_may_change_before_the_run(self, server, tmp_path, monkeypatch):
        """Daemons do so."""
        monkeypatch.chdir(tmp_path)
        worker = Worker(server.url("work"), print, liveness_file="alive", telemetry=False)
        monkeypatch.chdir("/")
        worker.show_health()
        assert (tmp_path / "alive").exists()
        worker.stop()
        worker.run()
        assert not (tmp_path / "alive").exists()

    def test_each_of_several_processes_has_a_port_and_a_file_of_its_own(self, taken, tmp_path):
        path = tmp_path / "alive"
        worker = Worker("queueber://127.0.0.1:1/work", print, http_port=taken.port - 1, telemetry=False)
        with pytest.raises(InvalidRequest, match=f"http_port {taken.port} of"):
            worker.show_health(1)
        worker = Worker("queueber://127.0.0.1:1/work", print, http_port=65_535, telemetry=False)
        with pytest.raises(InvalidRequest, match="http_port is 65535, and 65537 for process 3; the limit is 65535"):
            worker.show_health(2)
        worker = Worker("queueber://127.0.0.1:1/work", print, http_port=0, liveness_file=path, telemetry=False)
        worker.stop()
        worker.show_health(1)
        assert worker.http_address[1] > 0
        assert [each.name for each in tmp_path.iterdir()] == ["alive.2"]
        worker.run()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("wrong", "text"),
        [
            ({"http_port": 70_000}, "http_port is 70000; it must be a whole number, 0 to 65,535"),
            ({"http_port": "80"}, "http_port is '80'; it must be a whole number"),
            ({"http_port": 0, "http_host": None}, "http_host is None; it must be text"),
            ({"liveness_file": 5}, "liveness_file is 5; it must be a path"),
        ],
    )
    def test_an_argument_that_cannot_be_used_is_refused_at_once(self, wrong, text):
        with pytest.raises(InvalidRequest, match=text):
            Worker("queueber://127.0.0.1:1/work", print, telemetry=False, **wrong)

    def test_a_reactor_does_not_wait_for_a_worker_that_has_not_begun(self, taken):
        worker = Worker("queueber://127.0.0.1:1/work", print, http_port=taken.port, telemetry=False)
        triggers, errors = [], []
        reactor = SimpleNamespace(
            addSystemEventTrigger=lambda *_: triggers.append("of the worker") or "of the worker",
            removeSystemEventTrigger=triggers.remove,
            callFromThread=lambda function, *arguments: function(*arguments),
        )
        worker.start(reactor).addErrback(errors.append)
        assert [each.type for each in errors] == [InvalidRequest]
        assert triggers == []


def test_before_its_start_a_worker_is_not_alive():
    worker = Worker("queueber://127.0.0.1/work", print, telemetry=False)
    assert (worker.health, worker.last_poll, worker.http_address) == (NOT_STARTED, None, None)
