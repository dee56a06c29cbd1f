"""The command with a queue that records calls in place of a server."""

import pytest
from attrs import define, field
from click.testing import CliRunner
from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed

from queueber.cli.__main__ import queueber
from queueber.client import Batch
from tests.support.server_process import Server


@define
class FakeQueue:
    """A queue that records each call as ``(method, …)`` and returns or raises the value in *answers*."""

    answers: dict = field(
        factory=lambda: {"add": [], "poll": Batch((), b"", 0), "remove": True, "extend": True},
    )
    calls: list = field(factory=list)
    timeouts: list = field(factory=list)

    def _answer(self, method, *call, timeout_ms) -> Deferred:
        self.calls.append((method, *call))
        self.timeouts.append(timeout_ms)
        answer = self.answers[method]
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)

    def add(self, *contents, delay_ms, timeout_ms=None):
        return self._answer("add", contents, delay_ms, timeout_ms=timeout_ms)

    def poll(self, n, *, lease_ms, wait_ms, timeout_ms=None):
        return self._answer("poll", n, lease_ms, wait_ms, timeout_ms=timeout_ms)

    def remove(self, item_id, lease, *, timeout_ms=None):
        return self._answer("remove", item_id, lease, timeout_ms=timeout_ms)

    def extend(self, lease, lease_ms, *, timeout_ms=None):
        return self._answer("extend", lease, lease_ms, timeout_ms=timeout_ms)


@define
class Shell:
    """Run the command as a shell does, with a `FakeQueue` in place of a server."""

    default: FakeQueue = field(factory=FakeQueue)
    addresses: list = field(factory=list)
    seconds: list = field(factory=list)
    tls: list = field(factory=list)
    names: list = field(factory=list)

    def queue(self, name):
        self.names.append(name)
        return self.default

    def _run(self, address, work, tls=None, seconds=None):
        self.addresses.append(address)
        self.seconds.append(seconds)
        self.tls.append(tls)
        results = []
        ensureDeferred(work(self)).addBoth(results.append)
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]

    def __call__(self, *arguments, stdin=b"", environment=None):
        return CliRunner(env=environment).invoke(queueber, arguments, input=stdin, obj=self._run)

    @property
    def calls(self):
        return self.default.calls


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real server, with its control socket."""
    with Server(tmp_path_factory.mktemp("server") / "data") as server:
        server.control()
        yield server


@pytest.fixture
def shell():
    return Shell()
