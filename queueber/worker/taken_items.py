"""The taken items of a worker by their state, and the moves between the states."""

from collections.abc import Iterable, Iterator
from itertools import islice

from queueber.worker.actions import TakenItem, TakenState
from queueber.worker.verdicts import Verdict


class TakenItems:
    """
    All items that are not OVER.

    Each collection is ordered by the time at which its items entered it, so
    that the first of those that run, or that are ending, is the first in time.
    """

    def __init__(self) -> None:
        self.waiting: dict[TakenItem, None] = {}
        self.running: dict[TakenItem, None] = {}
        """Items with a handler that are neither ENDING nor ABANDONED."""

        self.ending: dict[TakenItem, None] = {}
        self.abandoned: dict[TakenItem, None] = {}

    @property
    def with_handler(self) -> int:
        """The number of handlers."""
        return len(self.running) + len(self.ending) + len(self.abandoned)

    def __bool__(self) -> bool:
        """Return whether one needs its lease."""
        return bool(self.waiting or self.running or self.ending)

    def wait(self, items: Iterable[TakenItem]) -> None:
        """Enter new items."""
        self.waiting.update(dict.fromkeys(items))

    def start(self, count: int, now: float) -> list[TakenItem]:
        """Return up to *count* items, those that have waited longest, which are RUNNING from *now* on."""
        items = list(islice(self.waiting, count))
        for taken in items:
            del self.waiting[taken]
            taken.state, taken.started = TakenState.RUNNING, now
            self.running[taken] = None
        return items

    def ask_to_end(self, taken: TakenItem, verdict: Verdict, until: float) -> None:
        """Move a RUNNING item to ENDING: it gets *verdict* unless it succeeds, and has until *until* to end."""
        del self.running[taken]
        taken.state, taken.on_end, taken.ending_until = TakenState.ENDING, verdict, until
        self.ending[taken] = None

    def abandon(self, taken: TakenItem) -> None:
        """Move a RUNNING or ENDING item to ABANDONED."""
        del self._of(taken.state)[taken]
        taken.state = TakenState.ABANDONED
        self.abandoned[taken] = None

    def drop(self, taken: TakenItem) -> TakenState:
        """Move an item to OVER; return the state that it had."""
        state, taken.state = taken.state, TakenState.OVER
        del (self.running if state is TakenState.RUNNING else self._of(state))[taken]
        return state

    def overdue(self, max_runtime: float, now: float) -> Iterator[TakenItem]:
        """Yield the RUNNING items whose handlers began at least *max_runtime* ago."""
        for taken in list(self.running):
            if taken.begun is not None and now >= taken.begun + max_runtime:
                yield taken

    def not_ended(self, now: float) -> Iterator[TakenItem]:
        """Yield the ENDING items whose time is over.  Each has to leave the state."""
        while self.ending and now >= (first := next(iter(self.ending))).ending_until:
            yield first

    def _of(self, state: TakenState) -> dict[TakenItem, None]:
        match state:
            case TakenState.WAITING:
                return self.waiting
            case TakenState.RUNNING:
                return self.running
            case TakenState.ENDING:
                return self.ending
            case _:
                return self.abandoned
