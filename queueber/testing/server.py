"""`TestServer`: a server for the tests of programs that use Queueber."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from queueber.testing.core import Core
from queueber.testing.faults import Fault, Switch, checked_methods
from queueber.testing.inspection import StoredItem
from queueber.testing.life import RunningServer
from queueber.testing.matching import ANY, Expected, Wanted, describe
from queueber.units import counted
from queueber.values import DEFAULT_QUEUE

if TYPE_CHECKING:
    from queueber.tasks import Tasks
    from queueber.testing.adopted import Adopted
    from queueber.testing.draining import Run

RUNS_MAX: Final = 10_000
"""A handler that runs more often in one `drain` probably adds what it takes."""


class TestServer(RunningServer):
    """
    A server for tests: the real one, on a store in memory, with a clock that the test moves.

    It runs in a thread of this process from `start` to `stop`, or in a `with` block, and is reached over a real socket:
    by clients of every kind in this process, in others and in other threads.  Its time moves only by `advance`; what
    needs no time happens at once.  All methods are thread-safe, block for milliseconds, and see everything that clients
    sent before the call.

    Errors: methods raise `RuntimeError` when the server does not run, and `AssertionError` after a bug of the server.
    """

    __test__ = False  # pytest would take the class for one with tests

    # Items

    def items(self, queue: str = DEFAULT_QUEUE) -> list[StoredItem]:
        """Return the items of *queue*, leased and delayed ones included, in the order in which they become due."""
        return self._do(lambda core: core.inspector.items(queue, core.time.queue_clock.now()))

    def dead(self, queue: str = DEFAULT_QUEUE) -> list[StoredItem]:
        """Return the dead items of *queue*, the first to die first."""
        return self._do(lambda core: core.inspector.dead(queue))

    def added(self, queue: str | None = None) -> list[StoredItem]:
        """Return all items that were ever added to *queue*, or to any, in order; `state` is None for those removed."""
        found = self._do(lambda core: core.inspector.added(core.time.queue_clock.now()))
        return [item for item in found if queue in {None, item.queue}]

    def queues(self) -> list[str]:
        """Return the names of the queues that have been used."""
        return self._do(lambda core: core.inspector.queues())

    def configure(self, queue: str = DEFAULT_QUEUE, **settings: Any) -> None:  # noqa: ANN401
        """
        Change the settings with these names, the fields of `queueber.api.control_types.QueueSettings`, of *queue*.

        Raises:
            TypeError: there is no such setting.
            InvalidRequest: a value is out of range.
        """
        self._do(lambda core: core.configure(queue, settings))

    # Assertions

    def assert_added(
        self,
        queue: str | None = None,
        *,
        contents: Expected | None = None,
        json: Any = ANY,  # noqa: ANN401
        task: Any = None,  # noqa: ANN401
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        headers: Mapping[str, bytes | str] | None = None,
        delay: float | None = None,
        count: int | None = None,
    ) -> list[StoredItem]:
        """
        Assert that items were added to *queue*, or to any, since the start, even if they have been removed since.

        Args:
            queue: the name of the queue.
            contents: the contents, as bytes or text, or a function that says whether it accepts them.
            json: the contents as a value of JSON.
            task: a task, or its name: the item is a call of it.
            args: the positional arguments of the call.
            kwargs: the keyword arguments of the call.
            headers: headers that the item has, among others.
            delay: the seconds for which it was delayed.
            count: how many such items there are; None: at least one.

        Returns:
            The items that meet all conditions, in the order of their adds.

        Raises:
            AssertionError: there is no such item, or another number of them.  The text lists what was added.
        """
        wanted = Wanted(
            contents=contents,
            json=json,
            task=_task_name(task),
            args=args,
            kwargs=kwargs,
            headers=headers or {},
            delay=delay,
        )
        everything = self.added()
        there = [item for item in everything if queue in {None, item.queue}]
        found = [item for item in there if wanted.matches(item)]
        if found if count is None else len(found) == count:
            return found
        raise AssertionError(_difference(queue, wanted, count, found, there, everything))

    def assert_nothing_added(self, queue: str | None = None) -> None:
        """
        Assert that no item was added to *queue*, or to any, since the start.

        Raises:
            AssertionError: there was one.  The text lists them.
        """
        self.assert_added(queue, count=0)

    def assert_empty(self, *queues: str) -> None:
        """
        Assert that *queues*, or all, have no items: neither ready, delayed, leased nor dead ones.

        Raises:
            AssertionError: there are some.  The text lists them.
        """
        left = [item for name in queues or self.queues() for item in (*self.items(name), *self.dead(name))]
        if left:
            raise AssertionError(f"{counted(len(left), 'item')} left:\n{describe(left, with_queue=True)}")

    # Handlers

    def adopt(self, app: "Tasks") -> "Adopted":
        """
        Make *app* use this server instead of that of its URL.  Its periodic tasks fire when `advance` moves the time.

        That lasts until the end of the returned adoption, a context manager, or until this server stops.
        """
        from queueber.testing.adopted import Adopted  # noqa: PLC0415  (tasks, for those who use them)

        adopted = Adopted(app, self.url(), self._adopted.remove)
        self._adopted.append(adopted)
        return adopted

    def drain(
        self,
        work: Any,  # noqa: ANN401
        *queues: str,
        runs_max: int = RUNS_MAX,
        raise_errors: bool = True,
    ) -> "list[Run]":
        """
        Run a handler in this thread for every item that is ready, one at a time, until none is.

        Each item is settled as a worker would: removed after a success, failed after an exception, and so on.  Items
        that the handler adds are run too if they are ready.  Time does not move.

        Args:
            work: a `queueber.tasks.Tasks`, a `queueber.worker.Worker`, or a worker's handler.  A coroutine is run by an
                event loop of its own.
            queues: the names of the queues, those of *work* by default; the first that has items is served.
            runs_max: the maximum number of runs.
            raise_errors: whether an exception of the handler ends this and is raised, once its item is settled; so for
                the `InvalidRequest` of a verdict that the server refuses, whose item fails.

        Returns:
            The runs, in order, each with its item, its verdict and its error.

        Raises:
            AssertionError: there were more runs than *runs_max*.
            RuntimeError: the handler is a coroutine function or returns an awaitable, and an event loop runs in this
                thread: await `drain_async`.
            TypeError: *work* is no app, and no handler with queues.
        """
        from queueber.testing import draining  # noqa: PLC0415  (a client and a worker, for those who use them)

        return draining.drain(self.url(), draining.work_of(work, queues), runs_max, raise_errors=raise_errors)

    async def drain_async(
        self,
        work: Any,  # noqa: ANN401
        *queues: str,
        runs_max: int = RUNS_MAX,
        raise_errors: bool = True,
    ) -> "list[Run]":
        """
        Do as `drain`, with a handler whose results are awaited in the present event loop.

        That may be one of asyncio, or Twisted's reactor: handlers may return Deferreds there.
        """
        from queueber.testing import draining  # noqa: PLC0415

        work = draining.work_of(work, queues)
        return await draining.drain_async(self.url(), work, runs_max, raise_errors=raise_errors)

    # Faults

    def lose_next_reply(self, method: str | None = None) -> Fault:
        """
        Lose the next reply to *method*, or to any call on items: the call takes effect, then the connection is cut.

        *method* is ``add``, ``poll``, ``remove``, ``settle`` or another one of the schema.
        """
        switch = Switch(checked_methods(method), times=1)
        return self._switch_on(lambda core: core.faults.lose, switch)

    def overloaded(self, method: str | None = None, *, times: int | None = None) -> Fault:
        """Fail calls of *method*, or all on items, with `Overloaded`: the next *times* calls, or all."""
        switch = Switch(checked_methods(method), times=times)
        return self._switch_on(lambda core: core.faults.overload, switch)

    def _switch_on(self, place: Callable[[Core], list[Switch]], switch: Switch) -> Fault:
        def off(core: Core) -> None:
            if switch in place(core):
                place(core).remove(switch)

        self._do(lambda core: place(core).append(switch))
        return Fault(switch, lambda: self._unless_stopped(off))

    def hanging(self) -> Fault:
        """Read nothing and reply to nothing, like a server whose process is suspended; connections are accepted."""
        switch = Switch()
        self._do(lambda core: core.hang(switch))
        return Fault(switch, lambda: self._unless_stopped(lambda core: core.end_hang(switch)))

    def down(self) -> Fault:
        """Drop all connections and refuse new ones.  The items stay."""
        fault = self.refuse_connections()
        self.drop_connections()
        return fault

    def refuse_connections(self) -> Fault:
        """Refuse new connections.  Those that are open stay."""
        switch = Switch()
        self._wait(lambda core: core.refuse(switch))
        return Fault(switch, lambda: self._unless_stopped(lambda core: core.end_refusal(switch)))

    def drop_connections(self) -> int:
        """Cut all connections, and return how many there were.  Clients may connect again at once."""
        return self._wait(lambda core: core.drop_connections())

    def silence_clients(self) -> Fault:
        """
        Receive nothing more from the clients that are connected now, as if their machines had vanished.

        `advance` then ends their sessions, after the silence that the server allows and the session's grace.
        """
        switch = Switch()
        self._do(lambda core: core.silence(switch))
        return Fault(switch, lambda: self._unless_stopped(lambda core: core.end_silence(switch)))

    def _unless_stopped(self, function: Callable[[Core], Any]) -> None:
        with self._lock:
            if self._thread is not None:
                self._do(function)

    def end_lease(self, lease: Any) -> bool:  # noqa: ANN401
        """
        End *lease*, as if it had expired: its items are redelivered, and a loss is counted.

        *lease* is its id, or an object with the attribute `lease`: an item, a batch, a `StoredItem`.

        Returns:
            Whether it had not ended before.
        """
        wanted = bytes(getattr(lease, "lease", lease))
        return bool(self._do(lambda core: core.end_lease(lambda each: each.id == wanted)))

    def end_leases(self, queue: str | None = None) -> int:
        """End all leases on items of *queue*, or of all queues, as if they had expired.  Returns their number."""
        return self._do(lambda core: core.end_lease(lambda each: queue in {None, core.queue_of(each)}))


def _task_name(task: Any) -> str | None:  # noqa: ANN401
    """Return the name of *task*, which is one, or a task that has one."""
    return task if task is None or isinstance(task, str) else str(task.name)


def _difference(
    queue: str | None,
    wanted: Wanted,
    count: int | None,
    found: Sequence[StoredItem],
    there: Sequence[StoredItem],
    everything: Sequence[StoredItem],
) -> str:
    """Return the text of a failed assertion about added items."""
    where = "" if queue is None else f" to queue {queue!r}"
    if count is None:
        said = f"no item {wanted} was added{where}"
    else:
        said = f"{counted(len(found), 'item')} {wanted} added{where}, not {count}"
    if there:
        return f"{said}; added were:\n{describe(there, with_queue=queue is None)}"
    if everything:
        return f"{said}; added to other queues were:\n{describe(everything, with_queue=True)}"
    return f"{said}; nothing was added to any queue"
