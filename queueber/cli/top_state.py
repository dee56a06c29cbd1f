"""
The state of ``queueber top``: samples, rates, the order of the queues, and the effect of each key.

Knows neither the terminal nor the connection: `Top.press` takes the name of a key and returns what the caller must
do, `Top.take` takes the answers of the server, and `queueber.cli.top_view` draws what is here.

| State | Keys | Next |
|---|---|---|
| a list of queues | Enter | the selected queue |
| a list, or a queue | ``w`` | the workers |
| a list, or a queue | ``p``, ``a`` | a question, whose ``y`` pauses or resumes |
| a list | ``/`` | a filter that is being typed, until Enter or Escape |
| a queue, the workers | Escape | the list |
| any, except a filter | ``h``, ``q`` | help; the end |
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any, Final, NamedTuple

from attrs import define, field, frozen

from queueber.api.control_types import ItemView, LeaseView, Listed, QueueCounts, QueueSummary, SettingsInForce
from queueber.cli.queue_output import text_of

RATE_SECONDS: Final = 5.0
"""The time over which a rate is taken."""

SAMPLES_MAX: Final = 100
"""The most samples that are kept for that."""


@frozen(kw_only=True)
class Sample:
    """The queues at one moment."""

    at: float
    """Monotonic seconds at which the answer came."""

    wall_ms: int
    """This moment by the machine's wall clock, in milliseconds since the Unix epoch."""

    queues: Sequence[QueueSummary]
    more: bool
    """Whether there are queues beyond these."""


@frozen(kw_only=True)
class Detail:
    """One queue at one moment."""

    name: str
    dead: bool
    """Whether `items` are dead ones; otherwise those that become due next."""

    settings: SettingsInForce
    items: Listed[ItemView]
    leases: Listed[LeaseView]


@frozen(kw_only=True)
class QueueLeases:
    """The leases on items of one queue."""

    name: str
    leases: Listed[LeaseView]


@frozen(kw_only=True)
class Row:
    """A queue with its rates.  A rate is None until there are two samples."""

    name: str
    counts: QueueCounts
    labels: tuple[tuple[str, str], ...]
    added: float | None
    """Items added in a second."""

    gone: float | None
    """Items that left in a second: removed, dead, expired, cancelled or purged."""


@frozen(kw_only=True)
class Worker:
    """The leases of one peer over the queues that were asked for."""

    peer: str
    """The peer's address; empty for all leases whose peer is no longer known."""

    items: int
    leases: int
    sessions: int
    """Leases that last as long as their session."""

    queues: tuple[str, ...]
    since_ms: int
    """The start of its oldest lease; 0 if that was before the server's start."""


class _Reading(NamedTuple):
    """The counters of a queue in one sample."""

    at: float
    added: int
    gone: int


class Rates:
    """Items added and removed per second of each queue, over the last `RATE_SECONDS`."""

    def __init__(self) -> None:
        self._history: dict[str, deque[_Reading]] = {}

    def note(self, sample: Sample) -> None:
        """Take a sample.  Queues that are not in it are forgotten."""
        history: dict[str, deque[_Reading]] = {}
        for queue in sample.queues:
            past = self._history.get(queue.name) or deque(maxlen=SAMPLES_MAX)
            counts = queue.stats
            if past and (counts.added < past[-1].added or counts.removed < past[-1].gone):
                # Deleted, and made anew under its name: the counters began again.
                past.clear()
            past.append(_Reading(sample.at, counts.added, counts.removed))
            while len(past) > 2 and past[1].at <= sample.at - RATE_SECONDS:  # noqa: PLR2004  (a difference needs two)
                past.popleft()
            history[queue.name] = past
        self._history = history

    def of(self, name: str) -> tuple[float | None, float | None]:
        """Return the items added and removed per second of the queue *name*; None while there is only one sample."""
        past = self._history.get(name)
        if not past or past[-1].at <= past[0].at:
            return None, None
        seconds = past[-1].at - past[0].at
        return (past[-1].added - past[0].added) / seconds, (past[-1].gone - past[0].gone) / seconds


class Screen(Enum):
    """The picture that is shown."""

    QUEUES = "queues"
    QUEUE = "queue"
    WORKERS = "workers"


@frozen
class Quit:
    """End the program."""


@frozen
class Refresh:
    """Ask the server now."""


@frozen(kw_only=True)
class Change:
    """Pause or resume a queue, and then ask the server."""

    queue: str
    adds: bool
    """Whether it concerns adds, or polls."""

    pause: bool
    """Whether to pause, or to resume."""

    @property
    def question(self) -> str:
        """Return the question that asks for confirmation."""
        what = "adds" if self.adds else "polls"
        name = text_of(self.queue)
        if not self.pause:
            return f"Resume the {what} of {name}?"
        effect = "Producers are refused" if self.adds else "Workers get no items"
        return f"Pause the {what} of {name}?  {effect} until it is resumed."


Action = Quit | Refresh | Change


SORTS: Final[dict[str, Callable[[Row], Any]]] = {
    "queue": lambda row: row.name,
    "ready": lambda row: max(row.counts.ready, row.counts.ready_max),
    "delayed": lambda row: max(row.counts.delayed, row.counts.delayed_max),
    "leased": lambda row: row.counts.leased,
    "dead": lambda row: row.counts.dead,
    "in/s": lambda row: row.added or 0.0,
    "out/s": lambda row: row.gone or 0.0,
    # The oldest first, like the largest number; queues without one at the other end.
    "oldest": lambda row: -row.counts.oldest_due_ms if row.counts.oldest_due_ms else float("-inf"),
    "polls": lambda row: row.counts.waiting_polls,
    "bytes": lambda row: row.counts.bytes,
}
"""The columns by which the list can be sorted.  Numbers begin with the largest, names with the first."""

MOVES: Final = {"up": -1, "k": -1, "down": 1, "j": 1}


@define(kw_only=True, eq=False)
class Top:
    """All that is shown, but for the size of the terminal."""

    address: str
    """The server's address, as the user gave it."""

    interval: float
    """Seconds between two samples."""

    sample: Sample | None = None
    detail: Detail | None = None
    leases: Sequence[QueueLeases] = ()
    """The leases of the queues whose workers are shown."""

    error: str = ""
    """Why the last question had no answer; empty if it had one."""

    message: str = ""
    """The outcome of the last change."""

    screen: Screen = Screen.QUEUES
    help: bool = False
    dead: bool = False
    """Whether the dead items of a queue are shown instead of the next ones."""

    sort: str = "ready"
    reverse: bool = False
    filter: str = ""
    typing: bool = False
    """Whether the filter is being typed."""

    asking: Change | None = None
    """The change that waits for a confirmation."""

    selected: str | None = None
    """The queue under the cursor, by its name: it stays selected when the order changes."""

    page: int = 10
    """Rows of the list that fit on the screen."""

    rates: Rates = field(factory=Rates, init=False)

    # Answers

    def take(self, sample: Sample, detail: Detail | None = None, leases: Sequence[QueueLeases] | None = None) -> None:
        """Take the answers to one round of questions; None where nothing was asked."""
        self.sample, self.error = sample, ""
        self.rates.note(sample)
        self.detail = self.detail if detail is None else detail
        self.leases = self.leases if leases is None else leases

    @property
    def opened(self) -> str | None:
        """Return the name of the queue that is shown alone; None if that is none."""
        return self.selected if self.screen is Screen.QUEUE else None

    def rows(self) -> list[Row]:
        """Return the queues that pass the filter, in order."""
        wanted = self.filter.casefold()
        queues = self.sample.queues if self.sample is not None else ()
        rows = [self.row(each) for each in queues if wanted in text_of(each.name).casefold()]
        rows.sort(key=lambda row: row.name)
        key = SORTS[self.sort]
        # A stable sort: queues that are equal stay in the order of their names.
        rows.sort(key=key, reverse=(self.sort != "queue") != self.reverse)
        return rows

    def row(self, queue: QueueSummary) -> Row:
        """Return *queue* with its rates."""
        added, gone = self.rates.of(queue.name)
        return Row(name=queue.name, counts=queue.stats, labels=queue.labels, added=added, gone=gone)

    def found(self, name: str | None) -> Row | None:
        """Return the queue *name*; None if the last sample does not have it."""
        queues = self.sample.queues if self.sample is not None else ()
        return next((self.row(each) for each in queues if each.name == name), None)

    def window(self) -> tuple[list[Row], int, int]:
        """Return the rows that fit on the screen, the cursor's index among them, and the number of rows above them."""
        rows = self.rows()
        cursor = self._cursor(rows)
        if rows:
            self.selected = rows[cursor].name
        first = max(0, min(cursor - self.page // 2, len(rows) - self.page))
        return rows[first : first + self.page], cursor - first, first

    def _cursor(self, rows: Sequence[Row]) -> int:
        return next((at for at, row in enumerate(rows) if row.name == self.selected), 0)

    # Keys

    def press(self, key: str) -> Action | None:
        """Take a key, a character or one of the names of `queueber.cli.top_keys`; return what to do."""
        if self.typing:
            self._type(key)
            return None
        if self.asking is not None:
            change, self.asking = self.asking, None
            return change if key in {"y", "Y"} else None
        self.message = ""
        if self.help:
            self.help = False
            return Quit() if key == "q" else None
        return self._command(key)

    def _type(self, key: str) -> None:
        if key == "enter":
            self.typing = False
        elif key == "escape":
            self.typing, self.filter = False, ""
        elif key == "backspace":
            self.filter = self.filter[:-1]
        elif key == "clear":
            self.filter = ""
        elif len(key) == 1:
            self.filter += key

    def _command(self, key: str) -> Action | None:
        action: Action | None = None
        if key in {"q", " "}:
            action = Quit() if key == "q" else Refresh()
        elif key in {"h", "?"}:
            self.help = True
        elif key in {"p", "a"}:
            self._ask(adds=key == "a")
        elif key == "w":
            action = self._show(Screen.WORKERS)
        elif key in {"escape", "backspace"}:
            if self.screen is Screen.QUEUES:
                self.filter = ""
            action = self._show(Screen.QUEUES)
        elif self.screen is Screen.QUEUES:
            action = self._list(key)
        elif self.screen is Screen.QUEUE and key == "d":
            self.dead = not self.dead
            action = Refresh()
        return action

    def _show(self, screen: Screen) -> Refresh:
        self.screen = screen
        return Refresh()

    def _ask(self, *, adds: bool) -> None:
        row = self.found(self.selected) if self.screen is not Screen.WORKERS else None
        if row is not None:
            paused = row.counts.adds_paused if adds else row.counts.polls_paused
            self.asking = Change(queue=row.name, adds=adds, pause=not paused)

    def _list(self, key: str) -> Action | None:
        """Take a key that means something only in the list of queues."""
        if key == "enter" and self.found(self.selected) is not None:
            self.detail, self.dead = None, False
            return self._show(Screen.QUEUE)
        if key == "/":
            self.typing = True
        elif key == "r":
            self.reverse = not self.reverse
        elif key in {"left", "<", "right", ">", "s"}:
            names = list(SORTS)
            step = -1 if key in {"left", "<"} else 1
            self.sort, self.reverse = names[(names.index(self.sort) + step) % len(names)], False
        else:
            self._move(key)
        return None

    def _move(self, key: str) -> None:
        rows = self.rows()
        if not rows:
            return
        at = self._cursor(rows)
        steps = {**MOVES, "page-up": -self.page, "page-down": self.page, "home": -len(rows), "end": len(rows)}
        steps |= {"g": -len(rows), "G": len(rows)}
        self.selected = rows[max(0, min(len(rows) - 1, at + steps.get(key, 0)))].name


def workers_of(leases: Iterable[QueueLeases]) -> list[Worker]:
    """Return the peers that hold leases, those with the most items first."""
    by_peer: dict[str, list[tuple[str, LeaseView]]] = {}
    for queue in leases:
        for lease in queue.leases.found:
            by_peer.setdefault(lease.peer, []).append((queue.name, lease))
    workers = [
        Worker(
            peer=peer,
            items=sum(lease.items for _, lease in held),
            leases=len(held),
            sessions=sum(lease.session for _, lease in held),
            queues=tuple(sorted({name for name, _ in held})),
            since_ms=min(lease.since_ms for _, lease in held),
        )
        for peer, held in by_peer.items()
    ]
    return sorted(workers, key=lambda worker: (-worker.items, worker.peer))
