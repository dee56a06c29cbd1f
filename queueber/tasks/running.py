"""
A worker's handler for the items that tasks have added.

An item that cannot be run is rejected with the reason: it becomes a dead item, and can be moved back once the program
knows its task.  Results are not kept.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from queueber.tasks.options import CONTENT_TYPE_HEADER, TASK_HEADER, Backoff
from queueber.tasks.parameters import Unrunnable
from queueber.tasks.serializer import Serializer
from queueber.tasks.task import Next, Spec
from queueber.values import Action, AddTo, id_text
from queueber.worker.verdicts import Decision, Done, Fail, Reject, error_text, users_frames

if TYPE_CHECKING:
    from queueber.tasks.threads import Threads

T = TypeVar("T")

_log = logging.getLogger("queueber.tasks")

_current: ContextVar[Any] = ContextVar("queueber.tasks.current_item")


def current_item() -> Any:  # noqa: ANN401
    """
    Return the item of the task that is running: its id, attempt, failures, headers and the like.

    Raises:
        LookupError: no worker is running a task here.
    """
    try:
        return _current.get()
    except LookupError:
        raise LookupError("no item: this code was not called by a worker that runs a task") from None


TaskCall: TypeAlias = tuple[Spec, Sequence[Any], Mapping[str, Any]]
"""A task and the arguments that an item has for it."""


class TaskRunner:
    """Runs the tasks of an app; `handle` and `handle_async` are handlers of a worker."""

    def __init__(self, tasks: Mapping[str, Spec], serializers: Mapping[str, Serializer]) -> None:
        """Return the runner of *tasks*; *serializers* returns those that it reads, by content type, its own first."""
        self._tasks = tasks
        self._serializers = serializers
        self._threads: Threads | None = None
        self._found: dict[tuple[Any, Any], tuple[Spec, Serializer]] = {}
        """The tasks and serializers of earlier items, by the headers that their items have without parameters."""

    def handle(self, item: Any) -> Decision | None:  # noqa: ANN401
        """Run the task of *item*, a plain function, in this thread."""
        spec, args, kwargs = self.open(item)
        try:
            token = _current.set(item)
            try:
                result = spec.function(*args, **kwargs)
            finally:
                _current.reset(token)
            return None if result is None else decision_of(spec, item, result)
        except Exception as why:
            decision = failure_of(spec, item, why)
            if decision is None:
                raise
            raise decision from why

    async def handle_async(self, item: Any) -> Decision | None:  # noqa: ANN401
        """Run the task of *item*: a coroutine function in this loop, a plain one in a thread."""
        spec, args, kwargs = self.open(item)
        try:
            token = _current.set(item)
            try:
                if spec.coroutine:
                    result = await spec.function(*args, **kwargs)
                else:
                    result = await self._in_thread(partial(spec.function, *args, **kwargs))
            finally:
                _current.reset(token)
            return None if result is None else decision_of(spec, item, result)
        except Exception as why:
            decision = failure_of(spec, item, why)
            if decision is None:
                raise
            raise decision from why

    def open(self, item: Any) -> TaskCall:  # noqa: ANN401
        """
        Return the call that *item* stands for.

        Raises:
            Reject: there is none, or the task's attempts are used up.
        """
        try:
            call = self._opened(item)
        except Unrunnable as why:
            raise Reject(str(why)) from None
        spec = call[0]
        most = spec.max_attempts
        if most is not None and item.attempt > most:
            raise Reject(
                f"attempt {item.attempt} of task {spec.name} would exceed its {most}: "
                f"{item.failures} failed, the worker was lost in {item.losses}"
            )
        return call

    def _opened(self, item: Any) -> TaskCall:  # noqa: ANN401
        headers = dict(item.headers)
        found = self._found.get((headers.get(TASK_HEADER), headers.get(CONTENT_TYPE_HEADER)))
        spec, serializer = self._find(headers) if found is None else found
        try:
            args, kwargs = serializer.load(spec.parameters, item.contents)
        except Unrunnable:
            raise
        except Exception as why:
            text = f"the contents for task {spec.name} cannot be decoded: {type(why).__name__}: {why}"
            raise Unrunnable(text) from why
        return spec, args, kwargs

    def _find(self, headers: Mapping[str, Any]) -> tuple[Spec, Serializer]:
        """
        Return the task and the serializer that *headers* name.

        Raises:
            Unrunnable: one of them is unknown here.
        """
        name = _text_header(headers, TASK_HEADER)
        if name is None:
            raise Unrunnable("the item has no header task, so it was not added by a task")
        spec = self._tasks.get(name)
        if spec is None:
            raise Unrunnable(f"there is no task {name!r} here; this program has {', '.join(self._tasks) or 'none'}")
        serializers = self._serializers
        kind = _text_header(headers, CONTENT_TYPE_HEADER) or next(iter(serializers))
        serializer = serializers.get(media_type(kind))
        if serializer is None:
            raise Unrunnable(f"the contents for task {name} are {kind}; this program reads {', '.join(serializers)}")
        if kind in serializers and isinstance(headers.get(CONTENT_TYPE_HEADER), bytes):
            self._found[name.encode(), kind.encode()] = spec, serializer
        return spec, serializer

    async def _in_thread(self, function: Callable[[], T]) -> T:
        if self._threads is None:
            # Imported here, because programs that only add do without.
            from queueber.tasks.threads import Threads  # noqa: PLC0415

            self._threads = Threads()
        return await self._threads.run(function)


def media_type(text: str) -> str:
    """Return a content type without its parameters, in lower case."""
    return text.partition(";")[0].strip().lower()


def _text_header(headers: Mapping[str, Any], name: str) -> str | None:
    value = headers.get(name)
    if value is None or isinstance(value, str):
        return value
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise Unrunnable(f"the header {name} is not UTF-8: {bytes(value)[:40]!r}") from None


def decision_of(spec: Spec, item: Any, result: object) -> Decision | None:  # noqa: ANN401
    """Return the worker's decision for a task that has returned *result*; None removes its item."""
    if isinstance(result, Next):
        return Done([AddTo(result.call.queue, [result.call.item])])
    if isinstance(result, list | tuple | set | frozenset) and any(isinstance(each, Next) for each in result):
        if strange := [each for each in result if not isinstance(each, Next)]:
            raise TypeError(f"task {spec.name} returned next steps together with a {type(strange[0]).__name__}")
        return Done([AddTo(each.call.queue, [each.call.item]) for each in result])
    if isinstance(result, type) and issubclass(result, Decision):
        # As in `raise Defer`: the class counts as a decision without arguments.
        result = result()
    if isinstance(result, Decision):
        return failure_of(spec, item, result) or result
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        # It may yield next steps, which a removal would lose.
        raise TypeError(f"task {spec.name} returned a {type(result).__name__}, which was never iterated; return a list")
    if inspect.isawaitable(result):
        # Nothing was done yet, and a removal would lose it.
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(
            f"task {spec.name} returned a {type(result).__name__}, which was not awaited; "
            "a task that waits is declared with async def, and so is a function that wraps it"
        )
    return None


def failure_of(spec: Spec, item: Any, why: Exception) -> Decision | None:  # noqa: ANN401
    """Return the decision by a task's attempts and backoff, in place of *why*, which it has raised; None: keep that."""
    if isinstance(why, Decision) and why.verdict.action is not Action.FAIL:
        return None
    last = spec.max_attempts is not None and item.attempt >= spec.max_attempts
    if not last and (spec.backoff is None or (isinstance(why, Decision) and why.verdict.delay is not None)):
        return None
    text = why.verdict.error if isinstance(why, Decision) else error_text(why)
    decision: Decision
    if last:
        decision = Reject(f"attempt {item.attempt} of {spec.max_attempts} failed: {text}")
    else:
        decision = Fail(_delay(spec.backoff, item.failures + 1), text)
    if not isinstance(why, Decision):
        decision.error = why
        # The worker logs the traceback of an error, but not that of a decision.
        where = type(why), why, users_frames(why.__traceback__)
        _log.error("task %s of item %s failed, attempt %d", spec.name, id_text(item.id), item.attempt, exc_info=where)
    return decision


def _delay(backoff: Backoff | Callable[[int], float] | None, failures: int) -> float | None:
    if isinstance(backoff, Backoff):
        # Imported here, because few tasks have a backoff of their own.
        import random  # noqa: PLC0415

        return backoff.delay(failures, random.random())  # noqa: S311  (jitter is no secret)
    return None if backoff is None else backoff(failures)
