"""Liveness: the answer, the file, the page and the log."""

import json
import logging
import urllib.error
import urllib.request

import pytest

from queueber.errors import InvalidRequest
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
from tests.support.worker_scene import Scene
from tests.worker.conftest import until


def verdict(scene, *, connected=True):
    return judge(scene.engine, scene.now, connected=connected)


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
        assert verdict(scene) == (False, "connected, but no poll was answered for 60 s")

    def test_a_worker_without_a_connection_has_a_minute(self):
        scene = Scene()
        scene.advance(QUIET_SECONDS - 1)
        assert verdict(scene, connected=False) == (True, "not connected; the last poll was answered 59 s ago")
        scene.advance(1)
        assert not verdict(scene, connected=False)[0]

    def test_a_worker_whose_places_are_all_taken_gets_on(self):
        scene = Scene(concurrency=1, prefetch=0)
        scene.deliver("a")
        scene.advance(1_000)
        assert verdict(scene) == (True, "busy: all places are taken")

    def test_a_worker_whose_handlers_were_all_given_up_does_not(self):
        scene = Scene(concurrency=1, prefetch=0, max_runtime=1)
        scene.deliver("a")
        scene.advance(1 + ENDING_SECONDS)
        assert verdict(scene) == (False, "all handlers run on without their items: none has ended in its time")

    def test_a_worker_whose_loop_stands_does_not(self):
        scene = Scene(stall=30)
        scene.deliver("a")
        scene.advance(31)
        assert verdict(scene) == (False, "the event loop has not turned for 31 s")

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
        health = health_of(scene.engine, scene.now + 2, connected=True)
        assert (health.alive, health.running, health.prefetched, health.settling) == (True, 1, 1, 1)
        assert (health.delivered, health.removed, health.last_poll_seconds) == (3, 0, 2.0)
        assert health.polls == 1


class TestWatch:
    def look(self, watch, scene, *, connected=True):
        watch.look(scene.engine, scene.now, connected=connected)

    def test_the_log_says_each_minute_that_it_does_not_get_on(self, caplog):
        scene, watch = Scene(), Watch()
        for _ in range(int(QUIET_SECONDS * 2.5)):
            scene.advance(1)
            self.look(watch, scene)
        lines = [each.getMessage() for each in caplog.records]
        assert lines == [
            f"the worker does not get on: connected, but no poll was answered for {seconds} s" for seconds in (60, 120)
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
        watch.close()

    def test_a_file_that_cannot_be_written_later_is_logged(self, tmp_path, caplog):
        folder = tmp_path / "folder"
        folder.mkdir()
        file = LivenessFile(folder / "alive")
        (folder / "alive").unlink()
        folder.rmdir()
        file.got_on(0.0)
        assert "the liveness file cannot be written" in caplog.text

    def test_a_file_that_cannot_be_written_at_all_is_an_error(self, tmp_path):
        with pytest.raises(InvalidRequest, match=r"liveness_file cannot be written: .*: No such file or directory"):
            LivenessFile(tmp_path / "missing" / "alive")


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
            with pytest.raises(InvalidRequest, match=r"http_port .* cannot be listened on: .*Address already in use"):
                HealthPage(lambda: NOT_STARTED, page.address[1], "127.0.0.1")
        finally:
            page.close()

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


def test_before_its_start_a_worker_is_not_alive():
    worker = Worker("queueber://127.0.0.1/work", print, telemetry=False)
    assert (worker.health, worker.last_poll, worker.http_address) == (NOT_STARTED, None, None)
