"""
Plain tasks in threads, for an app that also has coroutine functions: on asyncio and in Twisted's reactor.

Imported when the first one runs, because programs that only add need no threads.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Final, TypeVar

T = TypeVar("T")

THREADS_MAX: Final = 1_000
"""The worker's concurrency is the bound that counts.  The pools of loops and reactors have few threads."""


class Threads:
    """A pool for plain functions, whose callers wait in an event loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="task")

    async def run(self, function: Callable[[], T]) -> T:
        """
        Run *function* in a thread, in a copy of the present context.

        A thread cannot be cancelled.  It may look at its item's `stopping`, and its end is the end of a cancelled call.
        A function that has not begun when its call is cancelled is not run.
        """
        job = self._pool.submit(copy_context().run, function)
        return await (_end_on_asyncio(job) if _in_asyncio_task() else _end_in_twisted(job))


def _in_asyncio_task() -> bool:
    try:
        # A reactor may run on a loop of asyncio; its coroutines are no tasks.
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


async def _end_on_asyncio(job: Future[T]) -> T:
    running = asyncio.wrap_future(job)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if job.cancel():
            raise
        await asyncio.wait([running])
        return running.result()


async def _end_in_twisted(job: Future[T]) -> T:
    from twisted.internet import reactor  # noqa: PLC0415, TID251  (which runs this coroutine)
    from twisted.internet.defer import CancelledError, Deferred  # noqa: PLC0415

    in_reactor: Any = reactor
    waiting = Deferred[None]()
    job.add_done_callback(lambda _: in_reactor.callFromThread(lambda: waiting.callback(None)))
    while not job.done():
        try:
            await waiting
        except CancelledError:
            if job.cancel():
                raise
            # The cancelled one has fired.
            waiting = Deferred()
    return job.result()
