"""Notifications to the supervisor, and the progress of a long start."""

import socket

import pytest
from twisted.internet.task import Clock

from queueber.server.app.sd_notify import REPORT_SECONDS, Notifier, StartupProgress


@pytest.fixture
def supervisor(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.setblocking(False)
        yield bound


def received(supervisor):
    messages = []
    try:
        while True:
            messages.append(supervisor.recv(4096).decode())
    except BlockingIOError:
        return messages


def test_the_progress_is_reported_every_few_seconds(supervisor):
    clock = Clock()
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": supervisor.getsockname()})
    progress = StartupProgress(clock, notifier)
    progress.begin()
    progress.at(iter(["reading leases, 0 so far", "reading leases, 70,000 so far"]).__next__)
    clock.advance(REPORT_SECONDS)
    assert received(supervisor) == [
        "STATUS=reading leases, 0 so far",
        "STATUS=reading leases, 70,000 so far\nEXTEND_TIMEOUT_USEC=60000000",
    ]
    progress.end()
    clock.advance(REPORT_SECONDS)
    assert received(supervisor) == []


def test_a_missing_supervisor_is_not_an_error(tmp_path):
    Notifier.from_environment({}).ready("Serving")
    Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "missing")}).ready("Serving")


def test_the_socket_may_be_in_the_abstract_namespace():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind("\0queueber-test-notify")
        Notifier.from_environment({"NOTIFY_SOCKET": "@queueber-test-notify"}).stopping()
        assert bound.recv(100) == b"STOPPING=1\nSTATUS=Stopping"


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [({"WATCHDOG_USEC": "2000000"}, 2), ({}, None), ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None)],
)
def test_the_watchdog_timeout_is_for_this_process(environment, seconds):
    assert Notifier.from_environment(environment).watchdog_seconds == seconds
