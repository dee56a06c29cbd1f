"""Running the items that tasks have added: attempts, waits, hand-offs, and items that no attempt can run."""

import asyncio
import inspect
import json
import threading
from datetime import date

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.threads import deferToThread

from queueber.tasks import Backoff, Next, current_item
from queueber.values import Action, id_text
from queueber.worker.verdicts import Decision, Defer, Done, Fail, Reject
from tests.tasks.stand_ins import app_with_adds, delivered, item_id, verdict
from tests.tasks.test_task import Shouted


def item_of(task, *args, **kwargs):
    return task.prepare(args, kwargs).item


@pytest.fixture
def app():
    return app_with_adds()[0]


def test_arguments_arrive_with_their_types_and_the_item_is_removed(app):
    seen = []

    @app.task
    def note(day: date, *more: int, **named: date) -> int:
        seen.append((day, more, named))
        return 5

    day = date(2026, 1, 1)
    assert verdict(app, delivered(item_of(note, day, 1, 2, other=day))).action is Action.REMOVE
    assert seen == [(day, (1, 2), {"other": day})]


def test_a_plain_app_has_a_plain_handler_and_one_with_coroutines_a_coroutine(app):
    where = []

    @app.task
    def plain() -> None:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        where.append(current_item().attempt)

    assert not inspect.iscoroutinefunction(app.handler)

    @app.task
    async def waiting() -> None:
        await asyncio.sleep(0)
        where.append(current_item().attempt)

    assert inspect.iscoroutinefunction(app.handler)
    assert verdict(app, delivered(item_of(plain), attempt=2)).action is Action.REMOVE
    assert verdict(app, delivered(item_of(waiting), attempt=3)).action is Action.REMOVE
    assert where == [2, 3]
    with pytest.raises(LookupError, match="no item: this code was not called by a worker"):
        current_item()


def test_an_exception_fails_the_item_with_its_text_after_the_queues_backoff(app):
    @app.task
    def broken() -> None:
        raise ValueError("no picture")

    found = verdict(app, delivered(item_of(broken), attempt=100))
    assert (found.action, found.delay) == (Action.FAIL, None)
    assert found.error.startswith("ValueError: no picture")


def test_a_failure_without_rules_of_the_task_reaches_the_worker_as_it_is(app):
    @app.task(max_attempts=2)
    def broken() -> None:
        raise ValueError("no picture")

    with pytest.raises(ValueError, match="no picture"):
        app.handler(delivered(item_of(broken)))


@pytest.mark.parametrize("attempt", [1, 2])
def test_the_traceback_of_a_failure_that_becomes_a_decision_is_logged(app, caplog, attempt):
    @app.task(max_attempts=2, backoff=1)
    def broken() -> None:
        raise ValueError("no picture")

    with pytest.raises(Decision) as caught:
        app.handler(delivered(item_of(broken), attempt=attempt))
    (record,) = caplog.records
    assert record.getMessage() == f"task broken of item {id_text(item_id(1))} failed, attempt {attempt}"
    assert record.exc_info[1] is caught.value.__cause__
    assert isinstance(caught.value.__cause__, ValueError)


def test_the_last_attempt_that_fails_rejects_the_item(app):
    @app.task(max_attempts=3)
    def broken() -> None:
        raise ValueError("no picture")

    item = item_of(broken)
    assert verdict(app, delivered(item, attempt=2, failures=1)).action is Action.FAIL
    found = verdict(app, delivered(item, attempt=3, failures=2))
    assert found.action is Action.REJECT
    assert found.error.startswith("attempt 3 of 3 failed: ValueError: no picture")


def test_an_item_whose_last_attempt_was_lost_is_rejected_before_it_kills_another_worker(app):
    @app.task(max_attempts=3)
    def deadly() -> None:
        pytest.fail("it ran")

    found = verdict(app, delivered(item_of(deadly), attempt=4, failures=1, losses=2))
    assert found.action is Action.REJECT
    assert found.error == "attempt 4 of task deadly would exceed its 3: 1 failed, the worker was lost in 2"


def test_backoff_doubles_with_each_failure_and_has_a_cap():
    backoff = Backoff(10, cap=60)
    assert [backoff.delay(failures, 1.0) for failures in (1, 2, 3, 4, 2_000)] == [10, 20, 40, 60, 60]
    assert backoff.delay(1, 0.25) == 2.5


@pytest.mark.parametrize(
    ("backoff", "least", "most"),
    [(10, 0, 40_000), (Backoff(10, cap=1), 0, 1_000), (lambda failures: failures, 3_000, 3_000)],
)
def test_a_task_has_its_own_backoff(app, backoff, least, most):
    @app.task(backoff=backoff)
    def broken() -> None:
        raise ValueError

    found = verdict(app, delivered(item_of(broken), attempt=3, failures=2))
    assert (found.action, least <= found.delay <= most) == (Action.FAIL, True)


@pytest.mark.parametrize("raised", [True, False])
@pytest.mark.parametrize(
    ("decision", "action", "delay"),
    [
        (Reject("never"), Action.REJECT, None),
        (Defer(5), Action.DEFER, 5_000),
        (Fail(5, "later"), Action.FAIL, 5_000),
        (Done(), Action.REMOVE, None),
        (Reject, Action.REJECT, None),
        (Defer, Action.DEFER, 1_000),
        (Fail, Action.FAIL, None),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_a_task_may_decide_itself(app, decision, action, delay, raised):
    @app.task(max_attempts=3)
    def decide() -> Decision:
        if raised:
            raise decision
        return decision

    found = verdict(app, delivered(item_of(decide), attempt=2))
    assert (found.action, found.delay) == (action, delay)


def test_a_fail_of_the_last_attempt_rejects_and_one_without_a_delay_waits_as_the_task_says(app):
    @app.task(max_attempts=3, backoff=lambda failures: failures * 10)
    def decide() -> Fail:
        return Fail(text="busy")

    item = item_of(decide)
    assert verdict(app, delivered(item, attempt=2, failures=1)) == (Action.FAIL, 20_000, "busy", ())
    assert verdict(app, delivered(item, attempt=3, failures=2)).error == "attempt 3 of 3 failed: busy"


def test_next_steps_are_added_with_the_removal(app):
    @app.task(queue="second")
    def second(x: int) -> None: ...

    @app.task
    def first(several: bool) -> Next | list[Next]:
        return [Next(second, 1), Next(first.options(delay=5), False)] if several else Next(second, 2)

    found = verdict(app, delivered(item_of(first, False)))
    assert (found.action, [add.queue for add in found.adds]) == (Action.REMOVE, ["second"])
    found = verdict(app, delivered(item_of(first, True)))
    assert [add.queue for add in found.adds] == ["second", "mail"]
    assert json.loads(found.adds[0].items[0].contents)["args"] == [1]
    assert found.adds[1].items[0].delay == 5_000


def test_a_next_step_that_cannot_be_encoded_fails_the_task(app):
    @app.task
    def second(x: int) -> None: ...

    @app.task
    def first() -> Next:
        return Next(second, "x")

    found = verdict(app, delivered(item_of(first)))
    assert (found.action, found.error.startswith("queueber.errors.InvalidRequest: argument x of task second")) == (
        Action.FAIL,
        True,
    )


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (lambda step: [step, None], "TypeError: task first returned next steps together with a NoneType"),
        (lambda step: (5, step), "TypeError: task first returned next steps together with a int"),
        (
            lambda step: (each for each in [step]),
            "TypeError: task first returned a generator, which was never iterated",
        ),
    ],
)
def test_next_steps_are_not_lost_in_other_results(app, result, text):
    @app.task
    def second() -> None: ...

    @app.task
    def first() -> object:
        return result(Next(second))

    found = verdict(app, delivered(item_of(first)))
    assert (found.action, found.error.partition(";")[0].splitlines()[0]) == (Action.FAIL, text)


def test_next_steps_may_be_a_set(app):
    @app.task
    def second(x: int) -> None: ...

    @app.task
    def first() -> object:
        return {Next(second, 1), Next(second, 2)}

    assert len(verdict(app, delivered(item_of(first))).adds) == 2


@pytest.mark.parametrize("result", [[], [1], (), 5, "x"])
def test_other_results_are_not_kept(app, result):
    @app.task
    def some() -> object:
        return result

    assert verdict(app, delivered(item_of(some))) == (Action.REMOVE, None, "", ())


@pytest.mark.parametrize("mixed", [True, False])
def test_a_coroutine_that_was_not_awaited_fails_its_item_instead_of_losing_it(app, mixed):
    async def waiting() -> None: ...

    @app.task
    def wrapped() -> object:
        return waiting()

    if mixed:
        app.task(waiting)
    found = verdict(app, delivered(item_of(wrapped)))
    assert found.action is Action.FAIL
    assert found.error.startswith("TypeError: task wrapped returned a coroutine, which was not awaited; a task that")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"headers": {}}, "the item has no header task, so it was not added by a task"),
        ({"headers": {"task": b"\xff"}}, "the header task is not UTF-8: b'\\xff'"),
        ({"headers": {"task": b"gone"}}, "there is no task 'gone' here; this program has note"),
        (
            {"headers": {"task": b"note", "content-type": b"application/x-python-pickle"}},
            "the contents for task note are application/x-python-pickle; this program reads application/json",
        ),
        ({"contents": b"{"}, "the contents for task note are not JSON: "),
        ({"contents": b"\xff"}, "the contents for task note are not JSON: "),
        ({"contents": b"[" * 100_000}, "the contents for task note are not JSON: "),
        ({"contents": b"[1]"}, 'the contents for task note are not {"args": […], "kwargs": {…}}'),
        ({"contents": b'{"arguments": [1]}'}, 'the contents for task note are not {"args": […], "kwargs": {…}}'),
        (
            {"contents": b'{"args": {"day": 1}}'},
            "in the contents for task note, args must be an array and kwargs an object",
        ),
        (
            {"contents": b'{"args": ["2026-01-01", 2]}'},
            "the arguments do not fit task note(day: datetime.date) -> None: too",
        ),
        ({"contents": b'{"kwargs": {"dya": 1}}'}, "the arguments do not fit task note"),
        ({"contents": b'{"args": ["x"]}'}, "argument day of task note is 'x' (str); it must be text of a date"),
    ],
)
def test_an_item_that_no_attempt_can_run_is_rejected_with_one_sentence(app, changes, text):
    @app.task
    def note(day: date) -> None:
        pytest.fail("it ran")

    item = delivered(item_of(note, date(2026, 1, 1)))
    for name, value in changes.items():
        setattr(item, name, value)
    found = verdict(app, item)
    assert (found.action, found.error[: len(text)]) == (Action.REJECT, text)
    assert "\n" not in found.error


def test_an_app_without_tasks_rejects_and_says_so(app):
    other, _ = app_with_adds()

    @other.task
    def note() -> None: ...

    assert verdict(app, delivered(item_of(note))).error == "there is no task 'note' here; this program has none"


def test_a_foreign_program_may_leave_out_the_content_type_or_give_a_charset(app):
    @app.task
    def note() -> None: ...

    item = delivered(item_of(note))
    for kind in (b"application/json; charset=utf-8", b"Application/JSON"):
        item.headers["content-type"] = kind
        assert verdict(app, item).action is Action.REMOVE
    del item.headers["content-type"]
    item.headers = tuple(item.headers.items())
    assert verdict(app, item).action is Action.REMOVE


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("blanks", ["", " ", "\r\n"])
def test_a_foreign_program_may_write_json_in_any_encoding_and_with_blanks_around(app, encoding, blanks):
    seen = []

    @app.task
    def note(text: str, number: int) -> None:
        seen.append((text, number))

    item = delivered(item_of(note, "", 0))
    item.contents = f'{blanks}{{"args": ["über", 1]}}{blanks}'.encode(encoding)
    assert verdict(app, item).action is Action.REMOVE
    assert seen == [("über", 1)]
    item.contents = f'{blanks}{{"args": ["über", 1]}} 1'.encode(encoding)
    assert "are not JSON: Extra data" in verdict(app, item).error


def test_a_program_that_changes_its_serializer_reads_both_and_an_error_of_one_rejects():
    seen = []
    app, _ = app_with_adds(serializer=Shouted())

    @app.task
    def say(text):
        seen.append(text)

    item = delivered(item_of(say, "hello"))
    assert verdict(app, item).action is Action.REMOVE
    item.contents = b"\xff"
    found = verdict(app, item)
    assert found.action is Action.REJECT
    assert found.error.startswith("the contents for task say cannot be decoded: UnicodeDecodeError: ")

    app, _ = app_with_adds(also_reads=[Shouted()])
    app.task(name="say")(seen.append)
    item.contents = b"BYE"
    assert verdict(app, item).action is Action.REMOVE
    assert seen == ["hello", "bye"]


def test_the_case_of_a_content_type_does_not_matter():
    class Loud(Shouted):
        content_type = "Text/LOUD"

    app, _ = app_with_adds(serializer=Loud())
    app.task(name="say")(print)
    assert verdict(app, delivered(item_of(app.tasks["say"], "hello"))).action is Action.REMOVE


def test_a_cancelled_coroutine_is_left_to_the_worker(app):
    @app.task(max_attempts=1)
    async def long() -> None:
        await asyncio.sleep(1_000)

    async def main():
        task = asyncio.create_task(app.handler(delivered(item_of(long))))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


@pytest_twisted.ensureDeferred
async def test_in_a_reactor_a_plain_task_runs_in_one_of_its_threads(app):
    threads = []

    @app.task
    def plain() -> None:
        threads.append(threading.current_thread())
        assert current_item().attempt == 2

    @app.task
    async def waiting() -> None: ...

    assert await app.handler(delivered(item_of(plain), attempt=2)) is None
    assert await app.handler(delivered(item_of(waiting))) is None
    assert threads != [threading.current_thread()]


def test_a_plain_task_that_is_cancelled_ends_when_its_thread_does(app):
    began, may_end = threading.Event(), threading.Event()

    @app.task
    def plain() -> None:
        began.set()
        assert may_end.wait(60)

    @app.task
    async def waiting() -> None: ...

    async def main():
        task = asyncio.create_task(app.handler(delivered(item_of(plain))))
        await asyncio.to_thread(began.wait)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        may_end.set()
        return await task

    assert asyncio.run(main()) is None


@pytest_twisted.ensureDeferred
async def test_in_a_reactor_plain_tasks_do_not_wait_for_threads_of_its_pool(app):
    number = reactor.getThreadPool().max + 1
    together = threading.Barrier(number)

    @app.task
    def plain() -> None:
        together.wait(10)

    @app.task
    async def waiting() -> None: ...

    item = delivered(item_of(plain))
    found = await gatherResults([Deferred.fromCoroutine(app.handler(item)) for _ in range(number)], consumeErrors=True)
    assert found == [None] * number


@pytest_twisted.ensureDeferred
async def test_in_a_reactor_a_plain_task_that_is_cancelled_ends_when_its_thread_does(app):
    began, may_end = threading.Event(), threading.Event()

    @app.task
    def plain() -> None:
        began.set()
        assert may_end.wait(60)

    @app.task
    async def waiting() -> None: ...

    results = []
    running = Deferred.fromCoroutine(app.handler(delivered(item_of(plain)))).addBoth(results.append)
    await deferToThread(began.wait)
    running.cancel()
    running.cancel()
    assert results == []
    may_end.set()
    await running
    assert results == [None]


@pytest.fixture
def queued(app, monkeypatch):
    """A handler with one thread, the item that keeps it busy, one that waits, and the event that ends the first."""
    monkeypatch.setattr("queueber.tasks.threads.THREADS_MAX", 1)
    may_end = threading.Event()

    @app.task
    def plain(wait: bool) -> None:
        assert wait, "it ran"
        assert may_end.wait(60)

    @app.task
    async def waiting() -> None: ...

    return app.handler, delivered(item_of(plain, True)), delivered(item_of(plain, False)), may_end


def test_a_plain_task_that_is_cancelled_before_it_began_never_runs(queued):
    handler, first, second, may_end = queued

    async def main():
        tasks = [asyncio.create_task(handler(each)) for each in (first, second)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        may_end.set()
        assert await tasks[0] is None

    asyncio.run(main())


@pytest_twisted.ensureDeferred
async def test_in_a_reactor_a_plain_task_that_is_cancelled_before_it_began_never_runs(queued):
    handler, first, second, may_end = queued
    calls = [Deferred.fromCoroutine(handler(each)) for each in (first, second)]
    calls[1].cancel()
    with pytest.raises(CancelledError):
        await calls[1]
    may_end.set()
    assert await calls[0] is None
