"""Judges whether enough happened for a history without a fault to prove something."""

import asyncio
import time
from math import inf

from attendance import attaches
from history import Add, Extend, Operate, Outcome, Poll, Remove, Settle

ACKED_A_SECOND = 100
CONNECTING_SECONDS = 0.1
LONGEST_SECONDS = 30.0
"""The longest time for which a life is extended when few calls are answered."""

FAULTS_PER_UNKNOWN = 5
LEAST_PER_LIFE = {
    "items added": 10,
    "items taken": 10,
    "removes": 10,
    "extends": 1,
    "items that came back": 0.5,
    "failures": 0.5,
    "hand-offs": 0.2,
    "deaths": 0.2,
    "leases that a session kept": 0.1,
    "duplicates": 0.1,
    "operators' changes": 0.1,
}
"""The least effects of each kind in a life under load, on average."""


def enough_for(history, begin, seconds):
    """Return whether as many calls were answered since *begin* as in a life of *seconds* on an idle machine."""
    # Clients connect first.
    return history.acked_between(begin, inf) >= ACKED_A_SECOND * (seconds - CONNECTING_SECONDS)


async def under(load, history, seconds, lives=0):
    """Wait for *seconds* under *load*; if few calls are answered, until there were enough for *lives*."""
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
    """Return how much of each kind took effect."""
    polls, settles = history.of(Poll), [each for each in history.of(Settle) if each.changed]
    entries = [entry for each in settles for entry in each.entries if entry.result == "done"]
    return {
        "items added": sum(len(each.ids) for each in history.of(Add)),
        "items taken": sum(len(each.items) for each in polls),
        "removes": sum(each.done for each in history.of(Remove)),
        "extends": sum(each.done for each in history.of(Extend)),
        "items that came back": sum(item.attempt > 1 for each in polls for item in each.items),
        "failures": sum(entry.action == "fail" for entry in entries),
        "hand-offs": sum(bool(each.ids) for each in settles),
        "deaths": sum(entry.died for entry in entries),
        "leases that a session kept": sum(len(each.leases) for each in attaches(history)),
        "duplicates": sum(len(each.duplicates) for each in history.of(Add)),
        "operators' changes": sum(each.done for each in history.of(Operate)),
    }


def lacking_in(history, lives):
    """Return the kinds of calls that were too rare in this number of lives under load."""
    return [
        f"{count} {kind} in {lives} lives"
        for kind, count in effects(history).items()
        if count < LEAST_PER_LIFE[kind] * lives
    ]


def too_few_unknown(history, faults):
    """Return whether this number of faults met hardly any call in flight."""
    return unknown_since(history, 0.0) * FAULTS_PER_UNKNOWN < faults
