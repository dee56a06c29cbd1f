"""The threads that access the disk."""

import os
import threading
from collections import deque
from collections.abc import Callable
from io import FileIO
from queue import SimpleQueue
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar

from setproctitle import setthreadtitle
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

P = ParamSpec("P")
T = TypeVar("T")

NAME = "queueber-w"

_Job: TypeAlias = tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]


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

    A lone call waits for the way to a thread and back.  Twisted's `ThreadPool` and
    `callFromThread` take 45 Python calls and nine futex calls for that, a queue
    written in C and an `eventfd` a quarter of that.
    """

    def __init__(self, reactor: Any, workers: int) -> None:  # noqa: ANN401
        self.workers = workers
        self._lock = threading.Lock()
        """Guards the next two."""

        self._backlog: deque[_Job | None] = deque()
        """Jobs that no thread has begun; None ends a thread."""

        self._idle: list[SimpleQueue[_Job | None]] = []
        """
        The inboxes of idle threads, the last to become idle at the end.

        If all waited at one queue, each job would wake a second thread, which contends for the interpreter lock.
        """

        self._busy: set[int] = set()
        self._results = _Results(reactor)
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"{NAME}{number}") for number in range(workers)
        ]

    def start(self) -> None:
        """Start the threads."""
        self._results.start()
        for thread in self._threads:
            thread.start()

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call *function* on a thread.  Return a Deferred that fires on the reactor's thread with its result."""
        done: Deferred[T] = Deferred()
        with self._lock:
            self._backlog.append((done, function, args, kwargs))
            if self._idle:
                self._idle.pop().put(self._backlog.popleft())
        return done

    def _work(self, number: int) -> None:
        setthreadtitle(f"{NAME}{number}")
        inbox: SimpleQueue[_Job | None] = SimpleQueue()
        result: Any
        while True:
            with self._lock:
                if self._backlog:
                    inbox.put(self._backlog.popleft())
                else:
                    self._idle.append(inbox)
            job = inbox.get()
            if job is None:
                break
            done, function, args, kwargs = job
            self._busy.add(number)
            try:
                result = function(*args, **kwargs)
            except BaseException:  # noqa: BLE001  (the caller gets it)
                result = Failure()
            self._busy.discard(number)
            self._results.finished.append((done, result))
            os.eventfd_write(self._results.eventfd, 1)
            # Nothing of a job stays in memory until the next one.
            del job, done, function, args, kwargs, result

    @property
    def busy(self) -> int:
        """Threads at work."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """Jobs that no thread has begun yet."""
        return len(self._backlog)

    def stop(self) -> None:
        """Wait until the threads have run all jobs, and end them."""
        with self._lock:
            self._backlog.extend([None] * self.workers)
            while self._idle:
                self._idle.pop().put(self._backlog.popleft())
        for thread in self._threads:
            thread.join()
        self._results.stop()


@implementer(IReadDescriptor)
class _Results:
    """Results on their way from the threads to the reactor, which reads an `eventfd` that counts them."""

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401
        self._reactor = reactor
        self.finished: deque[tuple[Deferred[Any], Any]] = deque()
        """The threads append to it, and then write to `eventfd`."""

        self.eventfd = -1
        self._file: FileIO
        self.fileno: Callable[[], int]
        # The reactor calls this for each event, and a function in Python would cost more.
        self.logPrefix = "storage".__str__

    def start(self) -> None:
        self.eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._file = FileIO(self.eventfd)
        self.fileno = self._file.fileno
        self._reactor.addReader(self)

    def stop(self) -> None:
        self._reactor.removeReader(self)
        self._file.close()

    def doRead(self) -> None:
        """Fire the Deferreds of the jobs that have finished."""
        os.eventfd_read(self.eventfd)
        finished = self.finished
        while finished:
            done, result = finished.popleft()
            # Of a Failure, `callback` runs the errbacks.
            done.callback(result)

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: the reactor ends, and with it the process."""
