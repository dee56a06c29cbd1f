"""Schedulers in a thread, a loop and a reactor: each firing is added once, errors of the server delay it."""

import asyncio
import logging
import threading

import pytest
from twisted.internet.task import Clock

from queueber.client_core.errors import NotConnected
from queueber.errors import InvalidRequest, Overloaded
from queueber.tasks import Tasks
from queueber.tasks.scheduler import ADD_TIMEOUT_MS, system_clock
from tests.tasks.stand_ins import Adds, AioAdds, TxAdds, app_with_adds

HOUR = 3_600
START = 1_000_000 * HOUR // 1_000


@pytest.fixture
def app():
    app, _ = app_with_adds()

    @app.task(every=60, queue="upkeep")
    def tidy() -> None: ...

    return app


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(START)
    return clock


def dues(adds):
    return [item.options.due / 1_000 - START for _, item in adds.added]


def test_firings_are_added_on_twisted_as_the_clock_moves(app, clock):
    adds = TxAdds()
    app.connections.use(twisted=adds)
    scheduler = app.scheduler(clock=clock.seconds)
    ended = scheduler.start(clock)
    assert dues(adds) == [0, 60]
    for _ in range(4):
        clock.advance(30)
    assert dues(adds) == [0, 60, 120, 180]
    queue, item = adds.added[0]
    assert (queue, item.contents) == ("upkeep", b'{"args":[],"kwargs":{}}')
    assert item.options.dedup_key == f"tidy@{START * 1_000}".encode()
    assert dict(item.options.headers)["task"] == b"tidy"
    assert adds.calls[0] == ADD_TIMEOUT_MS
    assert not ended.called
    scheduler.stop()
    assert ended.called
    assert clock.getDelayedCalls() == []


def test_two_schedulers_add_each_firing_once(app, clock):
    adds = TxAdds()
    app.connections.use(twisted=adds)
    schedulers = [app.scheduler(clock=clock.seconds) for _ in range(2)]
    for each in schedulers:
        each.start(clock)
    for _ in range(10):
        clock.advance(30)
    assert dues(adds) == [0, 60, 120, 180, 240, 300, 360]
    assert len(adds.calls) == 14
    for each in schedulers:
        each.stop()


def test_a_server_that_is_away_delays_the_firings_and_is_logged(app, clock, caplog):
    adds = TxAdds()
    app.connections.use(twisted=adds)
    adds.errors = [NotConnected("cannot connect")] * 3
    scheduler = app.scheduler(clock=clock.seconds)
    scheduler.start(clock)
    for _ in range(3):
        assert adds.added == []
        clock.advance(5)
    assert dues(adds) == [0, 60]
    assert [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING] == [
        "not added yet: tidy at 1970-02-11T16:00:00+00:00: cannot connect"
    ] * 3
    scheduler.stop()


def test_a_firing_that_is_too_late_is_an_error_in_the_log(app, clock, caplog, monkeypatch):
    # As `logging.config.dictConfig` of the program does by default.
    monkeypatch.setattr(logging.getLogger("queueber.tasks"), "disabled", True)
    adds = TxAdds()
    app.connections.use(twisted=adds)
    adds.errors = [NotConnected("cannot connect")] * 200
    scheduler = app.scheduler(clock=clock.seconds, ahead=0, catch_up=20)
    scheduler.start(clock)
    for _ in range(5):
        clock.advance(5)
    assert [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR] == [
        "missed: tidy at 1970-02-11T16:00:00+00:00: it could not be added in time"
    ]
    scheduler.stop()


def test_firings_are_added_on_asyncio_until_it_is_stopped(app):
    class Noted(AioAdds):
        async def answer(self, *args, **kwargs):
            if self.added:
                self.second.set()
            return await super().answer(*args, **kwargs)

    adds = Noted()

    async def main():
        adds.second = asyncio.Event()
        app.connections.use(aio=adds)
        scheduler = app.scheduler(clock=lambda: START)
        running = asyncio.create_task(scheduler.run_async())
        await adds.second.wait()
        scheduler.stop()
        await running

    asyncio.run(main())
    assert dues(adds) == [0, 60]


def test_firings_are_added_in_a_thread_of_their_own(app):
    added = threading.Event()

    class Noted(Adds):
        def answer(self, *args, **kwargs):
            added.set()
            return super().answer(*args, **kwargs)

    adds = Noted()
    app.connections.use(sync=adds)
    with app.scheduler(clock=lambda: START):
        assert added.wait(60)
    assert dues(adds)[:1] == [0]


def test_a_scheduler_that_was_stopped_before_ends_at_once(app):
    scheduler = app.scheduler(clock=lambda: START)
    scheduler.stop()
    scheduler.run()


@pytest.mark.parametrize("window", [65 * 60_000 - 1, 65 * 60_000])
def test_a_long_catch_up_needs_a_queue_that_remembers(app, clock, window):
    app.connections.use(twisted=TxAdds(window))
    scheduler = app.scheduler(clock=clock.seconds, catch_up=HOUR)
    started = scheduler.start(clock)
    scheduler.stop()
    found = []
    started.addErrback(lambda failure: found.append((failure.type, failure.getErrorMessage())))
    enough = window == 65 * 60_000
    assert bool(found) != enough
    assert enough or found[0][0] is InvalidRequest
    assert enough or found[0][1].startswith("the queue upkeep has a dedup_window_ms of 3,899,999; a scheduler with")


def test_the_check_of_the_window_waits_for_the_server(app, clock, caplog):
    adds = TxAdds(65 * 60_000)
    answers = [NotConnected("cannot connect"), Overloaded("full"), None]

    def settings(queue):
        if (error := answers.pop(0)) is not None:
            raise error
        return Adds.control(adds, queue)

    adds.control = settings
    app.connections.use(twisted=adds)
    scheduler = app.scheduler(clock=clock.seconds, catch_up=HOUR)
    scheduler.start(clock)
    clock.pump([5, 5])
    assert dues(adds) == [0, 60]
    assert [each.getMessage() for each in caplog.records] == [
        "the settings of upkeep are not known yet: cannot connect",
        "the settings of upkeep are not known yet: full",
    ]
    scheduler.stop()


def test_a_firing_that_is_refused_does_not_hold_up_others(app, clock):
    adds = TxAdds()
    app.connections.use(twisted=adds)
    adds.errors = [Overloaded("full"), None]
    scheduler = app.scheduler(clock=clock.seconds)
    scheduler.start(clock)
    assert dues(adds) == [60]
    clock.advance(5)
    assert dues(adds) == [60, 0]
    scheduler.stop()


def test_a_scheduler_in_a_thread_that_cannot_go_on_says_so_in_the_log(app, caplog):
    app.connections.use(sync=Adds(window=0))
    logged = threading.Event()
    caplog.handler.addFilter(lambda _: logged.set() or True)
    with app.scheduler(catch_up=HOUR):
        assert logged.wait(60)
    assert [each.getMessage()[:60] for each in caplog.records] == [
        "the scheduler has ended: the queue upkeep has a dedup_window"
    ]


def test_the_check_of_the_window_on_the_other_faces(app):
    app.connections.use(sync=Adds(window=0))
    with pytest.raises(InvalidRequest, match="dedup_window_ms of 0"):
        app.scheduler(catch_up=HOUR).run()

    async def main():
        app.connections.use(aio=AioAdds(window=0))
        with pytest.raises(InvalidRequest, match="dedup_window_ms of 0"):
            await app.scheduler(catch_up=HOUR).run_async()

    asyncio.run(main())


def test_a_scheduler_without_periodic_tasks_is_a_mistake():
    with pytest.raises(InvalidRequest, match="there are no periodic tasks: no task has every or cron"):
        Tasks("queueber://127.0.0.1:9090").scheduler()


def test_the_systems_clock_is_the_default(app):
    scheduler = app.scheduler()
    assert system_clock() > 1.7e9
    assert scheduler.schedule.ahead == 60_000
