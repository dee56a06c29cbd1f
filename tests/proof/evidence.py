"""Whether enough happened for a history without a fault to prove something."""

import asyncio
import time
from math import inf

from history import Add, Extend, Outcome, Poll, Remove

ACKED_A_SECOND = 100
CONNECTING_SECONDS = 0.1
LONGEST_SECONDS = 30.0
"""For how long a life is drawn out, where little is answered."""

FAULTS_PER_UNKNOWN = 5
LEAST_PER_LIFE = {"items added": 10, "items taken": 10, "removes": 10, "extends": 1, "items that came back": 0.5}
"""Of what took effect, in each life of a server under load, on average."""


def enough_for(history, begin, seconds):
    """Whether as much has been answered since *begin* as in a life of so many seconds, however long that took."""
    # The clients' first moments go into connecting.
    return history.acked_between(begin, inf) >= ACKED_A_SECOND * (seconds - CONNECTING_SECONDS)


async def under(load, history, seconds, lives=0):
    """Wait for *seconds* under *load*, and where little is answered until there was enough for so many *lives*."""
    begin = time.monotonic()
    await asyncio.wait([load], timeout=seconds)
    while not load.done() and time.monotonic() < begin + LONGEST_SECONDS:
        if enough_for(history, begin, seconds) and not lacking_in(history, lives):
            return
        await asyncio.wait([load], timeout=CONNECTING_SECONDS)


def unknown_since(history, begin):
    """Return the number of adds, removes and extends since *begin* whose outcome is unknown."""
    return sum(
        1
        for each in history.calls
        if each.invoked >= begin and each.outcome is Outcome.UNKNOWN and type(each) is not Poll
    )


def effects(history):
    """How much of each kind took effect."""
    polls = history.of(Poll)
    return {
        "items added": sum(len(each.ids) for each in history.of(Add)),
        "items taken": sum(len(each.items) for each in polls),
        "removes": sum(each.done for each in history.of(Remove)),
        "extends": sum(each.done for each in history.of(Extend)),
        "items that came back": sum(item.attempt > 1 for each in polls for item in each.items),
    }


def lacking_in(history, lives):
    """Return the kinds of calls that were too rare in this number of lives under load."""
    return [
        f"{count} {kind} in {lives} lives"
        for kind, count in effects(history).items()
        if count < LEAST_PER_LIFE[kind] * lives
    ]


def too_few_unknown(history, faults):
    """Whether so many faults caught next to nothing in flight."""
    return unknown_since(history, 0.0) * FAULTS_PER_UNKNOWN < faults
