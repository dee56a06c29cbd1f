"""Declaring tasks, calling them, and adding calls of them."""

import asyncio
import json
import math
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults

from queueber.api import AddResponse
from queueber.errors import InvalidRequest, Overloaded
from queueber.tasks import Added, Backoff, Next, Tasks
from queueber.tasks.connections import AT_ONCE
from queueber.tasks.options import AddOptions
from queueber.worker import Reject
from tests.tasks.stand_ins import URL, Adds, AioAdds, TxAdds, app_with_adds, delivered, item_id


class Priority(StrEnum):
    HIGH = "high"


def add(x: int, y: int = 0, *, on: date | None = None) -> int:
    """Return the sum."""
    return x + y


async def add_later(x: int) -> int:
    return x + 1


class Shouted:
    """A serializer of one text argument."""

    content_type = "text/shouted"

    def dump(self, parameters, args, kwargs):
        return args[0].upper().encode() if args[0] else args[0]

    def load(self, parameters, contents):
        return [contents.decode().lower()], {}


def contents(item):
    return json.loads(item.contents)


def test_a_task_is_still_its_function():
    app, adds = app_with_adds()
    task = app.task(add)
    assert task(2, y=3) == 5
    assert (task.__name__, task.__doc__, task.__wrapped__) == ("add", "Return the sum.", add)
    assert asyncio.run(app.task(add_later)(1)) == 2
    assert adds.added == []
    assert repr(task) == "<Task add of mail>"
    assert repr(app) == f"<Tasks add, add_later of {URL}>"


def test_the_default_options_of_a_task_can_be_copied():
    """Frameworks copy the settings in which a program names a task."""
    assert deepcopy(AddOptions()) == AddOptions()


def test_an_added_call_is_an_item_with_the_name_and_the_arguments():
    app, adds = app_with_adds()
    found = app.task(add).add(2, 3, on=date(2026, 1, 2))
    assert found == Added(item_id(1), "mail", duplicate=False)
    ((queue, item),) = adds.added
    assert queue == "mail"
    assert item.contents == b'{"args":[2,3],"kwargs":{"on":"2026-01-02"}}'
    assert dict(item.options.headers) == {"task": b"add", "content-type": b"application/json"}


def test_connections_send_adds_again_unless_the_app_does_without(monkeypatch):
    made = []
    monkeypatch.setattr("queueber.sync.connect", lambda url, **options: made.append((url, options)) or Adds())
    Tasks(URL, attempts=3).task(add).add(1)
    app = Tasks(URL, resend_adds=False)
    app.task(add).add(1)
    app.tasks["add"].add(1)
    assert made == [(URL, {"resend_adds": True, "attempts": 3}), (URL, {"resend_adds": False})]


def test_two_threads_that_add_first_share_one_connection(monkeypatch):
    made = []

    def connect(*_, **__):
        made.append(found := Adds())
        if len(made) == 1:
            # Another thread is quicker.
            app.tasks["add"].add(2)
        return found

    monkeypatch.setattr("queueber.sync.connect", connect)
    app = Tasks(URL)
    app.task(add).add(1)
    app.tasks["add"].add(3)
    assert [len(each.added) for each in made] == [0, 3]
    assert [each.closed for each in made] == [True, False]


def test_a_coroutine_adds_on_asyncio_and_each_loop_has_its_connection():
    app, _ = app_with_adds()
    task = app.task(name="plus")(add)
    clients = []

    async def main():
        clients.append(AioAdds())
        app.connections.use(aio=clients[-1])
        async with app:
            assert await task.aio.add(2, 3) == Added(item_id(1), "mail")
            assert await task.options(delay=1).aio.add(2) == Added(item_id(2), "mail")

    asyncio.run(main())
    asyncio.run(main())
    assert [len(each.added) for each in clients] == [2, 2]
    assert all(each.closed for each in clients)


def test_the_end_of_a_loop_closes_its_connection(monkeypatch):
    made = []
    monkeypatch.setattr("queueber.aio.connect", lambda *_, **__: made.append(AioAdds()) or made[-1])
    app = Tasks(URL)
    task = app.task(add)

    async def main():
        await asyncio.gather(task.aio.add(1), task.aio.add(2))
        assert not made[-1].closed

    asyncio.run(main())
    asyncio.run(main())
    assert [(len(each.added), each.closed) for each in made] == [(2, True), (2, True)]


def test_a_deferred_adds_on_twisted():
    app, _ = app_with_adds()
    task = app.task(add)
    with pytest.raises(InvalidRequest, match=r"tx needs a reactor: call connect_twisted\(reactor\)"):
        task.tx.add(1)
    adds = TxAdds()
    app.connections.use(twisted=adds)
    results = []
    task.tx.add(2, 3).addCallback(results.append)
    adds.errors.append(Overloaded("full"))
    task.tx.add(2, 3).addErrback(lambda failure: results.append(failure.type))
    assert results == [Added(item_id(1), "mail"), Overloaded]
    app.close_twisted()
    assert adds.closed
    assert app.close_twisted().result is None


def test_an_app_closes_its_blocking_connection():
    app, adds = app_with_adds()
    with app:
        app.task(add).add(1)
    assert adds.closed
    app.close()


def test_options_of_one_add():
    app, adds = app_with_adds()
    due = datetime(2027, 1, 1, tzinfo=UTC)
    task = app.task(add)
    task.options(delay=60, key="a", headers={"user": "ann"}, queue="other").add(1)
    task.options(due=due, expires=due + timedelta(hours=1), key="a", until_removed=True).add(1)
    task.options(delay=timedelta(milliseconds=1.5)).add(1)
    (queue, first), (_, second), (_, third) = adds.added
    assert (queue, first.delay, first.options.dedup_key) == ("other", 60_000, b"add\0a")
    assert dict(first.options.headers)["user"] == b"ann"
    assert second.options.due == due.timestamp() * 1_000
    assert second.options.expires_at - second.options.due == 3_600_000
    assert second.options.until_removed
    assert third.delay == 2
    task.add(1)
    assert adds.added[-1][1].delay == 0


def test_options_of_several_calls_add_up_and_the_last_of_each_counts():
    app, adds = app_with_adds()
    due = datetime(2027, 1, 1, tzinfo=UTC)
    first = app.task(add).options(queue="bulk", delay=5, headers={"user": "ann", "of": "x"}, key="a")
    second = first.options(delay=60, headers={"user": "bob"}, until_removed=True)
    third = second.options(due=due, queue="other", key="b", until_removed=False)
    assert second.queue == "bulk"
    for each in (first, second, third, third.options(delay=0)):
        each.add(1)
    assert [queue for queue, _ in adds.added] == ["bulk", "bulk", "other", "other"]
    _, *items = (item for _, item in adds.added)
    assert [item.delay for item in items] == [60_000, 0, 0]
    found = [item.options for item in items]
    assert [(each.due, each.dedup_key, each.until_removed) for each in found] == [
        (0, b"add\0a", True),
        (due.timestamp() * 1_000, b"add\0b", False),
        (0, b"add\0b", False),
    ]
    headers = [dict(each.headers) for each in found]
    assert [(each["user"], each["of"]) for each in headers] == [(b"bob", b"x")] * 3


def test_options_of_several_calls_are_checked_together():
    task = app_with_adds()[0].task(add)
    with pytest.raises(InvalidRequest, match="it must be later than due"):
        task.options(due=datetime(2027, 1, 2, tzinfo=UTC)).options(expires=datetime(2027, 1, 1, tzinfo=UTC))


def test_a_loop_has_a_bounded_number_of_adds_under_way_so_that_the_server_refuses_none():
    app, _ = app_with_adds()
    task = app.task(add)

    class Counted(AioAdds):
        now = most = 0

        async def answer(self, *args, **kwargs):
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0)
            self.now -= 1
            return await super().answer(*args, **kwargs)

    adds = Counted()

    async def main():
        app.connections.use(aio=adds)
        await asyncio.gather(*(task.aio.add(number) for number in range(2_000)))

    asyncio.run(main())
    assert (len(adds.added), adds.most) == (2_000, AT_ONCE)


def test_twisted_has_a_bounded_number_of_adds_under_way_too():
    app, _ = app_with_adds()
    task, waiting = app.task(add), []

    class Waiting(TxAdds):
        def answer(self, *args, **kwargs):
            waiting.append(Deferred())
            return waiting[-1]

    app.connections.use(twisted=Waiting())
    found = gatherResults([task.tx.add(number) for number in range(AT_ONCE + 1)])
    assert len(waiting) == AT_ONCE
    for each in waiting:
        each.callback(AddResponse([item_id(1)], []))
    assert len(found.result) == len(waiting) == AT_ONCE + 1


def test_a_duplicate_is_reported_with_the_first_ones_id():
    app, adds = app_with_adds()
    adds.answer = lambda *_, **__: type("Response", (), {"ids": [item_id(7)], "duplicates": [0]})
    assert app.task(add).options(key="a").add(1) == Added(item_id(7), "mail", duplicate=True)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"delay": -1}, "delay is -1 s; it must be 0 to"),
        ({"delay": "1"}, "delay is '1'; it must be a number of seconds"),
        ({"delay": math.nan}, "delay is nan; it must be a number of seconds"),
        ({"delay": math.inf}, "delay is inf s; it must be 0 to"),
        ({"delay": 10**400}, "delay is a number of 1,329 bits, in seconds; it must be 0 to"),
        ({"delay": 1, "due": datetime.now(UTC)}, "delay and due are both given"),
        ({"due": datetime.fromisoformat("2026-01-01")}, "due is 2026-01-01 00:00:00, without a time zone"),
        ({"expires": 5}, "expires is 5 (int); it must be a datetime"),
        ({"expires": datetime(1960, 1, 1, tzinfo=UTC)}, "the least is 1"),
        ({"until_removed": True}, "until_removed is given without a key"),
        ({"key": b"x"}, "key is b'x' (bytes); it must be text"),
        ({"key": ""}, "key is '' (str); it must be text of at least one character"),
        ({"key": "", "until_removed": True}, "key is '' (str); it must be text of at least one character"),
        ({"key": "ä" * 126}, "key of task add is 252 bytes; the limit is 251"),
        ({"key": "\ud800"}, r"key is not UTF-8: '\ud800'"),
        ({"headers": {"x": "\ud800"}}, r"headers['x'] is not UTF-8: '\ud800'"),
        ({"headers": {"\ud800": "x"}}, r"the name of one of headers is not UTF-8: '\ud800'"),
        (
            {"due": datetime(2027, 1, 2, tzinfo=UTC), "expires": datetime(2027, 1, 2, tzinfo=UTC)},
            "expires is 2027-01-02 00:00:00+00:00; it must be later than due, which is 2027-01-02 00:00:00+00:00",
        ),
        ({"headers": {"task": "x"}}, "headers has 'task', which the task sets itself"),
        ({"headers": ["x"]}, "headers is ['x'] (list); it must be a mapping"),
        ({"headers": {"x": "y" * 5_000}}, "headers is 5,0"),
        ({"queue": ""}, "the queue's name is empty"),
    ],
)
def test_options_that_cannot_be_had_are_refused(options, text):
    app, adds = app_with_adds()
    with pytest.raises(InvalidRequest) as caught:
        app.task(add).options(**options).add(1)
    assert text in str(caught.value)
    assert adds.added == []


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        (
            (),
            {},
            "task add(x: int, y: int = 0, *, on: datetime.date | None = None) -> int: missing a required argument",
        ),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"z": 1}, "got an unexpected keyword argument 'z'"),
        (("1",), {}, "argument x of task add is '1' (str); it must be an int"),
        ((1,), {"on": 5}, "argument on of task add is 5 (int); it must be of one of the types of the annotation"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_at_the_add(args, kwargs, text):
    app, adds = app_with_adds()
    with pytest.raises(InvalidRequest) as caught:
        app.task(add).add(*args, **kwargs)
    assert text in str(caught.value)
    assert adds.added == []


def test_all_kinds_of_parameters_are_converted_by_their_own_annotations():
    app, adds = app_with_adds()

    @app.task
    def mixed(first: date, /, second: int, *rest: date, named: date, **more: date) -> None: ...

    day = date(2026, 1, 1)
    mixed.add(day, 1, day, day, named=day, other=day)
    assert contents(adds.added[0][1]) == {
        "args": ["2026-01-01", 1, "2026-01-01", "2026-01-01"],
        "kwargs": {"named": "2026-01-01", "other": "2026-01-01"},
    }
    with pytest.raises(InvalidRequest, match="missing a required argument: 'named'"):
        mixed.add(day, 1)
    with pytest.raises(InvalidRequest, match=r"argument rest of task mixed is 1 \(int\)"):
        mixed.add(day, 1, 1, named=day)
    with pytest.raises(InvalidRequest, match=r"argument other of task mixed is 1 \(int\)"):
        mixed.add(day, 1, named=day, other=1)


def test_annotations_that_only_type_checkers_see_are_refused_with_the_reason():
    app, _ = app_with_adds()

    @app.task
    def remind(when: "Moment") -> "Result": ...  # noqa: F821

    with pytest.raises(InvalidRequest, match="name 'Moment' is not defined; its types must be imported when"):
        remind.add(1)

    @app.task
    def answer(number: int) -> "Result": ...  # noqa: F821

    answer.add(1)


def test_an_annotation_without_a_form_in_json_is_refused_with_task_and_argument():
    app, _ = app_with_adds()

    @app.task
    def send(number: int, connection: Tasks) -> None: ...

    with pytest.raises(InvalidRequest, match=r"argument connection of task send: .*Tasks has no form"):
        send.add(1, app)


@dataclass
class Node:
    name: str
    next: "Node | None" = None


@dataclass
class Fickle:
    name: str

    def __getattribute__(self, name):
        if name == "name":
            raise OSError("no name\ntoday")
        return super().__getattribute__(name)


def nested(levels):
    found: list = []
    for _ in range(levels - 1):
        found = [found]
    return found


def chain(length):
    found = None
    for _ in range(length):
        found = Node("a", found)
    return found


def endless_list():
    found: list = []
    found.append(found)
    return found


def endless_dict():
    found: dict = {}
    found["again"] = {"deeper": found}
    return found


def endless_chain():
    found = Node("a")
    found.next = Node("b", found)
    return found


DEEP = "it must be no deeper than 100 lists or objects in one another, and must not contain itself"


@pytest.mark.parametrize(
    ("hint", "value", "text"),
    [
        (Any, "\ud800", r"argument value of task keep has '\ud800', which is half of a character; text must be UTF-8"),
        (Any, [{"\udcff": 1}], r"argument value of task keep has '\udcff', which is half of a character"),
        (Any, 10**5_000, "argument value of task keep cannot be encoded: Exceeds the limit (4300 digits)"),
        (Any, endless_list(), DEEP),
        (list, endless_list(), DEEP),
        (Any, endless_dict(), DEEP),
        (Node, endless_chain(), DEEP),
        (Any, nested(101), DEEP),
        (list, nested(5_000), DEEP),
        (Node, chain(101), DEEP),
        (Node, chain(5_000), DEEP),
        (Any, math.nan, "argument value of task keep is nan (float); it must be a finite number"),
        (float, -math.inf, "argument value of task keep is -inf (float); it must be a finite number"),
        (Any, {"a": {1: 2}}, "argument value['a'] of task keep is 1 (int); it must be a str, as the key of a dict"),
        (Any, {Priority.HIGH: 2}, "it must be a str, as the key of a dict whose annotation names no type of keys"),
        (Fickle, Fickle("x"), r"argument value of task keep cannot be encoded: OSError: no name\ntoday"),
    ],
    ids=lambda each: each if isinstance(each, str) and each.isascii() else "",
)
def test_values_that_json_cannot_hold_are_refused_with_task_and_argument(hint, value, text):
    app, adds = app_with_adds()

    @app.task
    def keep(value): ...

    keep.__wrapped__.__annotations__["value"] = hint
    for add_it in (lambda: keep.add(value), lambda: keep.add(value=value), lambda: Next(keep, value)):
        with pytest.raises(InvalidRequest) as caught:
            add_it()
        assert text in str(caught.value)
        assert str(caught.value).startswith("argument value")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value).encode()) < 400
    assert adds.added == []


def test_the_name_of_an_argument_that_is_no_text_is_refused():
    app, _ = app_with_adds()

    @app.task
    def keep(**more): ...

    with pytest.raises(InvalidRequest, match=r"argument \\ud800 of task keep has '\\ud800', which is half"):
        keep.add(**{"\ud800": 1})


@pytest.mark.parametrize(
    ("hint", "value"),
    [(Any, nested(100)), (Node, chain(100)), (str, "[{" * 1_000)],
    ids=["lists", "objects", "text"],
)
def test_values_of_the_greatest_depth_arrive(hint, value):
    app, adds = app_with_adds()
    seen = []

    @app.task
    def keep(value):
        seen.append(value)

    keep.__wrapped__.__annotations__["value"] = hint
    keep.add(value)
    ((_, item),) = adds.added
    app.handler(delivered(item))
    assert seen == [value]


def test_contents_of_another_program_that_are_too_deep_are_rejected_with_a_sentence():
    app, adds = app_with_adds()

    @app.task
    def keep(value: Node): ...

    keep.add(Node("a"))
    ((_, item),) = adds.added
    for contents, text in (
        (b'{"args": [' + b'{"name": "a", "next":' * 300 + b"null" + b"}" * 300 + b"]}", "no deeper than 100"),
        (b"[" * 100_000, "the contents for task keep are not JSON"),
    ):
        with pytest.raises(Reject, match=text):
            app.handler(delivered(item._replace(contents=contents)))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"priority": 5}, "priority is 5; it must be 'high', 'normal' or 'low': the server has no numeric priorities"),
        ({"max_attempts": 0}, "max_attempts is 0 attempts; the least is 1"),
        ({"max_attempts": "3"}, "max_attempts is '3' (str)"),
        ({"backoff": -1}, "backoff is -1 s"),
        ({"backoff": Backoff(1, -1)}, "the cap of backoff is -1 s"),
        ({"queue": "x" * 300}, "the queue's name is 300 bytes"),
        ({"queue": "x" * 252, "priority": "high"}, "the queue's name is 257 bytes; the limit is 255"),
        ({"name": ""}, "the task's name is '' (str); it must be 1 to 200 bytes of text that prints"),
        ({"name": "a\nb"}, "it must be 1 to 200 bytes of text that prints"),
        ({"every": 60}, "task add(x: int, y: int = 0, *, on: datetime.date | None = None) -> int: missing a required"),
    ],
)
def test_declarations_that_cannot_be_had_are_refused(options, text):
    app, _ = app_with_adds()
    with pytest.raises(InvalidRequest) as caught:
        app.task(**options)(add)
    assert text in str(caught.value)


class Nameless(Shouted):
    content_type = "text/größe"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"url": 5}, "url is 5 (int); it must be text of at least one character"),
        ({"queues": "bulk"}, "queues is 'bulk' (str); it must be a list of names"),
        ({"queues": 5}, "queues is 5 (int); it must be a list of names"),
        ({"queues": [5]}, "the queue's name is 5 (int); it must be text"),
        ({"serializer": json}, "content_type of serializer is None; it must be text in ASCII"),
        ({"serializer": Shouted}, "it must be an object with content_type, dump and load"),
        ({"serializer": Nameless()}, "content_type of serializer is 'text/größe' (str); it must be text in ASCII"),
        ({"also_reads": Shouted()}, "it must be a list of serializers"),
        ({"also_reads": [5]}, "also_reads[0] is 5 (int); it must be an object with content_type, dump and load"),
        ({"resend_adds": "yes"}, "resend_adds is 'yes' (str)"),
    ],
)
def test_apps_that_cannot_be_had_are_refused(arguments, text):
    with pytest.raises(InvalidRequest) as caught:
        Tasks(**{"url": URL, **arguments})
    assert text in str(caught.value)


def test_names_are_unique():
    app, _ = app_with_adds()
    app.task(add)
    with pytest.raises(InvalidRequest, match="there is already a task add"):
        app.task(add)


def endless():
    yield 1


async def endless_later():
    yield 1


class Sender:
    """Can be called, as it is or as a coroutine function."""

    def __call__(self, x: int) -> int:
        return x


class LaterSender:
    async def __call__(self, x: int, *, on: date | None = None) -> int:
        return x + 1


class EndlessSender:
    def __call__(self):
        yield 1


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (endless, "is a generator; a task is a function or a coroutine function"),
        (endless_later, "is a generator"),
        (partial(endless), "is a generator"),
        (EndlessSender(), "is a generator"),
        (Sender, "Sender'> is a class; a task is a function or a coroutine"),
        (Node, "Node'> is a class"),
        ("add", "'add' is not a function; write @app.task, or @app.task(name=…)"),
        (5, "5 is not a function"),
        (classmethod(add), "is not a function"),
        (max, "task name: <built-in function max> has no signature to inspect; wrap it in a function"),
        (Tasks(URL).task(add), "<Task add of mail> is already a task; decorate its function to make a second one"),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_only_functions_are_tasks(function, text):
    app, _ = app_with_adds()
    with pytest.raises(InvalidRequest) as caught:
        app.task(name="name")(function)
    assert text in str(caught.value)
    assert "name" not in app.tasks
    assert dict(app.queues) == {}


def test_objects_that_can_be_called_are_as_their_method():
    app, adds = app_with_adds()
    app.task(name="now")(Sender()).add(5)
    app.task(name="later")(LaterSender()).add(5, on=date(2026, 1, 2))
    app.task(name="a part")(partial(add, on=date(2026, 1, 2))).add(5, on=date(2026, 1, 3))
    assert [contents(item)["kwargs"] for _, item in adds.added] == [{}, {"on": "2026-01-02"}, {"on": "2026-01-03"}]
    assert asyncio.run(app.handler(delivered(adds.added[1][1]))) is None
    assert [app.handler_of(name).__name__ for name in app.tasks] == ["handle", "handle_async", "handle"]


def test_queues_come_by_priority_with_weights():
    app, _ = app_with_adds(queues=["bulk"])
    app.task(name="a", priority="low")(add)
    app.task(name="b", queue="post")(add)
    app.task(name="c", priority="high", queue="post")(add)
    assert dict(app.queues) == {"post.high": 100, "post": 10, "bulk": 10, "mail.low": 1}
    assert app.tasks["c"].queue == "post.high"
    assert list(app.tasks) == ["a", "b", "c"]


def test_a_worker_has_the_queues_the_handler_and_the_connection_of_its_app(monkeypatch):
    made = []
    monkeypatch.setattr("queueber.worker.Worker", lambda *args, **options: made.append((args, options)))
    app = Tasks(URL, timeout_ms=5_000)
    with pytest.raises(
        InvalidRequest, match=r"<Tasks none of queueber://\S+> has no tasks, so a worker would have no queues"
    ):
        app.worker()
    app.task(add)
    app.worker(concurrency=3)
    app.worker(queues={"other": 1})
    ((queue, handler), options), (_, others) = made
    assert (queue.target.options.timeout_ms, queue.target.name) == (5_000, URL)
    assert handler == app.handler
    assert options == {"queues": {"mail": 10}, "concurrency": 3}
    assert others == {"queues": {"other": 1}}
    app.close()


def test_an_app_without_a_queue_in_its_url_uses_the_default_one():
    app = Tasks("queueber://127.0.0.1:9090")
    assert app.task(add).queue == "default"


def test_a_next_step_has_no_key_and_is_a_task():
    app, _ = app_with_adds()
    task = app.task(add)
    call = Next(task.options(delay=1), 1, 2).call
    assert (call.queue, call.item.delay, contents(call.item)["args"]) == ("mail", 1_000, [1, 2])
    with pytest.raises(InvalidRequest, match="Next of task add has a key; the next task is added once anyway"):
        Next(task.options(key="a"), 1)
    with pytest.raises(InvalidRequest, match="the task of a Next is <function add"):
        Next(add, 1)
    with pytest.raises(InvalidRequest, match="argument x of task add"):
        Next(task, "1")


def test_another_serializer_names_itself_in_its_items_and_its_errors_refuse_the_add():
    app, adds = app_with_adds(serializer=Shouted())

    @app.task
    def say(text): ...

    say.add("hello")
    ((_, item),) = adds.added
    assert (item.contents, dict(item.options.headers)["content-type"]) == (b"HELLO", b"text/shouted")
    with pytest.raises(InvalidRequest, match="the arguments of task say cannot be encoded: 'int' object has no"):
        say.add(1)
    with pytest.raises(InvalidRequest, match="the serializer returned str for task say, not bytes"):
        say.add("")


def test_deferreds_can_be_awaited():
    app, _ = app_with_adds()
    app.connections.use(twisted=TxAdds())
    task = app.task(add)

    async def main():
        return await task.tx.add(1)

    assert ensureDeferred(main()).result.queue == "mail"


def test_an_add_without_a_loop_names_the_other_ways():
    app, _ = app_with_adds()
    adding = app.task(add).aio.add(2, 3)
    with pytest.raises(
        InvalidRequest, match="aio needs a running asyncio loop; use tx on Twisted, or add without a loop"
    ):
        adding.send(None)


def test_many_calls_are_one_add_with_results_in_order():
    app, adds = app_with_adds()
    task, later = app.task(add), app.task(add_later)
    calls = [task.call(1), later.call(2), task.options(delay=60, key="a").call(3, on=date(2026, 1, 2))]
    assert app.add_many(iter(calls)) == [Added(item_id(number), "mail") for number in (1, 2, 3)]
    assert len(adds.calls) == 1
    assert [contents(item)["args"] for _, item in adds.added] == [[1], [2], [3]]
    assert (adds.added[2][1].delay, adds.added[2][1].options.dedup_key) == (60_000, b"add\0a")
    assert app.add_many([]) == []
    assert len(adds.calls) == 1


def test_many_calls_on_asyncio_and_twisted():
    app, _ = app_with_adds()
    task, aio, twisted = app.task(add), AioAdds(), TxAdds()
    app.connections.use(twisted=twisted)

    async def main():
        app.connections.use(aio=aio)
        return await app.aio.add_many(task.call(number) for number in range(3)), await app.aio.add_many([])

    expected = [Added(item_id(number), "mail") for number in (1, 2, 3)]
    assert asyncio.run(main()) == (expected, [])
    assert app.tx.add_many(task.call(number) for number in range(3)).result == expected
    assert app.tx.add_many([]).result == []
    assert [len(each.calls) for each in (aio, twisted)] == [1, 1]


def test_duplicates_among_many_are_reported_at_their_places():
    app, adds = app_with_adds()
    adds.answer = lambda *_, **__: AddResponse([item_id(7), item_id(8), item_id(7)], (2,))
    task = app.task(add)
    found = app.add_many(task.options(key=key).call(1) for key in ("a", "b", "a"))
    assert [each.duplicate for each in found] == [False, False, True]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            lambda task, low, other: [task.call(1), low.call(2)],
            "calls[1] is for queue 'mail.low', and calls[0] for 'mail'",
        ),
        (lambda task, low, other: [task.call(1), other.call(1)], "calls[1] is of a task of another app"),
        (lambda task, low, other: [(1, 2)], "calls[0] is (1, 2) (tuple); it must be what the method call of a task"),
        (lambda task, low, other: task.call(1), "calls[0] is 'mail' (str); it must be what the method call"),
        (lambda task, low, other: task, "calls is <Task add of mail> (Task); it must be calls, which the method"),
        (lambda task, low, other: "calls", "calls is 'calls' (str); it must be calls, which the method call"),
        (
            lambda task, low, other: [task.call(1), task.call("2")],
            "argument x of task add is '2' (str); it must be an int",
        ),
    ],
)
def test_many_calls_are_for_one_queue_of_one_app(wrong, text):
    app, adds = app_with_adds()
    task, low, other = app.task(add), app.task(name="low", priority="low")(add), Tasks(URL).task(add)
    with pytest.raises(InvalidRequest) as caught:
        app.add_many(wrong(task, low, other))
    assert text in str(caught.value)
    assert adds.added == []
