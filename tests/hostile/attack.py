"""Live attacks: their type, and the list of all of them."""

import time
from collections.abc import Callable

from attrs import frozen

from tests.hostile.arena import limits

FIRST, STALLED, REPLIES = 2.0, 2.0, 2.0
"""A timeout of the server's peers, in seconds, for attacks that test it."""

SLACK = 60.0
"""Seconds by which a busy machine may be late."""

P99_MS = 250.0
"""The catalogue's figure for O5, used for all attacks without a figure."""

OPTIONS = tuple(limits(open_answers=20_000))
"""Timeouts at their defaults: on a busy machine an honest peer may be silent for seconds."""

SHORT_TIMEOUTS = (
    *OPTIONS,
    *limits(
        first_message_ms=int(FIRST * 1000),
        stalled_message_ms=int(STALLED * 1000),
        stalled_replies_ms=int(REPLIES * 1000),
    ),
)


@frozen(kw_only=True)
class Attack:
    """One attack."""

    name: str
    entries: tuple[str, ...]
    """The entries of the catalogue."""

    run: Callable[..., str]
    """Carries it out in an `Arena`, asserts what attackers must see, and returns the result in a few words."""

    options: tuple[str, ...]
    alone: bool
    """Whether the server cannot be used afterwards."""

    why_not: str | None
    """Returns the reason why the attack cannot be made here."""

    full_only: bool
    """Whether it takes too long for the tests."""

    files: int | None
    """The number of files that its server may have open; None for no change."""

    tls: bool
    """Whether its server listens with TLS as well: `Arena.ports` has that last."""

    p99_ms: float | None
    """The catalogue's bound of the healthy client's p99; None where the attack makes all clients wait."""

    @property
    def id(self) -> str:
        """Return its name in the list of tests."""
        return self.name.replace(" ", "_")

    @property
    def server(self) -> tuple[str, ...]:
        """Return the options, which are equal for attacks that may share a server."""
        return (*self.options, self.name) if self.alone else (*self.options, *(["with TLS"] if self.tls else []))


ATTACKS: dict[str, Attack] = {}


def attack(entries, *options, alone=False, why_not=None, full_only=False, files=None, tls=False, p99_ms=P99_MS):
    """Return a decorator that enters a function into the list of attacks."""

    def enter(run):
        name = run.__name__.replace("_", " ")
        ATTACKS[name] = Attack(
            name=name,
            entries=tuple(entries.split()),
            run=run,
            options=options or OPTIONS,
            alone=alone,
            why_not=why_not,
            full_only=full_only,
            files=files,
            tls=tls,
            p99_ms=p99_ms,
        )
        return run

    return enter


def turns(arena):
    """Yield again and again, for the duration of the attack; at least once."""
    end = time.monotonic() + arena.seconds
    yield 0
    number = 0
    while time.monotonic() < end:
        number += 1
        yield number
