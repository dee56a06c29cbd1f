"""The parts of a server in memory: a store without a disk, jobs that are run on request, a fixed jitter, settings."""

import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, ParamSpec, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred

from queueber.errors import StorageError
from queueber.limits import Limits
from queueber.server.config.settings import Settings
from queueber.server.core.ids import RandomIds
from queueber.store import Durability, MemoryStore

P = ParamSpec("P")
T = TypeVar("T")


class SeededJitter(RandomIds):
    """Random ids, and a jitter of backoffs that is the same in each run: ids of two servers must differ."""

    def __init__(self, seed: int) -> None:
        """Draw the jitter from *seed*."""
        super().__init__()
        self._jitter = Random(seed)  # noqa: S311  (spreads retries, and protects nothing)

    def below(self, bound: int) -> int:
        """Return an integer from 0 to *bound* - 1, the next of the seed."""
        return self._jitter.randrange(bound)


class StepPool:
    """A storage pool that runs each job when `step` is called."""

    workers = 1
    busy = 0

    def __init__(self) -> None:
        self.jobs: deque[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = deque()

    @property
    def waiting(self) -> int:
        """The number of jobs that `step` has not run."""
        return len(self.jobs)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Queue a job.  Return a Deferred that fires once `step` has run it."""
        done: Deferred[T] = Deferred()
        self.jobs.append((done, function, args, kwargs))
        return done

    def step(self) -> None:
        """Run the oldest job."""
        done, function, args, kwargs = self.jobs.popleft()
        try:
            result = function(*args, **kwargs)
        except Exception:  # noqa: BLE001  (as a thread pool does)
            done.errback()
        else:
            done.callback(result)


class DisklessStore(MemoryStore):
    """A `MemoryStore` that a server can run on: no log to sync, no memory to flush, no backup."""

    unflushed_bytes = 0

    def reclaim_space(self) -> None:
        """Do nothing: the space of removed items is free already."""

    def note_synced(self) -> None:
        """Do nothing: there is no log."""

    def properties(self) -> dict[str, int]:
        """Return no property: there is no engine."""
        return {}

    def backup(self, target: Path, progress: Callable[[int, int], None]) -> None:  # noqa: ARG002
        """Refuse the backup."""
        raise StorageError("a store in memory cannot be backed up")


def settings_in_memory(limits: Limits, chosen: Mapping[str, Any]) -> Settings:
    """Return the settings of a server that listens nowhere and keeps nothing on a disk, but for what was *chosen*."""
    settings = Settings(
        listen=(),
        data_dir=Path(tempfile.gettempdir()),
        workers=1,
        durability=Durability.NONE,
        lease_sweep_interval=1.0,
        limits=limits,
        free_space_reserve=0,
    )
    return evolve(settings, **chosen)
