"""The functions that the user gives to a worker: its handler and its hooks, checked before it begins."""

from collections.abc import Iterable, Sequence
from inspect import Parameter, Signature, isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from typing import Any, Final

from queueber.errors import InvalidRequest
from queueber.worker.handling import After, Before, Handler

_ITEM: Final = ("the item",)
_RESULT: Final = ("the item", "the verdict", "the exception")
_NUMBERS: Final = {1: "one argument", 3: "three arguments"}


def checked_handler(handler: Handler) -> Handler:
    """
    Return *handler*.

    Raises:
        InvalidRequest: it is no function, or a generator, or cannot be called with one argument.
    """
    if not callable(handler):
        raise InvalidRequest(f"handler is {handler!r}; it must be a function or a coroutine function")
    _check("handler", handler, _ITEM)
    return handler


def checked_hooks(before: Iterable[Before], after: Iterable[After]) -> tuple[Sequence[Before], Sequence[After]]:
    """
    Return the hooks.

    Raises:
        InvalidRequest: one of them is no function, or a generator, or cannot be called with its arguments.
    """
    hooks = tuple(before), tuple(after)
    for name, each, arguments in (("before", hooks[0], _ITEM), ("after", hooks[1], _RESULT)):
        for place, hook in enumerate(each):
            if not callable(hook):
                raise InvalidRequest(f"{name}[{place}] is {hook!r}; it must be a function or a coroutine function")
            _check(f"{name}[{place}]", hook, arguments)
    return hooks


def _check(name: str, function: Any, arguments: Sequence[str]) -> None:  # noqa: ANN401  (of any signature)
    """
    Check that *function* can be called with *arguments*, and is no generator.

    Otherwise each item would fail with a TypeError, until its attempts are used up.  A signature that cannot be read,
    as of some functions in C, is accepted.
    """
    kinds = function, getattr(function, "__call__", None)  # noqa: B004
    if any(isgeneratorfunction(each) or isasyncgenfunction(each) for each in kinds):
        raise InvalidRequest(f"{name} is {function!r}, a generator; it must be a function or a coroutine function")
    try:
        # A decorator may have wrapped a function that takes more: it gives the rest.
        found = signature(function, follow_wrapped=False)
    except (ValueError, TypeError):
        return
    try:
        found.bind(*arguments)
    except TypeError:
        plain = [each.replace(annotation=Parameter.empty) for each in found.parameters.values()]
        shown = found.replace(parameters=plain, return_annotation=Signature.empty)
        called = getattr(function, "__name__", type(function).__name__)
        wanted = f"{_NUMBERS[len(arguments)]}: {', '.join(arguments)}"
        raise InvalidRequest(f"{name} is {called}{shown}; it must take {wanted}") from None


def is_coroutine_function(handler: Handler) -> bool:
    """Return whether *handler* is a coroutine function, or an object with a coroutine function to call it."""
    return iscoroutinefunction(handler) or iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004
