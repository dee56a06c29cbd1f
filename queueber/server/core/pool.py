"""The threads that access the disk."""

import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, ParamSpec, Protocol, TypeVar

from setproctitle import setthreadtitle
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")

NAME = "queueber-w"


class Pool(Protocol):
    """Threads that run jobs."""

    @property
    def workers(self) -> int:
        """The number of threads."""

    @property
    def busy(self) -> int:
        """Threads at work."""

    @property
    def waiting(self) -> int:
        """Jobs that no thread has begun yet."""

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call *function* on a thread.  Return a Deferred that fires on the reactor's thread with its result."""


class StoragePool:
    """
    A thread pool of its own size.

    The reactor's pool also serves DNS look-ups and may be busy with them for
    long.  The threads start with the pool, and the operating system shows their
    names: `queueber-w0` and so on.
    """

    def __init__(self, reactor: Any, workers: int) -> None:  # noqa: ANN401
        self.workers = workers
        self._numbers = count()
        self._pool = ThreadPool(workers, workers, name="queueber")
        self._pool.threadFactory = self._thread  # type: ignore[assignment]
        self.run: Callable[..., Deferred[Any]] = partial(deferToThreadPool, reactor, self._pool)
        """Calls a function on a thread.  Returns a Deferred that fires on the reactor's thread with its result."""

    def _thread(self, target: Callable[[], None], name: str | None = None) -> threading.Thread:
        del name  # Twisted's name is made of the pool's size, not of a number
        title = f"{NAME}{next(self._numbers)}"

        def named() -> None:
            setthreadtitle(title)
            target()

        return threading.Thread(target=named, name=title)

    def start(self) -> None:
        """Start the threads."""
        self._pool.start()
        # Twisted starts a thread when it has work for it.  Ours are visible and ready from the start.
        self._pool.adjustPoolsize(self.workers, self.workers)

    @property
    def busy(self) -> int:
        """Threads at work."""
        return self._pool._team.statistics().busyWorkerCount  # noqa: SLF001  (the public attribute makes a list)

    @property
    def waiting(self) -> int:
        """Jobs that no thread has begun yet."""
        return self._pool._team.statistics().backloggedWorkCount  # noqa: SLF001  (there is no public one)

    def stop(self) -> None:
        """Wait until the threads have run all jobs, and end them."""
        self._pool.stop()
