"""The checks of readiness, and the pages."""

import json
import re

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from queueber.server.monitoring.diagnostics import (
    COMMIT_SECONDS_MAX,
    ENGINE_SECONDS,
    Diagnostics,
    not_serving,
    readiness,
)
from queueber.server.monitoring.web import Pages, site


def failed(diagnostics):
    return [check.name for check in readiness(diagnostics) if not check.passed]


def test_a_working_server_is_ready(diagnostics):
    assert failed(diagnostics) == []


def test_a_starting_or_stopping_server_is_not_ready(diagnostics, server):
    assert [(check.name, check.passed, check.says) for check in not_serving("starting")] == [
        ("serving", False, "starting")
    ]
    server.handlers.drain()
    assert failed(diagnostics) == ["serving"]


def test_a_server_with_a_hanging_commit_is_not_ready(diagnostics, server):
    server.connect().add(b"x")
    server.turn()
    server.reactor.advance(COMMIT_SECONDS_MAX)
    assert failed(diagnostics) == []
    server.reactor.advance(0.001)
    assert failed(diagnostics) == ["commits"]
    server.settle()
    assert failed(diagnostics) == []


def test_a_server_without_free_space_is_not_ready(diagnostics):
    diagnostics.disk_shortage = lambda: "99 bytes are free, and 100 are kept in reserve"
    assert failed(diagnostics) == ["disk"]


def test_a_hanging_disk_is_queried_once(diagnostics: Diagnostics, server):
    first, second = [], []
    diagnostics.disk().addCallback(first.append)
    diagnostics.disk().addCallback(second.append)
    assert second == [None], "a second call after one that hangs would take the next thread"
    assert len(server.pool.jobs) == 1
    server.reactor.advance(ENGINE_SECONDS)
    assert first == [None]
    server.pool.step()
    third = []
    diagnostics.disk().addCallback(third.append)
    server.pool.step()
    assert third[0].properties["write_stopped"] > 0


def test_a_failing_disk_has_no_figures(diagnostics: Diagnostics, server):
    diagnostics.store.properties = lambda: 1 / 0
    found = []
    diagnostics.disk().addCallback(found.append)
    server.pool.step()
    assert found == [None]
    assert server.reactor.getDelayedCalls() == []


class Visitor:
    """A connection to the pages."""

    def __init__(self, pages):
        self.protocol = site(pages, 100).buildProtocol(None)
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)

    def get(self, path, *headers, method="GET", body=""):
        lines = [f"{method} {path} HTTP/1.1", "Host: here", "Connection: close", *headers]
        self.protocol.dataReceived("\r\n".join([*lines, "", body]).encode())
        head, _, content = self.transport.value().decode().partition("\r\n\r\n")
        return int(head.split()[1]) if head else None, head, content


@pytest.fixture
def pages(diagnostics):
    return Pages("fsync", lambda: "", lambda: diagnostics)


@pytest.fixture
def starting_pages():
    """The pages of a server that does not serve yet."""
    return Pages("fsync", lambda: "starting: reading leases, 70,000 so far", lambda: None)


def test_a_server_that_answers_is_alive(starting_pages):
    assert Visitor(starting_pages).get("/livez")[::2] == (200, "ok\n")


def test_readyz_gives_the_reason(pages, server):
    status, _, content = Visitor(pages).get("/readyz")
    assert (status, content.splitlines()[0]) == (200, "ready")
    server.handlers.drain()
    status, _, content = Visitor(pages).get("/readyz")
    assert (status, content.splitlines()[:2]) == (503, ["not ready", "NOT OK  serving: stopping"])


def test_readyz_as_json(pages, server):
    server.handlers.drain()
    status, _, content = Visitor(pages).get("/readyz", "Accept: application/json")
    found = json.loads(content)
    assert (status, found["ready"], found["checks"]["serving"]["passed"]) == (503, False, False)


def test_metrics_wait_for_the_disk(pages, server):
    visitor = Visitor(pages)
    assert visitor.get("/metrics")[0] is None
    server.pool.step()
    head, _, content = visitor.transport.value().decode().partition("\r\n\r\n")
    assert "200 OK" in head
    assert "queueber_disk_free_bytes" in content


def test_metrics_are_served_without_a_hanging_disk(pages, server):
    visitor = Visitor(pages)
    visitor.get("/metrics")
    server.reactor.advance(ENGINE_SECONDS)
    content = visitor.transport.value().decode()
    assert "queueber_queues" in content
    assert "queueber_disk_free_bytes" not in content
    server.pool.step()


def test_a_client_may_disconnect_before_the_metrics_are_ready(pages, server):
    visitor = Visitor(pages)
    visitor.get("/metrics")
    visitor.protocol.connectionLost(Failure(ConnectionDone()))
    server.pool.step()
    assert visitor.transport.value() == b""


def test_a_starting_server_has_metrics_and_is_not_ready(starting_pages):
    """A start of minutes must not raise the alert for a server that is down."""
    status, head, content = Visitor(starting_pages).get("/metrics")
    assert status == 200
    assert "Content-Type: text/plain; version=" in head
    assert 'queueber_ready{check="serving"} 0.0' in content
    assert re.search(r'^queueber_info\{(version="[^"]+"|durability="fsync"|,)+\} 1\.0$', content, re.MULTILINE)
    assert "process_resident_memory_bytes" in content
    status, _, content = Visitor(starting_pages).get("/readyz")
    said = "not ready\nNOT OK  serving: starting: reading leases, 70,000 so far\n"
    assert (status, content) == (503, said)


def test_each_check_shows_its_figures(pages, diagnostics, server):
    assert Visitor(pages).get("/readyz")[2] == (
        "ready\nok  serving: serving\nok  commits: none is under way\nok  disk: room for adds\n"
    )
    server.connect().add(b"x")
    server.turn()
    server.reactor.advance(COMMIT_SECONDS_MAX + 2)
    diagnostics.disk_shortage = lambda: "99 bytes are free, and 100 are kept in reserve"
    assert Visitor(pages).get("/readyz")[2].splitlines()[2:] == [
        "NOT OK  commits: one has been under way for 12.0 s, and a working disk takes less than 10",
        "NOT OK  disk: adds are refused: 99 bytes are free, and 100 are kept in reserve",
    ]
    server.settle()


def test_a_failure_is_reported_without_its_reason(pages, diagnostics, server, logged_failures):
    diagnostics.collector.collect = lambda: 1 / 0
    visitor = Visitor(pages)
    visitor.get("/metrics")
    head, _, content = visitor.transport.value().decode().partition("\r\n\r\n")
    assert "500" in head
    assert "ZeroDivisionError" not in content
    assert logged_failures == [ZeroDivisionError]
    server.reactor.advance(ENGINE_SECONDS)
    server.pool.step()


@pytest.fixture
def logged_failures():
    seen = []

    def observe(event):
        if "log_failure" in event:
            seen.append(event["log_failure"].type)

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("GET", "/", (), "", 404),
        ("GET", "/metrics/..", (), "", 404),
        ("POST", "/livez", ("Content-Length: 0",), "", 405),
        ("DELETE", "/livez", (), "", 405),
        ("POST", "/livez", ("Content-Length: 1000000000",), "x", 413),
        ("GET", "/livez", ("Transfer-Encoding: chunked",), "", 413),
    ],
)
def test_other_requests_are_refused(pages, method, path, headers, body, status):
    assert Visitor(pages).get(path, *headers, method=method, body=body)[0] == status


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/other"])
def test_no_page_may_be_cached(starting_pages, path):
    assert "cache-control: no-store" in Visitor(starting_pages).get(path)[1].lower()


def test_head_has_no_content(pages):
    status, head, content = Visitor(pages).get("/livez", method="HEAD")
    assert (status, content) == (200, "")
    assert "Content-Length: 3" in head


def test_connections_above_the_limit_are_closed(pages):
    factory = site(pages, 100)
    open_now = [factory.buildProtocol(None) for _ in range(100)]
    for protocol in open_now:
        protocol.makeConnection(StringTransport())
    assert factory.buildProtocol(None) is None
    open_now[0].connectionLost(Failure(ConnectionDone()))
    assert factory.buildProtocol(None) is not None
