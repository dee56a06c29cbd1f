"""Handlers in an asyncio loop: coroutine functions, or functions that return awaitables."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from time import monotonic

from queueber.client_core.process import HERE
from queueber.worker.actions import TakenItem
from queueber.worker.handling import LOG, Handling, exit_child
from queueber.worker.runners import Reports

CANCELLED = asyncio.CancelledError


def end_in() -> tuple[asyncio.Future[None], Callable[[Exception | None], None]]:
    """Return a future of this loop for the end of a worker, and the function that reports it from another thread."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def finish(error: Exception | None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    def on_end(error: Exception | None) -> None:
        try:
            loop.call_soon_threadsafe(finish, error)
        except RuntimeError:
            LOG.debug("the event loop is closed")

    return ended, on_end


async def wait_for_end(ended: asyncio.Future[None], stop: Callable[[], None], seconds: float) -> None:
    """
    Wait for *ended*.

    When this is cancelled, call *stop*, wait for up to *seconds*, and raise `CancelledError`.
    """
    try:
        await asyncio.shield(ended)
    except asyncio.CancelledError:
        if not ended.done():
            stop()
            await asyncio.wait({ended}, timeout=seconds)
        raise


class AioRunner:
    """Handlers as tasks of an asyncio loop."""

    def __init__(self, handling: Handling, reports: Reports) -> None:
        """Run *handling* in the running loop."""
        self.loop_thread: int | None = threading.get_ident()
        self._handling = handling
        self._reports = reports
        self._loop = asyncio.get_running_loop()
        self._pid = HERE.id
        self._tasks: dict[TakenItem, asyncio.Task[None]] = {}

    def start(self, items: Sequence[TakenItem]) -> None:
        """Start a task for each of *items*."""
        self._in_loop(self._start, items)

    def _start(self, items: Sequence[TakenItem]) -> None:
        for taken in items:
            task = self._loop.create_task(self._run(taken))
            # The loop's task factory may be an eager one, which takes the first step at once.
            if taken.begun is None:
                self._tasks[taken] = task
                task.add_done_callback(self._never_begun)

    async def _run(self, taken: TakenItem) -> None:
        # In the task's first step, which a handler that blocks the loop may hold up.
        taken.begin(monotonic())
        task = asyncio.current_task()
        assert task is not None
        self._tasks[taken] = task
        # It reports its end by itself, because the loop takes longer to call back than this does for all the rest.
        task.remove_done_callback(self._never_begun)
        try:
            verdict = await self._handling.run_async(taken.item)
        except GeneratorExit:
            # Raised by the handler, or because the coroutine is dropped; a forked child drops a copy.
            if HERE.id == self._pid:
                del self._tasks[taken]
                self._reports.done(taken, None)
            raise
        if HERE.id != self._pid:
            exit_child()
        del self._tasks[taken]
        self._reports.done(taken, verdict)

    def _never_begun(self, task: asyncio.Task[None]) -> None:
        """Report a task that was cancelled before its first step."""
        taken = next(taken for taken, each in self._tasks.items() if each is task)
        del self._tasks[taken]
        self._reports.done(taken, None)

    def cancel(self, taken: TakenItem, why: str, *, lost: bool) -> None:
        """Cancel the task."""
        taken.item.end(why, lost=lost)
        self._in_loop(self._cancel, taken, why)

    def _cancel(self, taken: TakenItem, why: str) -> None:
        if task := self._tasks.get(taken):
            task.cancel(why)

    def beat(self) -> None:
        """Let the loop report that it runs."""
        self._in_loop(self._reports.loop_turned)

    def close(self) -> None:
        """Do nothing: the loop is its owner's."""

    def _in_loop(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The loop was closed under the worker: its handlers are gone, and the watch of the loop finds out.
            LOG.debug("the event loop is closed")
