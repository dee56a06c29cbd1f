"""
Calls as the clients of a queue saw them: when each began and ended, by one monotonic clock, and how.

A call's outcome is one of three.  OK: the reply came.  REFUSED: the server
answered that it did nothing.  UNKNOWN: no reply came, so it happened wholly or
not at all, at an unknown time.
"""

import json
from enum import StrEnum
from math import inf
from pathlib import Path

from attrs import asdict, define, field, fields


class Outcome(StrEnum):
    """How a call ended, as its client saw it."""

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


@define(eq=False, kw_only=True)
class Add(Call):
    """Of items whose contents no other client adds."""

    contents: list[bytes]
    delays: list[float]
    """Seconds."""

    ids: list[bytes] = field(factory=list)


@define(eq=False, kw_only=True)
class Delivered:
    """One item of a poll's reply."""

    id: bytes
    contents: bytes
    attempt: int


@define(eq=False, kw_only=True)
class Poll(Call):
    """For some items, for *span* seconds."""

    span: float
    items: list[Delivered] = field(factory=list)
    lease: bytes = b""
    no_wait: bool = False
    """Whether the poll takes the items that are there and does not wait for more."""


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


@define(eq=False)
class Crash:
    """The server was gone from *down* until *up*."""

    down: float
    up: float


@define(eq=False)
class Break:
    """A connection ended, or could not be made, and the client had no part in it."""

    at: float
    why: str


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

    def of(self, kind):
        """The calls of that kind."""
        return [call for call in self.calls if type(call) is kind]

    def acked_between(self, begin, end):
        """How many calls were answered in that time."""
        return sum(1 for call in self.calls if call.outcome is Outcome.OK and begin <= call.ended <= end)

    @property
    def unknown(self):
        """Return the number of adds, removes and extends whose outcome is unknown."""
        return sum(1 for call in self.calls if call.outcome is Outcome.UNKNOWN and type(call) is not Poll)

    def save(self, path):
        """Write it where `load` finds it."""
        with Path(path).open("w") as file:
            for call in self.calls:
                line = json.dumps([type(call).__name__, asdict(call)], default=bytes.hex)
                print(line, file=file)
            crashes, breaks = (
                [[each.down, each.up] for each in self.crashes],
                [[each.at, each.why] for each in self.breaks],
            )
            file.write(json.dumps(["end", crashes, self.drained, breaks]) + "\n")


KINDS = {kind.__name__: kind for kind in (Add, Poll, Remove, Extend)}


def load(path):
    """A history that was saved."""
    history = History()
    for line in Path(path).read_text().splitlines():
        kind, *rest = json.loads(line)
        if kind == "end":
            history.crashes, history.drained = [Crash(*each) for each in rest[0]], rest[1]
            history.breaks = [Break(*each) for each in rest[2]]
            continue
        values = rest[0]
        values["outcome"] = Outcome(values["outcome"])
        for name in {"id", "lease"} & values.keys():
            values[name] = bytes.fromhex(values[name])
        for name in {"ids", "contents"} & values.keys():
            values[name] = [bytes.fromhex(each) for each in values[name]]
        if kind == "Poll":
            values["items"] = [
                Delivered(
                    id=bytes.fromhex(each["id"]), contents=bytes.fromhex(each["contents"]), attempt=each["attempt"]
                )
                for each in values["items"]
            ]
        assert values.keys() == {each.name for each in fields(KINDS[kind])}
        history.calls.append(KINDS[kind](**values))
    return history
