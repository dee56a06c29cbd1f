"""A stop that the disk does not let come to its end."""

from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from queueber.broker import StoreStalled
from queueber.server.draining import Drain
from queueber.server.notify import Notifier
from queueber.server.service import QueueberService


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def committer():
    idle = Deferred()
    return SimpleNamespace(stalled=True, idle=lambda: idle, done=idle)


@pytest.fixture
def settled(clock, committer):
    drain = Drain(clock, 10, Notifier.from_environment({}))
    return ensureDeferred(drain._settled(SimpleNamespace(committer=committer)))


def test_a_store_that_takes_nothing_is_not_waited_for_for_ever(clock, settled):
    clock.pump([0.01] * 900)
    assert not settled.called
    clock.pump([0.01] * 200)
    with pytest.raises(StoreStalled, match="has to catch up first, and does not"):
        raise settled.result.value


def test_a_slow_disk_is(clock, committer, settled):
    committer.stalled = False
    clock.pump([0.01] * 3_000)
    assert not settled.called
    committer.done.callback(None)
    clock.advance(0.01)
    assert settled.called
    assert settled.result is None


def test_a_start_that_is_reading_the_store_is_told_to_give_up():
    given_up = []

    async def stopped():
        given_up.append("then stopped")

    service = QueueberService.__new__(QueueberService)
    service._notifier = SimpleNamespace(stopping=lambda: None)
    service._put_back = []
    service._recovering = SimpleNamespace(give_up=lambda: given_up.append("given up"))
    service._stop = stopped
    assert service.stopService().called
    assert given_up == ["given up", "then stopped"]
