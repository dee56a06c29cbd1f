"""The tasks of a program: where they are declared, and the parts that a worker and a scheduler need of them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from queueber.client_core.arguments import elements, text
from queueber.client_core.queue_calls import checked_name
from queueber.client_core.url import target_of
from queueber.errors import InvalidRequest
from queueber.tasks.connections import AppConnections
from queueber.tasks.firings import AHEAD_MS, CATCH_UP_MS, Firing, Schedule
from queueber.tasks.many import AioApp, TxApp, checked_calls, with_context
from queueber.tasks.options import (
    PRIORITIES,
    WEIGHTS,
    Backoff,
    BackoffOption,
    Priority,
    Seconds,
    checked_attempts,
    checked_backoff,
    checked_priority,
    checked_span,
    checked_task_name,
    queue_of,
)
from queueber.tasks.parameters import Parameters, is_coroutine_function
from queueber.tasks.periodic import Cron, Every, checked_timing
from queueber.tasks.running import TaskRunner, media_type
from queueber.tasks.scheduler import ClockSeconds, Scheduler, system_clock
from queueber.tasks.serializer import JsonSerializer, Serializer, checked_serializer
from queueber.tasks.task import Added, Spec, Task, ToAdd

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from queueber import client
    from queueber.worker import Worker
    from queueber.worker.verdicts import Decision

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_QUEUE = "default"
"""The name of the server's default queue."""


class Tasks:
    """
    An app: tasks, the server to which they are added, and the handler that runs them.

    Nothing is connected before the first add.  Any thread may add.
    """

    def __init__(
        self,
        url: str,
        *,
        queues: Sequence[str] = (),
        serializer: Serializer | None = None,
        also_reads: Sequence[Serializer] = (),
        resend_adds: bool = True,
        **connect: Any,  # noqa: ANN401
    ) -> None:
        """
        Return an app without tasks.

        Args:
            url: the server and the default queue of tasks, `queueber://host:port/queue`.
            queues: more queues for the workers, for adds with `options(queue=…)`.
            serializer: converts arguments to contents and back; JSON by default.
            also_reads: other serializers whose items the workers accept, while a program changes from one to another.
            resend_adds: send an add again whose reply was lost; it still adds only once.  The URL's parameter of this
                name is ignored.  Without it such an add fails with `OutcomeUnknown`, and so does one that is lost with
                the first connection, before the server has answered whether it recognises repeated adds.
            connect: other options of `connect`.

        Raises:
            InvalidRequest: the URL or another argument cannot be used.
        """
        options = {"resend_adds": resend_adds, **connect}
        self._queue = target_of(text("url", url), **options).queue or DEFAULT_QUEUE
        self._more_queues = [checked_name(each) for each in elements("queues", queues, "a list of names")]
        writes = checked_serializer("serializer", JsonSerializer() if serializer is None else serializer)
        others = elements("also_reads", also_reads, "a list of serializers")
        reads = [checked_serializer(f"also_reads[{at}]", each) for at, each in enumerate(others)]
        self.connections = AppConnections(url, writes, options)
        self._specs: dict[str, Spec] = {}
        self._tasks: dict[str, Task[..., Any]] = {}
        self._runner = TaskRunner(self._specs, {media_type(each.content_type): each for each in (writes, *reads)})

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        queue: str | None = None,
        priority: Priority = "normal",
        max_attempts: int | None = None,
        backoff: BackoffOption = None,
        every: Seconds | None = None,
        cron: str | None = None,
        tz: str | None = None,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        queue: str | None = None,
        priority: Priority = "normal",
        max_attempts: int | None = None,
        backoff: BackoffOption = None,
        every: Seconds | None = None,
        cron: str | None = None,
        tz: str | None = None,
    ) -> Any:
        """
        Make a task of a function or a coroutine function.

        Args:
            function: the function, if the decorator has no other arguments.
            name: the name that items carry, by default the function's own.  It must not change while items are in a
                queue.
            queue: by default that of the app's URL.
            priority: "high" and "low" are queues of their own, named `QUEUE.high` and `QUEUE.low`.
            max_attempts: deliveries after which the item is rejected; with None the queue's settings apply.
            backoff: the wait after a failure: the seconds of the first one, a `Backoff`, or a function of the number of
                failures; with None the queue's settings apply.
            every: the interval in seconds, from 1, or a timedelta.
            cron: fire at these times, for example `*/5 * * * *`.
            tz: the time zone of *cron*, UTC by default.

        Raises:
            InvalidRequest: the name is taken, or an argument cannot be used.
        """
        declare = partial(
            self._declare,
            name=name,
            queue=queue,
            priority=checked_priority(priority),
            max_attempts=checked_attempts(max_attempts),
            backoff=checked_backoff(backoff),
            timing=checked_timing(every, cron, tz),
        )
        return declare if function is None else declare(function)

    def _declare(
        self,
        function: Callable[..., Any],
        *,
        name: str | None,
        queue: str | None,
        priority: Priority,
        max_attempts: int | None,
        backoff: Backoff | Callable[[int], float] | None,
        timing: Every | Cron | None,
    ) -> Task[..., Any]:
        if isinstance(function, Task):
            raise InvalidRequest(f"{function!r} is already a task; decorate its function to make a second one")
        coroutine = is_coroutine_function(function)
        found = checked_task_name(getattr(function, "__name__", "") if name is None else name)
        if found in self._specs:
            raise InvalidRequest(f"there is already a task {found}; give one of them another name: @app.task(name=…)")
        parameters = Parameters(found, function)
        if timing is not None:
            parameters.check((), {})
        self._specs[found] = spec = Spec(
            name=found,
            function=function,
            parameters=parameters,
            # Once more with the priority, which makes it longer.
            queue=checked_name(queue_of(self._queue if queue is None else checked_name(queue), priority)),
            priority=priority,
            coroutine=coroutine,
            max_attempts=max_attempts,
            backoff=backoff,
            schedule=timing,
        )
        self._tasks[found] = task = Task(self.connections, spec, function)
        return task

    @property
    def url(self) -> str:
        """
        The server's URL.

        It may be set, for tests and for programs that read their configuration late, before anything is added or after
        all connections are closed.  The names of queues stay.
        """
        return self.connections.url

    @url.setter
    def url(self, url: str) -> None:
        target_of(text("url", url))
        self.close()
        self.connections.url = url

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """All tasks by their names."""
        return MappingProxyType(self._tasks)

    @property
    def queues(self) -> Mapping[str, int]:
        """
        The queues of all tasks with their weights for a worker, those of higher priority first.

        A worker takes the items of several queues by their weights, so that low priority is served as well, or with
        `strict` always those of the first queue that has any.
        """
        weights: dict[str, int] = {}
        for priority in PRIORITIES:
            for spec in self._specs.values():
                if spec.priority == priority:
                    weights.setdefault(spec.queue, WEIGHTS[priority])
        for queue in self._more_queues:
            weights.setdefault(queue, WEIGHTS["normal"])
        return MappingProxyType(weights)

    @property
    def handler(self) -> Callable[[Any], Decision | None] | Callable[[Any], Coroutine[Any, Any, Decision | None]]:
        """
        The handler for a worker: a function if all tasks are plain functions, else a coroutine function.

        The latter runs plain functions in threads.  Read it after all tasks are declared.
        """
        mixed = any(spec.coroutine for spec in self._specs.values())
        return self._runner.handle_async if mixed else self._runner.handle

    def handler_of(
        self, task: str
    ) -> Callable[[Any], Decision | None] | Callable[[Any], Coroutine[Any, Any, Decision | None]]:
        """Return the handler for the items of one task: a function if the task is one, else a coroutine function."""
        return self._runner.handle_async if self._specs[task].coroutine else self._runner.handle

    def worker(self, **options: Any) -> Worker:  # noqa: ANN401
        """
        Return a worker for the queues of this app; *options* are those of `queueber.worker.Worker`.

        Call it after all tasks are declared.

        Raises:
            InvalidRequest: an option cannot be used, or there are no tasks.
        """
        from queueber.worker import Worker  # noqa: PLC0415  (programs that only add need none)

        if not self.queues:
            raise InvalidRequest(f"{self!r} has no tasks, so a worker would have no queues")
        # A queue of the client, because the worker takes the options of its connection from there.
        return Worker(self.connections.sync().queue(), self.handler, **{"queues": self.queues, **options})

    def scheduler(
        self,
        *,
        ahead: Seconds = AHEAD_MS / 1_000,
        catch_up: Seconds = CATCH_UP_MS / 1_000,
        clock: ClockSeconds = system_clock,
    ) -> Scheduler:
        """
        Return the scheduler of the periodic tasks.  Any number may run.

        Args:
            ahead: seconds by which firings are added before their time.
            catch_up: seconds for which a firing is added late, because no scheduler ran or the server could not be
                reached.  More than the default needs a longer `dedup_window_ms` of the queues.
            clock: returns seconds since the Unix epoch.

        Raises:
            InvalidRequest: there are no periodic tasks, or an argument is out of range.
        """
        timings = {(spec.name, spec.queue): spec.schedule for spec in self._specs.values() if spec.schedule is not None}
        if not timings:
            raise InvalidRequest("there are no periodic tasks: no task has every or cron")
        schedule = Schedule(timings, checked_span("ahead", ahead), checked_span("catch_up", catch_up))
        return Scheduler(schedule, self.connections, self._item_of, frozenset(queue for _, queue in timings), clock)

    def _item_of(self, firing: Firing) -> ToAdd:
        return self._tasks[firing.task].prepare_firing(firing.at, firing.key, firing.request_id)

    def add_many(self, calls: Iterable[ToAdd]) -> list[Added]:
        """
        Add many calls at once, all or none, for little more than the time of one.

        Blocks until they are on the server's disk.

        Each of *calls* is made by `call` of a task, or of what its `options` return.  All are for one queue.  A server
        takes 1,000 of them with 15 MiB, unless it is configured otherwise.

        Returns:
            The results, in the order of *calls*.

        Raises:
            InvalidRequest: a call is of another app, or they are for several queues or exceed a limit.  Nothing was
                added.
            QueueberError: as `add_items` of `queueber.sync`.
        """
        found = checked_calls(self.connections, calls)
        if not found:
            return []
        with self.connections.publishing(found[0].queue, len(found)) as context:
            return self.connections.add_many(with_context(found, context))

    @property
    def aio(self) -> AioApp:
        """Many adds on asyncio: `await app.aio.add_many(…)`."""
        return AioApp(self.connections)

    @property
    def tx(self) -> TxApp:
        """Many adds on Twisted: `await app.tx.add_many(…)`, after `connect_twisted`."""
        return TxApp(self.connections)

    def connect_twisted(self, reactor: Any) -> client.Client:  # noqa: ANN401
        """Return the client over which `tx` adds, made with *reactor* at the first call."""
        return self.connections.connect_twisted(reactor)

    def close(self) -> None:
        """Close the connection of blocking adds; the next add opens another."""
        self.connections.close()

    async def aclose(self) -> None:
        """Close the connection of the running asyncio loop."""
        await self.connections.aclose()

    def close_twisted(self) -> Deferred[None]:
        """Close the connection of `tx`; the next add opens another."""
        return self.connections.close_twisted()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<Tasks {', '.join(self._specs) or 'none'} of {self.url}>"
