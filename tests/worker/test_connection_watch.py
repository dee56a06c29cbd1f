"""The watch over a worker's connection, over the link of a client and without a socket."""

from types import SimpleNamespace

import pytest

from queueber.client_core.reconnect import Link
from queueber.worker.connection_watch import ABSENT_SECONDS, AWAY_SECONDS, ConnectionWatch
from queueber.worker.queues import resolve


class Scene:
    """A worker's connection, whose clock and peer the test is."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("queueber.worker.connection_watch.monotonic", lambda: self.now)
        self.link = Link(limits=None, attempts=None, address="h:1", retry_policy=lambda _: 1.0, clock=lambda: self.now)
        source = resolve("queueber://h:1/work", None, strict=False).source
        self.watch = ConnectionWatch(SimpleNamespace(link=self.link), source, on_refused=pytest.fail)
        self.link.users.append(self)
        self.watch.lost()

    def on_connected(self, _):
        self.watch.connected()

    def on_disconnected(self):
        self.watch.lost()

    def connect(self):
        connection = self.link.connected()
        self.link.dispatch()
        connection.data_to_send()
        return connection

    def tick(self, seconds=1):
        self.now += seconds
        self.watch.tick(self.now)


def test_connections_that_end_before_the_server_answers_are_none_and_logged(monkeypatch, caplog):
    scene = Scene(monkeypatch)
    for _ in range(int(AWAY_SECONDS + ABSENT_SECONDS)):
        scene.connect().end("the server closed it")
        scene.tick()
    assert scene.watch.away_since == 0
    assert [each.getMessage() for each in caplog.records] == ["there is no connection: the server closed it"] * 2


def test_the_log_names_no_reason_while_there_is_a_connection(monkeypatch, caplog):
    scene = Scene(monkeypatch)
    scene.connect().end("the server closed it")
    scene.connect()
    scene.tick(AWAY_SECONDS)
    assert scene.watch.away_since is None
    assert not caplog.records


def test_a_worker_that_was_served_is_away_since_the_end_of_that_connection(monkeypatch):
    scene = Scene(monkeypatch)
    connection = scene.connect()
    scene.watch.served()
    scene.tick(100)
    connection.end("the server closed it")
    assert scene.watch.away_since == 100


def test_after_the_end_of_the_worker_nothing_is_logged_or_asked(monkeypatch, caplog):
    caplog.set_level("INFO")
    scene = Scene(monkeypatch)
    scene.watch.end()
    # Its last settlements may wait for this connection.
    connection = scene.connect()
    scene.watch.served()
    connection.end("the server closed it")
    scene.tick(AWAY_SECONDS)
    assert caplog.text == ""
