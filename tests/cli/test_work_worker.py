"""The exit status of one worker process, without a process."""

import asyncio
from types import SimpleNamespace

import pytest

from queueber.cli.work_channel import REFUSED
from queueber.cli.work_supervisor import EXIT_ERROR, EXIT_REFUSED
from queueber.cli.work_worker import _run
from queueber.errors import InvalidRequest
from queueber.sync.io_thread import IoThread
from queueber.worker import Worker
from queueber.worker.keeper import Keeper


class Supervisor:
    """The worker's end of a channel, which keeps what is sent."""

    def __init__(self):
        self.sent = []

    def send(self, *words):
        self.sent.append(words)


def run(worker, supervisor):
    """Run *worker*; return the status, with which the guard was armed, too."""
    armed, ended = [], []
    stopper = SimpleNamespace(forced=False, worker_ended=lambda: ended.append(None))
    guard = SimpleNamespace(arm=lambda status, **_: armed.append(status))
    status = asyncio.run(_run(worker, None, supervisor, stopper, guard))
    assert ended == [None]
    assert armed == [status]
    return status


@pytest.fixture(params=[False, True], ids=["alone", "supervised"])
def supervisor(request):
    return Supervisor() if request.param else None


def test_a_thread_that_cannot_be_started_is_no_refusal(monkeypatch, capsys, supervisor):
    """The command may be started again."""

    def fail(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(IoThread, "start", fail)
    assert run(Worker("queueber://127.0.0.1:1/work", print), supervisor) == EXIT_ERROR
    assert capsys.readouterr().err == "queueber: the call was not sent: can't start new thread\n"
    assert supervisor is None or supervisor.sent == []


def test_a_refusal_has_a_status_of_its_own(monkeypatch, capsys, supervisor):
    worker = Worker("queueber://127.0.0.1:1/work", print)
    assert not worker.refused
    start = Keeper.start

    def refuse(keeper, runner):
        keeper.rules.refused(InvalidRequest("lease is 8 d"), 0)
        start(keeper, runner)

    monkeypatch.setattr(Keeper, "start", refuse)
    assert run(worker, supervisor) == EXIT_REFUSED
    assert worker.refused
    if supervisor is None:
        assert capsys.readouterr().err == "queueber: lease is 8 d\n"
    else:
        assert supervisor.sent == [(REFUSED, "lease is 8 d")]
