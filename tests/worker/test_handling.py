"""The handler and the hooks that a worker accepts."""

from functools import partial, wraps
from unittest.mock import Mock

import pytest

from queueber.errors import InvalidRequest
from queueber.worker import Worker

URL = "queueber://127.0.0.1:1/work"


def none():
    pass


def pair(item: bytes, context: dict):
    pass


async def pair_soon(item, context):
    pass


def keyword(item, *, size):
    pass


def with_defaults(item, size=3, *more, depth=1):
    pass


class Resizer:
    def resize(self, item):
        pass

    def resize_to(self, item, size):
        pass

    def __call__(self, item, size):
        pass


async def print_soon(item):
    print(item)


def generator(item):
    yield item


async def async_generator(item):
    yield item


class Generating:
    def __call__(self, item):
        yield item


@wraps(pair)
def given_a_context(item):
    return pair(item, {})


@wraps(keyword)
def without_arguments():
    pass


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (none, "none()"),
        (pair, "pair(item, context)"),
        (pair_soon, "pair_soon(item, context)"),
        (keyword, "keyword(item, *, size)"),
        (Resizer().resize_to, "resize_to(item, size)"),
        (Resizer.resize, "resize(self, item)"),
        (Resizer(), "Resizer(item, size)"),
        (partial(pair, 1, 2), "partial()"),
        (without_arguments, "keyword()"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_handler_that_cannot_take_one_argument_is_refused(handler, text):
    with pytest.raises(InvalidRequest) as caught:
        Worker(URL, handler)
    assert str(caught.value) == f"handler is {text}; it must take one argument: the item"


@pytest.mark.parametrize(
    "handler",
    [
        with_defaults,
        print,
        [].append,
        Resizer().resize,
        partial(pair, b"a"),
        partial(keyword, size=3),
        Mock(),
        dict,
        given_a_context,
    ],
    ids=lambda each: getattr(each, "__name__", type(each).__name__),
)
def test_other_functions_are_accepted_also_without_a_readable_signature(handler):
    assert Worker(URL, handler).handler is handler


@pytest.mark.parametrize("handler", [generator, async_generator, partial(generator), Generating()])
def test_a_generator_is_refused(handler):
    text = "; it must be a function or a coroutine function"
    with pytest.raises(InvalidRequest) as caught:
        Worker(URL, handler)
    assert str(caught.value) == f"handler is {handler!r}, a generator{text}"
    with pytest.raises(InvalidRequest) as caught:
        Worker(URL, print, before=[handler])
    assert str(caught.value) == f"before[0] is {handler!r}, a generator{text}"


def test_hooks_are_checked_too():
    with pytest.raises(InvalidRequest, match=r"^before\[1\] is pair\(item, context\); it must take one argument"):
        Worker(URL, print, before=[print, pair])
    text = r"^after\[0\] is pair\(.*\); it must take three arguments: the item, the verdict, the exception$"
    with pytest.raises(InvalidRequest, match=text):
        Worker(URL, print, after=[pair])
    with pytest.raises(InvalidRequest, match=r"^after\[0\] is None; it must be a function"):
        Worker(URL, print, after=[None])
    with pytest.raises(InvalidRequest, match=r"^before is <function pair at .*>; it must be a list of functions$"):
        Worker(URL, print, before=pair)


def test_a_coroutine_function_runs_in_no_thread():
    with pytest.raises(InvalidRequest, match=r"^threads is True, and handler is a coroutine function"):
        Worker(URL, print_soon, threads=True)


@pytest.mark.parametrize("name", ["threads", "strict", "telemetry", "trace_parent"])
def test_a_switch_is_true_or_false(name):
    with pytest.raises(InvalidRequest, match=rf"^{name} is 'no' \(str\); it must be True or False$"):
        Worker(URL, print, **{name: "no"})
