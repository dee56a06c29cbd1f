"""
The handler and the hooks of a worker: their check before it begins, and one run of them with its verdict.

`Handling.run` is for threads, `run_async` for loops.  Neither raises, except that
a loop may close the coroutine.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from inspect import (
    Parameter,
    Signature,
    isasyncgenfunction,
    isawaitable,
    iscoroutine,
    iscoroutinefunction,
    isgeneratorfunction,
    signature,
)
from types import CoroutineType
from typing import Any, Final, NoReturn, Protocol, TypeAlias

from attrs import frozen

from queueber.client_core.arguments import flag
from queueber.client_core.process import HERE
from queueber.errors import InvalidRequest
from queueber.values import id_text
from queueber.worker.items import WorkItem
from queueber.worker.verdicts import REMOVE, Decision, Verdict, users_frames, verdict_of, verdict_of_error

LOG = logging.getLogger("queueber.worker")

FORKED_STATUS: Final = 70
"""The exit status of a child that a handler has forked and that returned from the handler."""

Handler: TypeAlias = Callable[[WorkItem], Any]
Before: TypeAlias = Callable[[WorkItem], object]
After: TypeAlias = Callable[[WorkItem, Verdict | None, BaseException | None], object]


_ITEM: Final = ("the item",)
_RESULT: Final = ("the item", "the verdict", "the exception")
_NUMBERS: Final = {1: "one argument", 3: "three arguments"}


class Processing(Protocol):
    """The span of one run, while it is current."""

    def ended(self, verdict: Verdict | None, error: BaseException | None) -> None:
        """Note how the handler ended; *verdict* is None if it was cancelled."""


class Tracer(Protocol):
    """The maker of spans."""

    def processing(self, item: WorkItem) -> AbstractContextManager[Processing]:
        """Return a context in which the handler runs."""


Ending: TypeAlias = tuple[Verdict | None, BaseException | None]
"""The verdict, None if the handler was cancelled, and the exception or None."""


@frozen(eq=False)
class Handling:
    """A handler with all that is done around it."""

    handler: Handler
    before: Sequence[Before] = ()
    """Called with the item before the handler.  An exception is as one of the handler."""

    after: Sequence[After] = ()
    """Called with the item, the verdict (None: cancelled), and the exception or None.  An exception is only logged."""

    tracer: Tracer | None = None
    cancelled: tuple[type[BaseException], ...] = ()
    """The exceptions by which the loop cancels a coroutine."""

    def run(self, item: WorkItem) -> Verdict | None:
        """Run the handler, a plain function, in this thread."""
        if self.tracer is None:
            verdict, error = self._attempt(item)
        else:
            with self.tracer.processing(item) as span:
                verdict, error = self._attempt(item)
                span.ended(verdict, error)
        if error is not None:
            _report(item, error)
        for after in self.after:
            try:
                _not_awaitable(after(item, verdict, error))
            except BaseException:
                LOG.exception("a hook failed after item %s of %s", id_text(item.id), item.queue)
        return verdict

    def _attempt(self, item: WorkItem) -> Ending:
        """Call the handler and the hooks before it."""
        pid = HERE.id
        ending: Ending
        try:
            for before in self.before:
                _not_awaitable(before(item))
            returned = self.handler(item)
            ending = REMOVE if returned is None else verdict_of(_not_awaitable(returned)), None
        except BaseException as why:  # noqa: BLE001  (SystemExit of a handler must not end its thread)
            ending = verdict_of_error(why), why
        if HERE.id != pid:
            exit_child()
        return ending

    async def run_async(self, item: WorkItem) -> Verdict | None:
        """Run the handler, a function that may return an awaitable, in the present loop."""
        if self.tracer is None:
            verdict, error = await self._attempt_async(item)
        else:
            with self.tracer.processing(item) as span:
                verdict, error = await self._attempt_async(item)
                span.ended(verdict, error)
        if error is not None and verdict is not None:
            _report(item, error)
        for after in self.after:
            try:
                await _finished(after(item, verdict, error))
            except GeneratorExit:
                raise
            except BaseException:
                LOG.exception("a hook failed after item %s of %s", id_text(item.id), item.queue)
        return verdict

    async def _attempt_async(self, item: WorkItem) -> Ending:
        """Call the handler and the hooks before it, and await what they return."""
        pid = HERE.id
        ending: Ending
        try:
            for before in self.before:
                await _finished(before(item))
            returned = self.handler(item)
            # The usual case first, for which `_finished` would be another coroutine.
            returned = await (returned if type(returned) is CoroutineType else _finished(returned))
            ending = REMOVE if returned is None else verdict_of(returned), None
        except GeneratorExit:
            raise
        except self.cancelled as why:
            ending = None, why
        except BaseException as why:  # noqa: BLE001  (SystemExit of a handler must not end the loop)
            ending = verdict_of_error(why), why
        if HERE.id != pid:
            exit_child()
        return ending


def exit_child() -> NoReturn:
    """
    End a child process that a handler has forked, and that returned or raised from it.

    The connection is its parent's.  Nothing is logged: a thread of the parent may
    have held the lock of a stream at the time of the fork, and nothing releases it
    here.
    """
    with suppress(OSError):
        os.write(2, b"queueber: a handler has ended in a child process that it has forked; the child ends\n")
    os._exit(FORKED_STATUS)


async def _finished(returned: object) -> object:
    return await returned if isawaitable(returned) else returned


def _not_awaitable(returned: object) -> object:
    """
    Return *returned*.

    Raises:
        TypeError: only an await would give its result.
    """
    if not isawaitable(returned):
        return returned
    if iscoroutine(returned):
        returned.close()
    raise TypeError(
        f"the handler or a hook returned {type(returned).__name__}, which has to be awaited, but runs in a thread;"
        " make the handler a coroutine function, or pass threads=False to the Worker"
    )


def _report(item: WorkItem, error: BaseException) -> None:
    if isinstance(error, Decision):
        # Not the items of a `Done`: their contents are no matter for a log.
        words = [str(each) for each in error.args if isinstance(each, int | float | str) and each != ""]
        text = " ".join([type(error).__name__.lower(), *words])
        LOG.info("item %s of %s, attempt %d: %s", id_text(item.id), item.queue, item.attempt, text)
    else:
        where = type(error), error, users_frames(error.__traceback__)
        LOG.error("item %s of %s failed, attempt %d", id_text(item.id), item.queue, item.attempt, exc_info=where)


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
        InvalidRequest: they are no lists, or one of them is no function, or a generator, or cannot be called with its
            arguments.
    """
    for name, given in (("before", before), ("after", after)):
        if not isinstance(given, Iterable):
            raise InvalidRequest(f"{name} is {given!r}; it must be a list of functions")
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


def runs_in_threads(handler: Handler, threads: bool | None) -> bool:
    """
    Return whether *handler* runs in threads: by *threads*, or if that is None, unless it is a coroutine function.

    Raises:
        InvalidRequest: *threads* is no bool, or it is True and the handler is a coroutine function.
    """
    # An object may have a coroutine function to call it.
    is_coroutine = iscoroutinefunction(handler) or iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004
    if threads is None:
        return not is_coroutine
    if flag("threads", threads) and is_coroutine:
        raise InvalidRequest("threads is True, and handler is a coroutine function, which runs in an event loop")
    return threads
