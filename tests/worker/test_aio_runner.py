"""Handlers as tasks of an asyncio loop: each reports its end once, in whatever step it ends."""

import asyncio

import pytest

from queueber.api import PolledItem
from queueber.units import WallMs
from queueber.worker.actions import KeptLease, TakenItem
from queueber.worker.aio_runner import CANCELLED, AioRunner
from queueber.worker.handling import Handling
from queueber.worker.items import WorkItem
from queueber.worker.verdicts import REMOVE

LEASE = KeptLease(b"lease", None, True, 0.0)


class Reports:
    def __init__(self):
        self.ended = []

    def done(self, taken, verdict):
        self.ended.append((taken.id, verdict))


def taken(item_id):
    polled = PolledItem(contents=b"", id=item_id, attempt=1, added_at=WallMs(0))
    return TakenItem(WorkItem("work", LEASE.id, polled), item_id, LEASE)


@pytest.fixture
def reports():
    return Reports()


def run(handler, reports, act, factory=None):
    """Call *act* with the runner of *handler*, and wait until all handlers have ended."""

    async def program():
        asyncio.get_running_loop().set_task_factory(factory)
        act(AioRunner(Handling(handler, cancelled=(CANCELLED,)), reports))
        # The items are started in the next turn.
        await asyncio.sleep(0)
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)

    asyncio.run(program())


async def wait_for_ever(item):
    await asyncio.Event().wait()


def test_a_handler_that_ends_in_its_first_step_reports_its_verdict(reports):
    async def handler(item): ...

    run(handler, reports, lambda runner: runner.start([taken(b"a"), taken(b"b")]))
    assert reports.ended == [(b"a", REMOVE), (b"b", REMOVE)]


def test_a_handler_that_raises_what_closes_a_coroutine_reports_no_verdict(reports):
    async def handler(item):
        raise GeneratorExit

    run(handler, reports, lambda runner: runner.start([taken(b"a")]))
    assert reports.ended == [(b"a", None)]


def test_a_handler_that_is_cancelled_before_its_first_step_reports_no_verdict(reports):
    items = [taken(b"a"), taken(b"b")]

    def act(runner):
        runner.start(items)
        for each in items:
            runner.cancel(each, "the worker stops", lost=False)

    run(wait_for_ever, reports, act)
    assert reports.ended == [(b"a", None), (b"b", None)]
    assert [each.begun for each in items] == [None, None]


def test_a_handler_that_is_cancelled_while_it_waits_reports_no_verdict(reports):
    item = taken(b"a")

    async def handler(_):
        asyncio.get_running_loop().call_soon(lambda: runners[0].cancel(item, "the worker stops", lost=False))
        await asyncio.Event().wait()

    runners = []

    def act(runner):
        runners.append(runner)
        runner.start([item])

    run(handler, reports, act)
    assert reports.ended == [(b"a", None)]


def test_a_handler_that_awaits_nothing_after_its_own_cancellation_reports_its_verdict(reports):
    async def handler(_):
        asyncio.current_task().cancel()

    run(handler, reports, lambda runner: runner.start([taken(b"a")]))
    assert reports.ended == [(b"a", REMOVE)]


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="this Python has no eager tasks")
def test_a_loop_may_take_the_first_step_of_a_task_at_once(reports):
    async def handler(item):
        if item.id == b"a":
            await asyncio.sleep(0)

    run(handler, reports, lambda runner: runner.start([taken(b"a"), taken(b"b")]), asyncio.eager_task_factory)
    assert reports.ended == [(b"b", REMOVE), (b"a", REMOVE)]
