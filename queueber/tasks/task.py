"""Tasks: functions that are called directly, or whose calls are added to a queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, Protocol, TypeVar

from queueber.errors import InvalidRequest
from queueber.tasks.options import (
    CONTENT_TYPE_HEADER,
    TASK_HEADER,
    AddOptions,
    Backoff,
    Priority,
    Seconds,
    checked_options,
)
from queueber.tasks.parameters import Parameters
from queueber.tasks.serializer import Serializer
from queueber.values import NewItem

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from queueber.tasks.periodic import Cron, Every

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class Added(NamedTuple):
    """The result of an add, which is on the server's disk."""

    id: bytes
    """The item's id, 16 bytes; that of the first item if this one is a duplicate."""

    queue: str
    duplicate: bool = False
    """Whether nothing was added, because the key was taken."""


class ToAdd(NamedTuple):
    """One call of a task as an item, before it is added; made by `Task.call` for `Tasks.add_many`."""

    queue: str
    item: NewItem
    request_id: bytes = b""
    producer: Producer | None = None
    """The connections of the app whose task it is."""


class Spec(NamedTuple):
    """The definition of a task."""

    name: str
    function: Callable[..., Any]
    parameters: Parameters
    queue: str
    """The name of its queue, with the priority."""

    priority: Priority
    coroutine: bool
    max_attempts: int | None
    backoff: Backoff | Callable[[int], float] | None
    schedule: Every | Cron | None


class Producer(Protocol):
    """The connections of an app, over which its tasks add."""

    @property
    def serializer(self) -> Serializer:
        """Of the arguments."""
        ...

    def context(self) -> Mapping[str, bytes]:
        """Return the headers that carry the context of the present trace."""
        ...

    def publishing(self, queue: str, messages: int = 1) -> AbstractContextManager[Mapping[str, bytes]]:
        """Trace the adding of *messages* items to *queue*; the headers that carry the context are entered."""
        ...

    def add(self, call: ToAdd) -> Added:
        """Add, blocking."""
        ...

    async def add_aio(self, call: ToAdd) -> Added:
        """Add on asyncio."""
        ...

    def add_tx(self, call: ToAdd) -> Deferred[Added]:
        """Add on Twisted."""
        ...


class Adder(Generic[P]):
    """A task with options for its adds."""

    def __init__(self, producer: Producer, spec: Spec, options: AddOptions) -> None:
        """Created by `Tasks.task` and `options`."""
        self._producer = producer
        self._spec = spec
        self._options = options
        self._headers = {
            TASK_HEADER: spec.name.encode(),
            CONTENT_TYPE_HEADER: producer.serializer.content_type.encode(),
        }
        self._empty = options.item(b"", self._headers)
        """The item without contents, so that its options are checked once."""

    def add(self, *args: P.args, **kwargs: P.kwargs) -> Added:
        """
        Add a call of the task with these arguments to its queue; block until it is on the server's disk.

        Raises:
            InvalidRequest: the arguments do not fit, cannot be encoded, or exceed a limit.  Nothing was added.
            QueueberError: as `add_items` of `queueber.sync`.
        """
        with self._producer.publishing(self.queue) as context:
            return self._producer.add(self.prepare(args, kwargs, context))

    def call(self, *args: P.args, **kwargs: P.kwargs) -> ToAdd:
        """
        Return a call of the task with these arguments, for `Tasks.add_many`.

        Raises:
            InvalidRequest: the arguments do not fit, cannot be encoded, or exceed a limit.
        """
        # `add_many` adds the context of the span that sends it.
        return self.prepare(args, kwargs, {})

    @property
    def aio(self) -> AioAdder[P]:
        """Adds on asyncio: `await task.aio.add(…)`."""
        return AioAdder(self._producer, self)

    @property
    def tx(self) -> TxAdder[P]:
        """Adds on Twisted: `await task.tx.add(…)`, after `Tasks.connect_twisted`."""
        return TxAdder(self._producer, self)

    def options(
        self,
        *,
        queue: str | None = None,
        delay: Seconds | None = None,
        due: datetime | None = None,
        expires: datetime | None = None,
        key: str | None = None,
        until_removed: bool | None = None,
        headers: Mapping[str, str | bytes] | None = None,
    ) -> Adder[P]:
        """
        Return the task with other options for its adds.

        Options of several calls add up: `task.options(queue="bulk").options(delay=60)` has both.  Of the same option
        the last one counts; *delay* and *due* replace each other, and headers are added by their names.

        Args:
            queue: the queue, instead of the task's own, which some worker must poll.
            delay: seconds, or a timedelta, from the add until the task may run.
            due: when it may run, a datetime with a time zone.
            expires: the time, likewise, after which it is not started but becomes a dead item.  The server refuses an
                add after that time, or with a delay beyond it.
            key: a second add of this task to this queue with the same key adds nothing, within the queue's
                deduplication window.
            until_removed: the key is remembered until the task is done or dead, instead of for the window.
            headers: delivered with the item; `current_item` has them.

        Raises:
            InvalidRequest: one is of the wrong type or out of range, or two exclude each other.
        """
        found = checked_options(
            self.name,
            self._options,
            queue=queue,
            delay=delay,
            due=due,
            expires=expires,
            key=key,
            until_removed=until_removed,
            headers=headers,
        )
        return Adder(self._producer, self._spec, found)

    def prepare(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], context: Mapping[str, bytes] | None = None
    ) -> ToAdd:
        """
        Return the item for a call with these arguments; *context*: the headers of a trace, by default the present one.

        Raises:
            InvalidRequest: they do not fit, cannot be encoded, or exceed a limit.
        """
        spec, producer = self._spec, self._producer
        spec.parameters.check(args, kwargs)
        try:
            contents = producer.serializer.dump(spec.parameters, args, kwargs)
        except InvalidRequest:
            raise
        except Exception as why:
            raise InvalidRequest(f"the arguments of task {spec.name} cannot be encoded: {why}") from why
        if not isinstance(contents, bytes):
            raise InvalidRequest(f"the serializer returned {type(contents).__name__} for task {spec.name}, not bytes")
        if context is None:
            context = producer.context()
        if context:
            item = self._options.item(contents, {**self._headers, **context})
        else:
            item = self._empty._replace(contents=contents)
        return ToAdd(self._options.queue or spec.queue, item, producer=producer)

    @property
    def has_key(self) -> bool:
        """Whether a key was given."""
        return bool(self._options.dedup_key)

    @property
    def name(self) -> str:
        """The task's name, which its items carry as a header."""
        return self._spec.name

    @property
    def queue(self) -> str:
        """The queue to which it is added."""
        return self._options.queue or self._spec.queue

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} of {self.queue}>"


class AioAdder(Generic[P]):
    """`add` as a coroutine for asyncio."""

    def __init__(self, producer: Producer, adder: Adder[P]) -> None:
        self._producer, self._adder = producer, adder

    async def add(self, *args: P.args, **kwargs: P.kwargs) -> Added:
        """Add a call, as `Adder.add` does, without blocking the loop."""
        with self._producer.publishing(self._adder.queue) as context:
            return await self._producer.add_aio(self._adder.prepare(args, kwargs, context))


class TxAdder(Generic[P]):
    """`add` with a Deferred for Twisted."""

    def __init__(self, producer: Producer, adder: Adder[P]) -> None:
        self._producer, self._adder = producer, adder

    def add(self, *args: P.args, **kwargs: P.kwargs) -> Deferred[Added]:
        """Add a call, as `Adder.add` does.  Errors of arguments are raised, those of the server are in the Deferred."""
        # A span cannot stay current until a Deferred fires: it ends when the call is sent.
        with self._producer.publishing(self._adder.queue) as context:
            return self._producer.add_tx(self._adder.prepare(args, kwargs, context))


class Task(Adder[P], Generic[P, R_co]):
    """
    A function whose calls can be added to a queue.

    Calling the task calls the function directly, without a queue.
    """

    def __init__(self, producer: Producer, spec: Spec, function: Callable[P, R_co]) -> None:
        """Created by `Tasks.task`."""
        super().__init__(producer, spec, AddOptions())
        self._function = function
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function."""
        return self._function(*args, **kwargs)

    def prepare_firing(self, due_ms: int, dedup_key: bytes, request_id: bytes) -> ToAdd:
        """Return the item of one firing of a periodic task, whose function is called without arguments."""
        options = AddOptions(due_ms=due_ms, dedup_key=dedup_key)
        return Adder[[]](self._producer, self._spec, options).prepare((), {})._replace(request_id=request_id)


class Next:
    """
    The next task: if a task returns it, it is added in the commit that removes the task's own item.

    So it is added if and only if the task is done.  `Next(task, …)` takes the
    arguments of the task, `Next(task.options(…), …)` options as well, but no
    key.  A task may also return a list of several.
    """

    def __init__(self, task: Adder[P], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """
        Check and encode the arguments.

        Raises:
            InvalidRequest: as `Adder.add`, or *task* has a key.
        """
        if not isinstance(task, Adder):
            raise InvalidRequest(f"the task of a Next is {task!r}; it must be a task, or what its options return")
        if task.has_key:
            raise InvalidRequest(f"Next of task {task.name} has a key; the next task is added once anyway")
        self.call = task.prepare(args, kwargs)
        """The item to add."""
