"""
Reads of the store, which the end of a server stops.

A commit is waited for, however slow the disk is.  A read is not: once the
connections are closed its result has no use, and a plan that was made from it
would be committed to a store that is about to be closed.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from queueber.server.core.pool import Pool

P = ParamSpec("P")
T = TypeVar("T")


class Reads:
    """
    The storage pool, for jobs that only read or compute.

    | state | `run` | the result of a job |
    |---|---|---|
    | open | begins a job | fires its Deferred |
    | stopped | begins a job | is dropped: the Deferred never fires |
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.stopped = False
        """Whether results are dropped.  Jobs that take long look at it, on their threads, and end early."""

        self.under_way = 0
        """Jobs that have not ended.  The store must stay open for them."""

    @property
    def workers(self) -> int:
        """The number of threads."""
        return self._pool.workers

    @property
    def busy(self) -> int:
        """Threads at work, on other jobs of the pool, too."""
        return self._pool.busy

    @property
    def waiting(self) -> int:
        """Jobs that no thread has begun yet, other jobs of the pool included."""
        return self._pool.waiting

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call *function* on a thread.  Return a Deferred that fires on the reactor's thread with its result."""
        done: Deferred[T] = Deferred()
        self.under_way += 1
        self._pool.run(function, *args, **kwargs).addBoth(self._ended, done)
        return done

    def _ended(self, result: T | Failure, done: Deferred[T]) -> None:
        self.under_way -= 1
        if not self.stopped:
            # Of a Failure, `callback` runs the errbacks.
            done.callback(result)

    def stop(self) -> None:
        """Drop the results of the jobs under way and of all later ones."""
        self.stopped = True
