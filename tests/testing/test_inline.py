"""Tasks that run when they are added."""

import asyncio
from datetime import date

import pytest
from twisted.internet.defer import Deferred

from queueber.client import new_item
from queueber.errors import InvalidRequest
from queueber.tasks import Next, Tasks, current_item
from queueber.testing import inline
from queueber.values import Action, AddTo
from queueber.worker import Done, Reject


@pytest.fixture
def app():
    return Tasks("queueber://queue.invalid:9090/mail")


def test_a_call_runs_when_it_is_added(app):
    seen = []

    @app.task(queue="reports")
    def report(day: date, of: str = "all") -> None:
        seen.append((day, of, current_item().attempt, current_item().queue))

    with inline(app) as runs:
        added = report.options(delay=3_600).add(date(2026, 1, 1))
        report.add(day=date(2026, 1, 2), of="one")
    assert seen == [(date(2026, 1, 1), "all", 1, "reports"), (date(2026, 1, 2), "one", 1, "reports")]
    assert (added.id, added.queue) == (runs[0].item.id, "reports")
    assert [run.verdict.action for run in runs] == [Action.REMOVE] * 2
    assert app.connections.instead is None


def test_arguments_that_cannot_be_encoded_are_refused_as_ever(app):
    @app.task
    def note(what: object) -> None: ...

    with inline(app) as runs, pytest.raises(InvalidRequest):
        note.add(object())
    assert runs == []


@pytest.mark.parametrize("options", [{}, {"max_attempts": 1}, {"backoff": 5}])
def test_an_exception_is_raised_by_the_add(app, options):
    @app.task(**options)
    def fail() -> None:
        raise LookupError("no such address")

    with inline(app) as runs, pytest.raises(LookupError, match="no such address"):
        fail.add()
    (run,) = runs
    assert isinstance(run.error, LookupError)
    assert run.verdict.action is (Action.REJECT if "max_attempts" in options else Action.FAIL)


def test_an_exception_of_a_coroutine_is_noted_too(app):
    @app.task
    async def fail() -> None:
        raise LookupError("no such address")

    with inline(app) as runs, pytest.raises(LookupError):
        asyncio.run(fail.aio.add())
    assert [(run.verdict.action, type(run.error)) for run in runs] == [(Action.FAIL, LookupError)]


@pytest.mark.parametrize("headers", [{}, {"task": b"of another app"}])
def test_items_for_others_are_not_run(app, headers):
    mail = AddTo("mail", [new_item(b"hello", headers=headers)])

    @app.task
    def send() -> Done:
        return Done([mail])

    with inline(app) as runs:
        send.add()
    assert [run.verdict.adds for run in runs] == [(mail,)]


def test_a_rejection_is_raised_too(app):
    @app.task
    def refuse() -> None:
        raise Reject("never")

    with inline(app) as runs, pytest.raises(Reject, match="never"):
        refuse.add()
    assert [run.verdict.action for run in runs] == [Action.REJECT]


def test_steps_run_after_their_task(app):
    order = []

    @app.task
    def first(number: int) -> object:
        order.append(("first", number))
        second.add(0)
        return [Next(second, number), Next(second, number + 1)]

    @app.task
    def second(number: int) -> None:
        order.append(("second", number))

    with inline(app) as runs:
        first.add(5)
    assert order == [("first", 5), ("second", 0), ("second", 5), ("second", 6)]
    assert len(runs) == 4


def test_coroutine_functions_run_on_every_face(app):
    loops = []

    @app.task
    async def first() -> Next:
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        return Next(second)

    @app.task
    def second() -> None: ...

    async def main():
        await first.aio.add()
        assert loops[-1] is asyncio.get_running_loop()
        second.add()
        with pytest.raises(RuntimeError, match=r"await its aio\.add"):
            first.add()

    with inline(app) as runs:
        first.add()
        asyncio.run(main())
    assert len(runs) == 5


def test_the_loop_of_the_thread_stays(app):
    @app.task
    async def wait() -> None: ...

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        with inline(app):
            wait.add()
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_twisted_gets_a_deferred(app):
    waiting = Deferred()

    @app.task
    async def wait() -> None:
        await waiting

    with inline(app) as runs:
        done = wait.tx.add()
        assert runs == []
        waiting.callback(None)
    assert done.result.queue == "mail"
    assert len(runs) == 1


def test_many_calls_run_one_after_the_other_on_every_face(app):
    seen = []

    @app.task
    def note(number: int) -> None:
        seen.append(number)

    with inline(app) as runs:
        found = app.add_many(note.call(number) for number in range(2))
        found += asyncio.run(app.aio.add_many([note.call(2)]))
        found += app.tx.add_many([note.call(3), note.call(4)]).result
    assert seen == [0, 1, 2, 3, 4]
    assert [each.id for each in found] == [run.item.id for run in runs]


def test_the_error_of_one_of_many_calls_is_that_of_its_task(app):
    @app.task
    def broken() -> None:
        raise LookupError("no such address")

    errors = []
    with inline(app):
        app.tx.add_many([broken.call()]).addErrback(lambda failure: errors.append(failure.type))
    assert errors == [LookupError]
