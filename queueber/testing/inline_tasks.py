"""Tasks without a server: an add runs the task at once, in the thread and the event loop of the caller."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from inspect import isawaitable, iscoroutinefunction
from typing import Any, TypeVar
from uuid import uuid4

from attrs import define, field
from twisted.internet.defer import Deferred

from queueber.api import DeliveryFacts, PolledItem
from queueber.tasks import Added, Serializer, Tasks
from queueber.tasks.options import TASK_HEADER
from queueber.tasks.task import Producer, ToAdd
from queueber.testing.draining import Run, is_loop_running, verdict_on
from queueber.units import MS_PER_SECOND, WallMs
from queueber.values import ItemOptions, NewItem
from queueber.worker.items import WorkItem
from queueber.worker.verdicts import Decision, Verdict, verdict_of

T = TypeVar("T")


@contextmanager
def inline(app: Tasks) -> Iterator[list[Run]]:
    """
    Run each call of a task of *app* when it is added, within a `with` block and without a server.

    Arguments are encoded and decoded as usual.  Delays, keys, attempts and queues have no effect.  An exception of a
    task is raised by the add, and so is `Reject`.  Steps that a task returns as `Next` run after it.  Other items,
    which it adds with `Done`, are not run; the verdict has them.

    A coroutine function whose call is added by a blocking `add` runs in an event loop of its own.

    Returns:
        The runs so far, each with its item and its verdict.  A task that others have added ends before them.
    """
    connections = app.connections
    producer = Inline(app, connections)
    before, connections.instead = connections.instead, producer
    try:
        yield producer.runs
    finally:
        connections.instead = before


@define(eq=False)
class Inline:
    """Takes the adds of an app, and runs them."""

    _app: Tasks
    _producer: Producer
    runs: list[Run] = field(factory=list, init=False)

    @property
    def serializer(self) -> Serializer:
        """Of the arguments: that of the app."""
        return self._producer.serializer

    def context(self) -> Any:  # noqa: ANN401
        """Return the headers that carry the context of the present trace."""
        return self._producer.context()

    def publishing(self, queue: str, messages: int = 1) -> AbstractContextManager[Any]:
        """Trace an add, as the app does."""
        return self._producer.publishing(queue, messages)

    def add(self, call: ToAdd) -> Added:
        """Run *call*, and all steps that follow."""
        item = _item_of(call.queue, call.item)
        handler = self._handler(item)
        if iscoroutinefunction(handler) and is_loop_running():
            raise RuntimeError("the task is a coroutine function, and an event loop runs here: await its aio.add(…)")
        with self._noted(item):
            returned = handler(item)
            verdict = verdict_of(_finished(returned) if isawaitable(returned) else returned)
        self.runs.append(Run(item, verdict))
        for step in self._steps(call, verdict):
            self.add(step)
        return Added(item.id, call.queue)

    async def add_aio(self, call: ToAdd) -> Added:
        """Run *call*, and all steps that follow, in the present loop."""
        item = _item_of(call.queue, call.item)
        with self._noted(item):
            returned = self._handler(item)(item)
            verdict = verdict_of(await returned if isawaitable(returned) else returned)
        self.runs.append(Run(item, verdict))
        for step in self._steps(call, verdict):
            await self.add_aio(step)
        return Added(item.id, call.queue)

    def add_tx(self, call: ToAdd) -> Deferred[Added]:
        """Run *call*, and all steps that follow, in Twisted's reactor."""
        return Deferred.fromCoroutine(self.add_aio(call))

    def _handler(self, item: WorkItem) -> Any:  # noqa: ANN401
        return self._app.handler_of(item.headers["task"].decode())

    @contextmanager
    def _noted(self, item: WorkItem) -> Iterator[None]:
        """Raise the exception of a task, and not the decision that its attempts or its backoff make of it."""
        try:
            yield
        except Decision as why:
            self.runs.append(Run(item, why.verdict, why.__cause__))
            if why.__cause__ is not None:
                raise why.__cause__ from None
            raise
        except BaseException as why:
            self.runs.append(Run(item, verdict_on(why), why))
            raise

    def _steps(self, call: ToAdd, verdict: Verdict) -> Iterator[ToAdd]:
        """Yield what a run adds for tasks of the app; other items are for others."""
        tasks = {name.encode() for name in self._app.tasks}
        for add in verdict.adds:
            for item in add.items:
                if item.options is not None and dict(item.options.headers).get(TASK_HEADER) in tasks:
                    yield ToAdd(add.queue or call.queue, item)


def _item_of(queue: str, new: NewItem) -> WorkItem:
    """Return an item as a worker gets it at the first attempt."""
    now = WallMs(int(datetime.now(UTC).timestamp() * MS_PER_SECOND))
    options = new.options or ItemOptions()
    polled = PolledItem(bytes(new.contents), uuid4().bytes, 1, now)
    return WorkItem(queue, b"", polled, DeliveryFacts(headers=options.headers))


def _finished(returned: Awaitable[T]) -> T:
    """Run *returned* in an event loop of its own."""

    async def main() -> T:
        return await returned

    # Not `asyncio.run`, which takes away the loop that the test may have set for this thread.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(main())
