"""An app of tasks that a test server has adopted: it adds there, and its periodic tasks fire by the server's time."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from queueber.errors import InvalidRequest
from queueber.tasks import Tasks
from queueber.tasks.scheduler import Scheduler
from queueber.units import WallMs


class Adopted:
    """
    An app that uses a test server, until `end` or the end of its `with` block.

    The adoption begins when `TestServer.adopt` returns it, not with the block.
    """

    def __init__(self, app: Tasks, url: str, end: Callable[[Adopted], None]) -> None:
        """
        Made by `TestServer`; *end* is called with this adoption when it ends.

        Raises:
            TypeError: *app* is no app of tasks.
        """
        if not isinstance(app, Tasks):
            raise TypeError(f"{app!r} is not a Tasks")
        self._end = end
        self._app = app
        self._before = app.connections.redirect(url)
        self._ended = False
        self._scheduler: Scheduler | None
        try:
            self._scheduler = app.scheduler()
        except InvalidRequest:  # there are no periodic tasks
            self._scheduler = None

    def next_firing(self, after: WallMs) -> WallMs | None:
        """Return when the app's periodic tasks fire next after *after*; None if they do not."""
        return None if self._scheduler is None else self._scheduler.schedule.next_firing(after)

    def fire(self, at: WallMs) -> None:
        """Add the firings of the moment *at*, blocking."""
        if self._scheduler is not None:
            self._scheduler.fire(at)

    def end(self) -> None:
        """Make the app use its own server again.  Further calls have no effect."""
        if not self._ended:
            self._ended = True
            self._app.connections.redirect(self._before)
            self._end(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, where: TracebackType | None
    ) -> None:
        self.end()
