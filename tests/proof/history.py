"""
Calls as the clients of a queue saw them: when each began and ended, by one monotonic clock, and how.

A call's outcome is one of three.  OK: the reply came.  REFUSED: the server
answered that it did nothing.  UNKNOWN: no reply came, so it happened wholly or
not at all, at an unknown time.
"""

import json
from bisect import bisect_left
from enum import StrEnum
from math import inf
from pathlib import Path

from attrs import asdict, define, field, fields

BREAKS_SECONDS = 1.0
"""On a busy machine clients notice the end of a server this much earlier than the program that watches it."""

BUSY_SECONDS = 3.0
"""The time before a crash whose calls show how busy the machine was."""


class Outcome(StrEnum):
    """The end of a call, as its client saw it."""

    OK = "ok"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@define(eq=False, kw_only=True)
class Call:
    """Seconds of the monotonic clock; a call that never ended has ended at infinity."""

    queue: str
    invoked: float
    ended: float = inf
    outcome: Outcome = Outcome.UNKNOWN
    kind: int = -1
    """Of the exception, if it was refused: a `queueber.errors.Kind`."""

    why: str = ""
    """The text of the exception."""

    dead: bool = False
    """Whether it was made to the queue's dead items."""

    connection: int = 0
    """The number of the connection over which it was made."""

    is_decided = True
    """Whether an answer that it did nothing says something about the lease."""

    @property
    def line(self):
        """The queue, or its dead items."""
        return self.queue, self.dead

    def concerns(self, poll):
        """Return whether it was made to the queue of *poll*."""
        return self.line == poll.line


@define(eq=False, kw_only=True)
class Add(Call):
    """Of items whose contents no other client adds, except one that sends the same call again."""

    contents: list[bytes]
    delays: list[float]
    """Seconds."""

    ids: list[bytes] = field(factory=list)
    request: bytes = b""
    """The request id, the same for each time that the call is sent."""

    keys: list[bytes] = field(factory=list)
    """The deduplication keys of the items in the same places; empty: none."""

    until_removed: bool = False
    """Whether the keys count until their items are removed, and not for the queue's window."""

    duplicates: list[int] = field(factory=list)
    expiries: list[list[float]] = field(factory=list)
    """
    When the items in the same places expire: at the earliest, at the latest, and in ms of the server's time.

    Nothing of these for an item that does not; empty if none does.
    """


@define(eq=False, kw_only=True)
class Delivered:
    """One item of a poll's reply."""

    id: bytes
    contents: bytes
    attempt: int
    failures: int = 0
    losses: int | None = None
    """None: not known."""

    error: str = ""
    death: str = ""
    """The reason of its last death; empty for an item that never died."""

    died_at: int = 0
    """The moment of its last death, ms of the server's time."""


@define(eq=False, kw_only=True)
class Poll(Call):
    """For some items, for *span* seconds."""

    span: float
    items: list[Delivered] = field(factory=list)
    lease: bytes = b""
    no_wait: bool = False
    """Whether the poll takes the items that are there and does not wait for more."""

    session: bytes = b""
    """The session that keeps the lease; its span is infinite then."""

    queues: list[str] = field(factory=list)
    """The queues of a poll of several, whose items are of `queue`; empty for a poll of one."""

    strict: bool = False
    """Whether it takes from the first of them that has an item."""

    @property
    def lines(self):
        """Return all lines in which it waits."""
        return [(queue, False) for queue in self.queues] or [self.line]


@define(eq=False, kw_only=True)
class Remove(Call):
    """Of one item."""

    id: bytes
    lease: bytes
    done: bool = False


@define(eq=False, kw_only=True)
class Extend(Call):
    """By *span* seconds from then."""

    lease: bytes
    span: float
    done: bool = False


@define(eq=False, kw_only=True)
class Entry:
    """One entry of a settle."""

    lease: bytes
    id: bytes
    """Empty: all items of the lease."""

    action: str
    """`remove`, `fail`, `defer`, `reject` or `extend`."""

    delay: float | None = None
    """Seconds."""

    error: str = ""
    result: str = ""
    """`done`, `lease_lost` or `not_found`; empty without a reply."""

    died: bool = False


@define(eq=False, kw_only=True)
class Settle(Call):
    """Several entries in order, perhaps with items that are added in the same commit."""

    entries: list[Entry]
    everywhere: bool = False
    """Whether it may settle leases of all queues."""

    to: str = ""
    """The queue to which items are added."""

    contents: list[bytes] = field(factory=list)
    delays: list[float] = field(factory=list)
    ids: list[bytes] = field(factory=list)
    all_or_nothing: bool = False
    changed: bool = False


@define(eq=False, kw_only=True)
class Kept:
    """A lease that a session has."""

    lease: bytes
    queue: str
    ids: list[bytes]


@define(eq=False, kw_only=True)
class Attach(Call):
    """Of a session to the call's connection."""

    session: bytes
    grace: float
    """Seconds."""

    leases: list[Kept] = field(factory=list)


@define(eq=False, kw_only=True)
class Ping(Call):
    """Reports the session leases of its connection that have ended without their worker."""

    leases: list[bytes] = field(factory=list)


@define(eq=False, kw_only=True)
class Operate(Call):
    """An operator's call on one item."""

    id: bytes
    action: str
    """`cancel`, `kick` or `reschedule`."""

    low: float = -inf
    """The moment to which `reschedule` moves the item, at the earliest."""

    high: float = inf
    result: str = ""
    """`done`, `not_found` or `leased`; empty without a reply."""

    @property
    def done(self):
        """Return whether it took effect for certain."""
        return self.result == "done"


@define(eq=False, kw_only=True)
class Purge(Call):
    """Of all items that are not leased."""

    items: int = 0


@define(eq=False, kw_only=True)
class Configure(Call):
    """Of the queue, before anything else; the settings are in the history."""


@define(eq=False, kw_only=True)
class Redrive(Call):
    """Of dead items, back to their queue."""

    moved: int = 0


@define(eq=False)
class Crash:
    """The server was gone from *down* until *up*."""

    down: float
    up: float
    busy: float = 0.0
    """The time that calls took before it: what a server does by itself may have been as late."""


@define(eq=False)
class Break:
    """A connection ended, or could not be made, and the client had no part in it."""

    at: float
    why: str
    connection: int = 0


@define(eq=False)
class History:
    """All of it, in the order in which the calls began."""

    calls: list[Call] = field(factory=list)
    crashes: list[Crash] = field(factory=list)
    drained: float = inf
    """
    From when on whatever was not removed is lost.

    A client polled and removed all items, until nothing came for longer than any lease or delay could last.
    """

    breaks: list[Break] = field(factory=list)
    ends: dict[int, float] = field(factory=dict)
    """When each connection that is over ended, by its number, as its client saw it."""

    faults: list[float] = field(factory=list)
    """When the disk failed at a system call of the server."""

    settings: dict[str, dict[str, float]] = field(factory=dict)
    """
    The settings of queues that were configured before anything else.

    Names are those of `queueber.api.control_types.QueueSettings`.
    """

    connections: int = 0
    """The number of connections that were made."""

    _answered: list[float] = field(factory=list, init=False)
    _took: list[tuple[float, float]] = field(factory=list, init=False)

    def end_noticed(self, now, late):
        """
        Return a moment before the end of a server that was noticed *now*, and may have ended *late* seconds before.

        On a busy machine clients notice that end up to `BREAKS_SECONDS` earlier.  What they noticed before it was up is
        the end of another one.
        """
        begin = max([now - BREAKS_SECONDS, *(crash.up for crash in self.crashes)])
        recent = [each for each in self.breaks if each.at > begin]
        # A session that moves ends its older connection while the server lives.
        breaks = [each.at for each in recent if "attached over another connection" not in each.why]
        return min([now - late, *breaks])

    def of(self, kind):
        """The calls of that kind."""
        return [call for call in self.calls if type(call) is kind]

    def acked_between(self, begin, end):
        """Return the number of calls that were answered in that time."""
        return sum(1 for call in self.calls if call.outcome is Outcome.OK and begin <= call.ended <= end)

    @property
    def unknown(self):
        """Return the number of adds, removes and extends whose outcome is unknown."""
        return sum(1 for call in self.calls if call.outcome is Outcome.UNKNOWN and type(call) is not Poll)

    def served_from(self, moment):
        """Return when the first call was answered after *moment*; infinity if none was."""
        if len(self._answered) != len(self.calls):
            ended = sorted(call.ended for call in self.calls if call.outcome is Outcome.OK)
            self._answered = ended + [inf] * (len(self.calls) - len(ended))
        at = bisect_left(self._answered, moment)
        return self._answered[at] if at < len(self._answered) else inf

    def note_busy(self):
        """Note at each crash how busy the machine was before it."""
        self._took = sorted((call.ended, call.ended - call.invoked) for call in self.calls if type(call) is not Poll)
        for crash in self.crashes:
            crash.busy = self.busy_before(crash.down, crash.up)

    def busy_before(self, moment, until=None):
        """Return how long the slowest call took that ended in the seconds before *moment*, polls aside."""
        begin, end = ((each, -inf) for each in (moment - BUSY_SECONDS, moment if until is None else until))
        some = self._took[bisect_left(self._took, begin) : bisect_left(self._took, end)]
        return max((seconds for _, seconds in some), default=0.0)

    def setting(self, queue, name, default=0):
        """Return a setting of a queue."""
        return self.settings.get(queue, {}).get(name, default)

    def save(self, path):
        """Write it where `load` finds it."""
        with Path(path).open("w") as file:
            for call in self.calls:
                line = json.dumps([type(call).__name__, asdict(call)], default=bytes.hex)
                print(line, file=file)
            end = {
                "crashes": [[each.down, each.up] for each in self.crashes],
                "drained": self.drained,
                "breaks": [[each.at, each.why, each.connection] for each in self.breaks],
                "ends": list(self.ends.items()),
                "faults": self.faults,
                "settings": self.settings,
                "connections": self.connections,
            }
            file.write(json.dumps(["end", end]) + "\n")


KINDS = {
    kind.__name__: kind
    for kind in (
        *(Add, Poll, Remove, Extend, Settle, Attach, Ping, Operate, Purge, Configure, Redrive),
        *(Delivered, Entry, Kept),
    )
}
PARTS = {("Poll", "items"): "Delivered", ("Settle", "entries"): "Entry", ("Attach", "leases"): "Kept"}
"""The kind of the parts in a field."""

BYTES = {"id", "lease", "contents", "request", "session", "ids", "keys", ("Ping", "leases")}
"""Fields of bytes, or of lists of bytes."""


def load(path):
    """A history that was saved."""
    history = History()
    for line in Path(path).read_text().splitlines():
        kind, values = json.loads(line)
        if kind == "end":
            history.crashes = [Crash(*each) for each in values["crashes"]]
            history.breaks = [Break(*each) for each in values["breaks"]]
            history.ends = dict(values["ends"])
            history.drained, history.faults = values["drained"], values["faults"]
            history.settings = values["settings"]
            history.connections = values["connections"]
            continue
        history.calls.append(_made(kind, values))
    return history


def _made(kind, values):
    made = {name: _value(kind, name, value) for name, value in values.items()}
    assert made.keys() == {each.name for each in fields(KINDS[kind])}
    return KINDS[kind](**made)


def _value(kind, name, value):
    if name == "outcome":
        return Outcome(value)
    if (kind, name) in PARTS:
        return [_made(PARTS[kind, name], each) for each in value]
    if name in BYTES or (kind, name) in BYTES:
        return [bytes.fromhex(each) for each in value] if isinstance(value, list) else bytes.fromhex(value)
    return value
