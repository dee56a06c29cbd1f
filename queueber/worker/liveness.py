"""
Liveness: whether a worker makes progress, as an object and a file; `health_page` has the page, and `probes` shows both.

A worker makes progress while its polls are answered.  A worker whose handlers are all running does not poll, and makes
progress while they end, its loop runs and the server answers.  The file's modification time is a time at which the
worker made progress, so that a probe compares it with the clock.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import Final

from attrs import asdict, frozen

from queueber.errors import InvalidRequest, reason
from queueber.worker.policy import Counts
from queueber.worker.rules import WorkerRules

LOG = logging.getLogger("queueber.worker")

QUIET_SECONDS: Final = 60.0
"""The time without an answered poll after which a worker that could take items counts as making no progress."""

BUSY_SECONDS: Final = 600.0
"""The time after which a worker whose handlers are all running logs that none has ended."""

FILE_SECONDS: Final = 2.0
"""The least time between two updates of the file."""


@frozen(kw_only=True)
class Health:
    """The state of a worker at one moment."""

    alive: bool
    """Whether it makes progress."""

    why: str
    """The reason why it does not, or what it is doing."""

    connected: bool
    stopping: bool
    last_poll_seconds: float
    """The time since a poll was last answered, or since the start."""

    running: int
    """Running handlers, including those whose item is lost or was returned."""

    prefetched: int
    settling: int
    """Results that the server has not confirmed."""

    abandoned: int
    """Handlers that still run although their item is lost or was returned."""

    polls: int
    """Answered polls, including those without items."""

    delivered: int
    removed: int
    failed: int
    deferred: int
    rejected: int
    lost: int


NOT_STARTED: Final = Health(
    alive=False,
    why="not started",
    connected=False,
    stopping=False,
    last_poll_seconds=0.0,
    running=0,
    prefetched=0,
    settling=0,
    abandoned=0,
    **asdict(Counts()),
)


class Watch:
    """Checks a worker's progress, and reports it in the log and in a file."""

    def __init__(self, file: LivenessFile | None = None) -> None:
        """Touch *file* while the worker makes progress."""
        self._file = file
        self._reported = 0.0
        """When the log last said that it makes no progress, or that no handler ends."""

    def look(self, rules: WorkerRules, now: float, away_since: float | None) -> None:
        """Touch the file, and log each minute if the worker makes no progress."""
        alive, why = judge(rules, now, away_since)
        if alive and self._file is not None:
            self._file.touch(now)
        if not alive and now - self._reported >= QUIET_SECONDS:
            self._reported = now
            LOG.error("the worker makes no progress: %s", why)
        busy = now - max(rules.last_end, rules.last_poll)
        if alive and rules.full and busy >= BUSY_SECONDS and now - self._reported >= BUSY_SECONDS:
            self._reported = now
            LOG.warning("all %d handlers have been running for %.0f s; max_runtime would end them", rules.running, busy)


def judge(rules: WorkerRules, now: float, away_since: float | None) -> tuple[bool, str]:
    """
    Return whether the worker makes progress, and why not, or what it does.

    There is no connection since *away_since*, or there is one if that is None.
    """
    since_poll = now - rules.last_poll
    if rules.stopping:
        return True, "stopping"
    if rules.policy.stall is not None and rules.blocked_seconds >= rules.policy.stall:
        return False, f"the event loop has been blocked for {rules.blocked_seconds:.0f} s"
    if rules.abandoned >= rules.policy.concurrency:
        return False, "all handlers are still running although their items were given up"
    if away_since is not None:
        # A worker that was full had no poll to be answered before that.
        away = now - away_since
        quiet = min(since_poll, away) >= QUIET_SECONDS
        return not quiet, f"not connected for {away:.0f} s; the last poll was answered {since_poll:.0f} s ago"
    quiet = since_poll >= QUIET_SECONDS
    if quiet and not rules.full:
        return False, f"connected, no poll was answered for {since_poll:.0f} s"
    return True, "busy: all handlers are running" if rules.full else "polling" if rules.polling else "waiting to poll"


def health_of(rules: WorkerRules, now: float, away_since: float | None) -> Health:
    """Return the state of a worker."""
    alive, why = judge(rules, now, away_since)
    return Health(
        alive=alive,
        why=why,
        connected=away_since is None,
        stopping=rules.stopping,
        last_poll_seconds=round(now - rules.last_poll, 3),
        running=rules.running,
        prefetched=rules.waiting,
        settling=rules.settling,
        abandoned=rules.abandoned,
        **asdict(rules.counts),
    )


class LivenessFile:
    """A file whose modification time is a time at which the worker made progress."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """
        Create the file at *path*, or use the existing one.

        Raises:
            InvalidRequest: it cannot be written, or is a folder.
        """
        # Imported here, because few workers have a file.
        from pathlib import Path  # noqa: PLC0415

        self._path = Path(path)
        self._touched: float | None = None
        self._reported: float | None = None
        """When the log last said that it cannot be written."""

        try:
            if self._path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
            self._path.touch()
        except OSError as why:
            raise InvalidRequest(f"liveness_file cannot be written: {reason(why)}") from None

    def touch(self, now: float) -> None:
        """Note that the worker makes progress *now*, in monotonic seconds."""
        if self._touched is not None and now - self._touched < FILE_SECONDS:
            return
        self._touched = now
        try:
            self._path.touch()
        except OSError as why:
            if self._reported is None or now - self._reported >= QUIET_SECONDS:
                self._reported = now
                LOG.warning("the liveness file cannot be written: %s", reason(why))

    def remove(self) -> None:
        """Remove the file: the worker has ended.  Raises `OSError` if that cannot be done."""
        self._path.unlink(missing_ok=True)
