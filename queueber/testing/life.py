"""Start and stop of a test server, its addresses, and its time."""

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar
from urllib.parse import quote

from twisted.internet.defer import Deferred, succeed

from queueber.limits import DEFAULTS, Limits
from queueber.testing.core import Core
from queueber.testing.reactor_thread import ReactorThread
from queueber.units import MS_PER_SECOND, WallMs

T = TypeVar("T")

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""The time at which a test server begins, unless another is given."""

SOCKET_PATH_MAX: Final = 90
"""The most bytes of a directory for a Unix socket, whose path the system bounds at 107."""


class Adoptee(Protocol):
    """A program whose periodic work goes by the server's time."""

    def next_firing(self, after: WallMs) -> WallMs | None:
        """Return when it has work next after *after*; None if it never has."""

    def fire(self, at: WallMs) -> None:
        """Do the work of the moment *at*, if it has any."""

    def end(self) -> None:
        """Go by the server's time no longer."""


class RunningServer:
    """The life, the addresses and the time of a test server; `TestServer` adds what a test asks and does."""

    def __init__(self, *, start: datetime = START, tcp: bool = False, limits: Limits = DEFAULTS, seed: int = 0) -> None:
        """
        Make a server; `start` runs it.

        Args:
            start: the server's time at its start, with a time zone.
            tcp: whether it listens on a TCP port of the loopback interface, too; `url` then is that of the port.
            limits: its limits.  Those that bound slow peers by time have no effect.
            seed: the source of the jitter in backoffs, which is the same in each run.  With another seed, items that
                fail come back at other times.
        """
        if not isinstance(start, datetime):
            raise TypeError(f"start is {start!r}; it must be a datetime with a time zone")
        if start.tzinfo is None:
            raise ValueError(f"start is {start}, which has no time zone")
        self._start = start
        self._tcp = tcp
        self._limits = limits
        self._seed = seed
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._thread: ReactorThread | None = None
        self._core: Core
        self._directory: str
        self._elapsed = timedelta()
        self._adopted: list[Adoptee] = []

    # Life

    def start(self) -> Self:
        """Start the server, with nothing in it, and return it."""
        with self._lock:
            if self._thread is not None:
                raise RuntimeError("the test server runs already")
            self._pid = os.getpid()
            self._elapsed = timedelta()
            base = tempfile.gettempdir()
            self._directory = tempfile.mkdtemp(
                prefix="queueber-",
                dir=base if len(os.fsencode(base)) <= SOCKET_PATH_MAX else "/tmp",  # noqa: S108
            )
            self._remove_directory = weakref.finalize(self, _remove, self._directory, self._pid)
            self._thread = ReactorThread()
            self._thread.start()
            try:
                self._run(self._begin)
            except BaseException:
                self.stop()
                raise
        return self

    def _begin(self) -> Deferred[None]:
        assert self._thread is not None
        start = self._start.timestamp()
        self._core = Core(self._thread.reactor, start, self._limits, self._directory, seed=self._seed, tcp=self._tcp)
        self._core.listen()
        return succeed(None)

    def stop(self) -> None:
        """Close all connections and end the server.  Without effect on one that does not run, and in a forked child."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None:
                return
            for each in list(self._adopted):
                each.end()
            try:
                if hasattr(self, "_core"):
                    thread.call(self._core.close)
            finally:
                thread.stop()
                self._remove_directory()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, function: Callable[[], Deferred[T]]) -> T:
        """Call *function* on the server's thread, and return the result of its Deferred."""
        thread = self._thread
        if thread is None:
            raise RuntimeError("the test server does not run: use it as a context manager, or call start()")
        return thread.call(function)

    def _do(self, function: Callable[[Core], T]) -> T:
        """Call *function* on the server's thread, after everything that clients have sent before was received."""
        return self._wait(lambda core: succeed(function(core)))

    def _wait(self, function: Callable[[Core], Deferred[T]]) -> T:
        """Do as `_do`, and return the result of the Deferred."""

        def begin() -> Deferred[T]:
            return self._core.quiet().addCallback(lambda _: function(self._core))

        if os.getpid() != self._pid:
            raise RuntimeError("this process was forked from that of the test server: it can only connect to its URL")
        with self._lock:
            result: T = self._run(begin)
            if self._core.deaths:
                what, why = self._core.deaths[0]
                raise AssertionError(f"a bug in Queueber would have ended the server: {what}: {why!r}") from why
            return result

    # Addresses

    def url(self, queue: str | None = None) -> str:
        """Return the URL for `connect`, with the name of a *queue* if one is given."""
        self._require_running()
        if self._core.port is not None:
            path = "" if queue is None else f"/{quote(queue, safe='')}"
            return f"queueber://127.0.0.1:{self._core.port}{path}"
        name = "" if queue is None else f"?queue={quote(queue, safe='')}"
        return f"queueber+unix://{quote(self._core.path)}{name}"

    @property
    def path(self) -> str:
        """The path of the Unix socket."""
        self._require_running()
        return self._core.path

    @property
    def port(self) -> int | None:
        """The TCP port; None without ``tcp=True``."""
        self._require_running()
        return self._core.port

    def _require_running(self) -> None:
        if self._thread is None:
            raise RuntimeError("the test server does not run: use it as a context manager, or call start()")

    # Time

    @property
    def now(self) -> datetime:
        """The server's time, in UTC: the start and all that `advance` was called with."""
        return self._start.astimezone(UTC) + self._elapsed

    def advance(self, seconds: float) -> None:
        """
        Move the server's time on by *seconds*, at least 0.

        Everything that is due on the way happens, in order and at its moment: delays, the ends of leases, of waits, of
        deduplication windows and of times to live.  Clients use real time: they see the effects, not the time.
        Connected clients with a session count as alive meanwhile; see `silence_clients`.  Periodic tasks of adopted
        apps are added at the moments at which they fire.  The last year is 9999.
        """
        if not isinstance(seconds, int | float):
            raise TypeError(f"seconds is {seconds!r}; it must be a number")
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"seconds is {seconds}; it must be 0 or more")
        with self._lock:
            try:
                end = self._elapsed + timedelta(seconds=seconds)
                self._start.astimezone(UTC) + end
            except OverflowError:
                raise ValueError(f"seconds is {seconds:g}; the server's time would be after the year 9999") from None
            while (firing := self._next_firing()) is not None and self._since_start(firing) <= end:
                self._move_to(self._since_start(firing))
                for each in list(self._adopted):
                    each.fire(firing)
            self._move_to(end)

    def advance_until_due(self, *queues: str) -> float:
        """
        Move the server's time on to the moment at which the next delayed item of *queues*, or of any, becomes due.

        So a test need not know how long a failed item waits.

        Returns:
            The seconds by which time has moved; 0 if no item is delayed.
        """
        with self._lock:
            seconds = self._do(lambda core: core.seconds_to_due(queues))
            if seconds:
                self.advance(seconds)
            return seconds

    def _next_firing(self) -> WallMs | None:
        """Return when an adopted app has something to add next."""
        now = WallMs(round(self.now.timestamp() * MS_PER_SECOND))
        return min((at for each in self._adopted if (at := each.next_firing(now)) is not None), default=None)

    def _since_start(self, moment: WallMs) -> timedelta:
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=moment) - self._start

    def _move_to(self, elapsed: timedelta) -> None:
        seconds = (elapsed - self._elapsed).total_seconds()
        self._wait(lambda core: core.advance(seconds))
        self._elapsed = elapsed


def _remove(directory: str, pid: int) -> None:
    """Remove the *directory* of a server, unless this is a child of its process *pid*."""
    if os.getpid() == pid:
        shutil.rmtree(directory, ignore_errors=True)
