"""The checker's laws of settles, deaths, sessions, adding once, operators and expiry: false and true histories."""

import pytest
from checker import Verdict, check
from history import Break, Crash
from scripted import (
    UNKNOWN,
    add,
    attach,
    dead,
    entry,
    given,
    gone,
    history,
    operate,
    ping,
    poll,
    purge,
    refused,
    remove,
    settle,
)

from queueber.errors import Kind


def last(*items, at=89.0, dead=False, **more):
    """Return a poll that takes *items*, and their removes."""
    taken = poll(at, "Z", *items, span=60.0, dead=dead, **more)
    names = [each.contents.decode() for each in taken.items]
    return [taken, *[remove(taken.ended + 0.1, each, "Z", dead=dead) for each in names]]


def in_other(call):
    """Return *call* as one to another queue."""
    call.queue = "r"
    return call


def one(**more):
    return [add(0, "a", **more), poll(1, "L", "a", span=60.0)]


def in_session(*, end=None):
    """Return an item under a session lease, over a connection that ends then."""
    session = b"S".ljust(16, b".")
    calls = [add(0, "a"), attach(0.5, 1), poll(1, "L", "a", session=session, connection=1)]
    return [*calls, *([] if end is None else [gone(1, end)])]


def keyed(at, *contents, keys=(b"k",), **more):
    return add(at, *contents, keys=list(keys), **more)


def expiring(at, item, expires, **more):
    """Return an add of one item that expires at a moment that is known to 0.1 s, and in the server's time exactly."""
    return add(at, item, expiries=[[expires - 0.1, expires, round(expires * 1_000)]], **more)


def expired(item, died_at, attempt=1, failures=0, at=95.0):
    """Return the end of an item that has died of its expiry."""
    taken = dead(item, "expired", attempt, failures, died_at=round(died_at * 1_000))
    return [poll(at, "X", taken, span=60.0, dead=True), remove(at + 0.1, item, "X", dead=True)]


LIMITED = {"max_attempts": 1, "backoff_base_ms": 0, "backoff_cap_ms": 0}
SHORT_WINDOW = {"dedup_window_ms": 1_000}

FALSE = {
    # Settles
    "a failure that is not counted": (
        Verdict.MISCOUNTED,
        [*one(), settle(2, entry("a", "L", "fail", 1.0)), *last(given("a"))],
    ),
    "a failure that is counted twice": (
        Verdict.MISCOUNTED,
        [*one(), settle(2, entry("a", "L", "fail", 1.0)), *last(given("a", 3, 2))],
    ),
    "a failure that is counted as a loss": (
        Verdict.MISCOUNTED,
        [*one(), settle(2, entry("a", "L", "fail", 1.0)), *last(given("a", 2, 0))],
    ),
    "a loss that is counted twice": (
        Verdict.MISCOUNTED,
        [add(0, "a"), poll(1, "L", "a"), *last(given("a", 3))],
    ),
    "an item that was deferred and counts a loss": (
        Verdict.MISCOUNTED,
        [*one(), settle(2, entry("a", "L", "defer", 1.0)), *last(given("a", 2))],
    ),
    "an attempt that no poll can have made": (Verdict.MISCOUNTED, [add(0, "a"), *last(given("a", 2))]),
    "an attempt that is neither a failure nor a loss": (
        Verdict.MISCOUNTED,
        [*one(), settle(2, entry("a", "L", "fail", 1.0)), *last(given("a", 3, 1, losses=0))],
    ),
    "a failure without its error": (
        Verdict.MISREPORTED,
        [*one(), settle(2, entry("a", "L", "fail", 1.0, error="no disk")), *last(given("a", 2, 1))],
    ),
    "a deferred item with an error from nowhere": (
        Verdict.MISREPORTED,
        [*one(), settle(2, entry("a", "L", "defer", 1.0)), *last(given("a", error="no disk"))],
    ),
    "a failed item that comes too early": (
        Verdict.EARLY,
        [*one(), settle(2, entry("a", "L", "fail", 9.0)), *last(given("a", 2, 1), at=8.0)],
    ),
    "a deferred item that comes too early": (
        Verdict.EARLY,
        [*one(), settle(2, entry("a", "L", "defer", 9.0)), *last("a", at=8.0)],
    ),
    "a deferred item for which a poll waits too long": (
        Verdict.LATE,
        [*one(), settle(2, entry("a", "L", "defer", 1.0)), *last("a", at=3.5, until=8.0)],
    ),
    "a deferred item that has lost its place": (
        Verdict.OUT_OF_ORDER,
        [
            add(0, "a"),
            add(0.5, "b"),
            poll(1, "L", "a"),
            settle(1.5, entry("a", "L", "defer")),
            poll(3, "M", "b"),
            remove(3.1, "b", "M"),
            *last("a", at=4.0),
        ],
    ),
    "an item that leaves its lease twice": (
        Verdict.DOUBLE_REMOVED,
        [
            *one(),
            settle(2, entry("a", "L", "defer", 1.0)),
            settle(3, entry("a", "L", "fail", 1.0)),
            *last(given("a", 2, 1)),
        ],
    ),
    "an item that is settled and removed under one lease": (
        Verdict.DOUBLE_REMOVED,
        [*one(), settle(2, entry("a", "L", "defer", 50.0)), remove(3, "a", "L")],
    ),
    "a settle that removes, and the item comes back": (
        Verdict.RESURRECTED,
        [add(0, "a"), poll(1, "L", "a"), settle(1.5, entry("a", "L", "remove")), *last(("a", 2))],
    ),
    "a settle under a lease that had ended": (
        Verdict.STALE,
        [add(0, "a"), poll(1, "L", "a"), settle(5, entry("a", "L", "fail", 1.0)), *last(given("a", 2, 1))],
    ),
    "a settle under another item's lease": (
        Verdict.STALE,
        [
            add(0, "a", "b"),
            poll(1, "L", "a"),
            poll(1, "M", "b", span=9),
            settle(1.5, entry("a", "M", "remove"), entry("b", "M", "remove")),
        ],
    ),
    "a settle that extends a lease that had ended": (
        Verdict.STALE,
        [add(0, "a"), poll(1, "L", "a"), settle(5, entry("", "L", "extend", 9.0)), *last(("a", 2))],
    ),
    "a live lease under which nothing can be settled": (
        Verdict.SHORT,
        [*one(), settle(2, entry("a", "L", "fail", 1.0, result="lease_lost")), *last(("a", 2))],
    ),
    "a live lease that has lost an item": (
        Verdict.SHORT,
        [*one(), settle(2, entry("a", "L", "defer", result="not_found")), *last(("a", 2))],
    ),
    "an extension by a settle that came to nothing": (
        Verdict.DOUBLE_HELD,
        [add(0, "a"), poll(1, "L", "a"), settle(1.5, entry("", "L", "extend", 50.0)), *last(("a", 2), at=9.0)],
    ),
    "an item that is not given back as a whole lease is deferred": (
        Verdict.LOST,
        [add(0, "a", "b"), poll(1, "L", "a", "b", span=60.0), settle(2, entry("", "L", "defer")), *last("a")],
    ),
    # All or nothing
    "a refused settle that adds": (
        Verdict.UNEXPECTED,
        [
            *one(),
            settle(2, entry("b", "L", "remove", result="not_found"), added=["n"], changed=False, ids=[]),
            *last(("a", 2), "n"),
        ],
    ),
    "a refused settle that says that it changed something": (
        Verdict.TORN,
        [*one(), settle(2, entry("b", "L", "remove", result="not_found"), all_or_nothing=True), *last(("a", 2))],
    ),
    "a settle that is done, and adds nothing": (
        Verdict.TORN,
        [*one(), settle(2, entry("a", "L", "remove"), added=["n"], ids=[])],
    ),
    "a hand-off without a reply that only added": (
        Verdict.RESURRECTED,
        [*one(), settle(2, entry("a", "L", "remove"), added=["n"], outcome=UNKNOWN), *last(("a", 2), "n")],
    ),
    "a hand-off without a reply that only removed": (
        Verdict.LOST,
        [*one(), settle(2, entry("a", "L", "remove"), added=["n"], outcome=UNKNOWN)],
    ),
    "a hand-off without a reply that added half": (
        Verdict.TORN,
        [*one(), settle(2, entry("a", "L", "remove"), added=["n", "m"], outcome=UNKNOWN), *last("n")],
    ),
    "an add by a settle that is lost": (
        Verdict.LOST,
        [*one(), settle(2, entry("a", "L", "remove"), added=["n"])],
    ),
    # Polls of several queues
    "a strict poll that passes over the first queue": (
        Verdict.OUT_OF_ORDER,
        [
            add(0, "a"),
            in_other(add(0, "b")),
            in_other(poll(1, "L", "b", queues=["q", "r"], strict=True)),
            in_other(remove(1.1, "b", "L")),
            *last("a"),
        ],
    ),
    "a poll of several queues that gets nothing": (
        Verdict.LATE,
        [add(0, "a"), poll(1, "", queues=["r", "q"], no_wait=True), *last("a")],
    ),
    # Deaths
    "a rejected item that is lost": (Verdict.LOST, [*one(), settle(2, entry("a", "L", "reject"))]),
    "a rejected item that lives on": (
        Verdict.UNDEAD,
        [*one(), settle(2, entry("a", "L", "reject")), *last(given("a", 2, 1))],
    ),
    "a rejected item that does not die": (
        Verdict.UNDEAD,
        [*one(), settle(2, entry("a", "L", "reject", died=False)), *last(given("a", 2, 1))],
    ),
    "an item that dies although nothing bounds its attempts": (
        Verdict.UNDEAD,
        [*one(), settle(2, entry("a", "L", "fail", died=True)), *last(dead("a", "attempts", 2, 1), dead=True)],
    ),
    "an item that is rejected by no worker": (
        Verdict.UNDEAD,
        [*one(), *last(dead("a", "rejected", 2, 1), dead=True)],
    ),
    "a dead item that counts attempts": (
        Verdict.MISCOUNTED,
        [
            *one(),
            settle(2, entry("a", "L", "reject")),
            poll(3, "D", dead("a", "rejected", 2, 1), dead=True),
            *last(dead("a", "rejected", 3, 1), dead=True),
        ],
    ),
    "a dead item that was removed and is there again": (
        Verdict.RESURRECTED,
        [
            *one(),
            settle(2, entry("a", "L", "reject")),
            poll(3, "D", dead("a", "rejected", 2, 1), dead=True),
            remove(3.1, "a", "D", dead=True),
            *last(dead("a", "rejected", 2, 1), dead=True),
        ],
    ),
    "a redriven item that keeps its attempts": (
        Verdict.MISCOUNTED,
        [*one(), settle(2, entry("a", "L", "reject")), *last(dead("a", "rejected", 2, 1))],
    ),
    # Sessions
    "a session lease that does not outlast its connection": (
        Verdict.DOUBLE_HELD,
        [*in_session(end=5.0), *last(("a", 2), at=6.0)],
    ),
    "a session lease that survives its grace": (
        Verdict.LATE,
        [*in_session(end=5.0), *last(("a", 2), at=12.0, until=16.0)],
    ),
    "a session lease that serves after its grace": (
        Verdict.STALE,
        [*in_session(end=5.0), remove(12, "a", "L")],
    ),
    "a session that has a lease after its grace": (
        Verdict.STALE,
        [*in_session(end=5.0), attach(12, 2, ("L", "a")), remove(13, "a", "L")],
    ),
    "a session that has lost its lease": (
        Verdict.SHORT,
        [*in_session(end=5.0), attach(6, 2), *last(("a", 2))],
    ),
    "a session that a restart ends": (
        Verdict.SHORT,
        [*in_session(end=5.0), Crash(5, 5.5), attach(5.6, 2), *last(("a", 2))],
    ),
    "a session that is attached, and its lease ends": (
        Verdict.SHORT,
        [*in_session(), remove(50, "a", "L", done=False), *last(("a", 2))],
    ),
    "a ping that reports a lease that is alive": (Verdict.SHORT, [*in_session(), ping(9, 1, "L"), *last(("a", 2))]),
    "another session's lease": (
        Verdict.STALE,
        [*in_session(), attach(6, 2, ("L", "a"), session="T"), remove(7, "a", "L")],
    ),
    "a session that has an item that was removed": (
        Verdict.RESURRECTED,
        [*in_session(end=5.0), remove(4, "a", "L"), attach(6, 2, ("L", "a"))],
    ),
    "a connection with a session that ends": (
        Verdict.CUT_OFF,
        [*in_session(end=5.0), Break(5, "closed", 1), attach(6, 2, ("L", "a")), remove(7, "a", "L")],
    ),
    # Adding once
    "a call that is sent again and adds again": (
        Verdict.TWICE,
        [
            add(0, "a", request=b"r" * 16, outcome=UNKNOWN),
            add(1, "a", request=b"r" * 16),
            *last("a"),
            add(95, "a", request=b"r" * 16, ids=["b"]),
        ],
    ),
    "a call that was sent again, and comes under two ids": (
        Verdict.TWICE,
        [
            add(0, "a", request=b"r" * 16, outcome=UNKNOWN),
            add(1, "a", request=b"r" * 16, ids=["b"]),
            poll(2, "L", "a"),
        ],
    ),
    "two items with a key": (Verdict.TWICE, [keyed(0, "a"), keyed(1, "b"), *last("a", "b")]),
    "two items of a call with a key": (Verdict.TWICE, [keyed(0, "a", "b", keys=(b"k", b"k")), *last("a", "b")]),
    "a duplicate that is added": (
        Verdict.TWICE,
        [keyed(0, "a"), keyed(1, "b", ids=["a"], duplicates=[0]), *last("a", "b")],
    ),
    "an item whose key counts until it is removed, and one more": (
        Verdict.TWICE,
        [keyed(0, "a", until_removed=True), keyed(1, "b", until_removed=True), *last("a", "b")],
    ),
    "a duplicate when the window is over": (
        Verdict.WITHHELD,
        [keyed(0, "a"), keyed(3, "b", ids=["a"], duplicates=[0]), *last("a")],
    ),
    "a duplicate of an item that was removed": (
        Verdict.WITHHELD,
        [keyed(0, "a", until_removed=True), *last("a"), keyed(95, "b", ids=["a"], duplicates=[0], until_removed=True)],
    ),
    "a duplicate of an item with another key": (
        Verdict.WITHHELD,
        [keyed(0, "a", keys=(b"j",)), keyed(0.5, "b", ids=["a"], duplicates=[0]), *last("a")],
    ),
    "a duplicate of no item": (Verdict.UNEXPECTED, [keyed(0, "b", ids=["a"], duplicates=[0])]),
    # Operators
    "a cancelled item that comes": (Verdict.RESURRECTED, [add(0, "a"), operate(1, "cancel", "a"), *last("a")]),
    "an item that was cancelled and removed": (
        Verdict.DOUBLE_REMOVED,
        [*one(), remove(2, "a", "L"), operate(3, "cancel", "a")],
    ),
    "an item that is there, and that an operator does not find": (
        Verdict.LOST,
        [add(0, "a"), operate(1, "kick", "a", result="not_found"), *last("a")],
    ),
    "a leased item that is cancelled": (Verdict.STALE, [*one(), operate(2, "cancel", "a")]),
    "an item that is moved and no client has added": (Verdict.UNEXPECTED, [operate(2, "kick", "a")]),
    "an item that an operator did not find, and that is lost": (
        Verdict.LOST,
        [add(0, "a"), operate(1, "cancel", "a", result="not_found")],
    ),
    "a delayed item that was made ready and does not come": (
        Verdict.LATE,
        [add(0, "a", delay=80.0), operate(1, "kick", "a"), poll(2, "", until=6.0), *last("a")],
    ),
    "an item that was put off and comes at once": (
        Verdict.EARLY,
        [add(0, "a"), operate(1, "reschedule", "a", low=50.0, high=50.1), *last("a", at=2.0)],
    ),
    "a purged item that comes": (Verdict.RESURRECTED, [add(0, "a"), purge(1), *last("a")]),
    "a leased item that a purge has removed": (Verdict.LOST, [*one(), purge(2)]),
    # Expiry
    "an item that has expired and comes": (Verdict.EXPIRED, [expiring(0, "a", 80.0), *last("a")]),
    "an item that is accepted and expires before it is due": (
        Verdict.IN_VAIN,
        [expiring(0, "a", 5.0, delay=9.0), *expired("a", 9.0)],
    ),
    "an item that dies of its expiry before that": (Verdict.UNDEAD, [expiring(0, "a", 80.0), *expired("a", 79.999)]),
    "an item that dies of an expiry that it has not": (Verdict.UNDEAD, [add(0, "a"), *expired("a", 80.0)]),
    "an item that dies of its expiry, and again after it was moved back": (
        Verdict.UNDEAD,
        [
            expiring(0, "a", 5.0),
            poll(10, "D", dead("a", "expired", 1, 0, died_at=5_000), dead=True),
            *expired("a", 90.0),
        ],
    ),
    "an item that is refused and would have expired later": (
        Verdict.REFUSED,
        [refused(expiring(0, "a", 5.0, delay=4.0), Kind.FAILED)],
    ),
}


@pytest.mark.parametrize("what", FALSE)
def test_a_false_history_is_refused(what):
    verdict, calls = FALSE[what]
    findings = check(history(*calls, **(SHORT_WINDOW if "window" in what else {})))
    assert verdict in findings.wrong, findings.examples


BOUNDED = {
    "an item that has more attempts than it may": (
        Verdict.UNDEAD,
        [*one(), settle(2, entry("a", "L", "fail", 1.0, died=True)), *last(given("a", 2, 1))],
    ),
    "a last attempt that fails and does not kill": (
        Verdict.UNDEAD,
        [*one(), settle(2, entry("a", "L", "fail", 1.0)), *last(dead("a", "attempts", 2, 1), dead=True)],
    ),
}


@pytest.mark.parametrize("what", BOUNDED)
def test_a_false_history_of_a_queue_with_few_attempts_is_refused(what):
    verdict, calls = BOUNDED[what]
    assert verdict in check(history(*calls, **LIMITED)).wrong


TRUE = {
    "polls of several queues": [
        add(0, "a"),
        in_other(add(0, "b")),
        in_other(poll(1, "L", "b", queues=["q", "r"])),
        in_other(remove(1.1, "b", "L")),
        poll(2, "M", "a", queues=["r", "q"], strict=True),
        remove(2.1, "a", "M"),
        poll(3, "", queues=["r", "q"], no_wait=True),
        in_other(poll(4, "", outcome=UNKNOWN, queues=["q", "r"])),
        poll(4, "", no_wait=True),
        *last(),
    ],
    "every action": [
        add(0, "a", "b", "c", "d"),
        poll(1, "L", "a", "b", "c", "d", span=60.0),
        settle(
            2,
            entry("a", "L", "fail", 1.0, error="no disk"),
            entry("b", "L", "defer"),
            entry("c", "L", "reject", error="nonsense"),
            entry("d", "L", "remove"),
            entry("e", "L", "remove", result="not_found"),
        ),
        *last("b", given("a", 2, 1, error="no disk")),
        poll(95, "D", dead("c", "rejected", 2, 1, error="nonsense"), dead=True),
        remove(95.1, "c", "D", dead=True),
    ],
    "a lease that is extended by a settle": [
        add(0, "a"),
        poll(1, "L", "a"),
        settle(1.5, entry("", "L", "extend", 60.0)),
        remove(50, "a", "L"),
    ],
    "an item that failed, was lost, was deferred and failed": [
        add(0, "a"),
        poll(1, "L", "a"),
        settle(1.5, entry("a", "L", "fail", 1.0)),
        poll(4, "M", given("a", 2, 1)),
        poll(8, "N", given("a", 3, 1)),
        settle(8.5, entry("a", "N", "defer")),
        poll(9, "O", given("a", 3, 1)),
        settle(9.5, entry("a", "O", "fail", 0.0)),
        *last(given("a", 4, 2)),
    ],
    "a settle without a reply that happened": [
        *one(),
        settle(2, entry("a", "L", "fail", 1.0), outcome=UNKNOWN),
        *last(given("a", 2, 1)),
    ],
    "a settle without a reply that did not happen": [
        add(0, "a"),
        poll(1, "L", "a"),
        settle(1.5, entry("a", "L", "fail", 1.0), outcome=UNKNOWN),
        *last(given("a", 2)),
    ],
    "a whole lease that is given back": [
        add(0, "a", "b"),
        poll(1, "L", "a", "b", span=60.0),
        settle(2, entry("", "L", "defer")),
        *last("a", "b"),
    ],
    "a hand-off without a reply that happened": [
        *one(),
        settle(2, entry("a", "L", "remove"), added=["n"], outcome=UNKNOWN),
        *last("n"),
    ],
    "a hand-off without a reply that did not happen": [
        *one(),
        settle(2, entry("a", "L", "remove"), added=["n"], outcome=UNKNOWN),
        *last(("a", 2)),
    ],
    "a hand-off that is refused": [
        *one(),
        settle(
            2,
            entry("a", "L", "remove"),
            entry("b", "L", "remove", result="not_found"),
            added=["n"],
            changed=False,
            ids=[],
        ),
        remove(3, "a", "L"),
    ],
    "a session lease over three connections": [
        *in_session(end=5.0),
        attach(6, 2, ("L", "a")),
        gone(2, 8.0),
        attach(9, 3, ("L", "a")),
        Break(9.1, "closed", 2),
        remove(60, "a", "L"),
    ],
    "a session that moves, so that its older connection is closed": [
        *in_session(end=6.02),
        attach(6, 2, ("L", "a")),
        Break(6.02, "closed", 1),
        remove(60, "a", "L"),
    ],
    "a session that ends": [*in_session(end=5.0), poll(7.5, "", until=7.9), *last(given("a", 2), at=9.0)],
    "a session that ends, some time after a restart": [
        Crash(0.1, 0.2),
        *in_session(end=1.1),
        *last(given("a", 2), at=4.0),
    ],
    "a session that a restart keeps": [
        *in_session(end=5.05),
        Crash(5, 5.5),
        Break(5.05, "closed", 1),
        attach(6.5, 2, ("L", "a")),
        remove(60, "a", "L"),
    ],
    "a session lease that no reply has shown": [
        add(0, "a"),
        attach(0.5, 1),
        poll(1, "", outcome=UNKNOWN, session=b"S".ljust(16, b"."), connection=1),
        gone(1, 2.0),
        attach(3, 2, ("L", "a")),
        settle(3.5, entry("", "L", "defer")),
        *last("a", at=5.0),
    ],
    "a call that is sent three times": [
        add(0, "a", request=b"r" * 16, outcome=UNKNOWN),
        add(1, "a", request=b"r" * 16),
        add(2, "a", request=b"r" * 16),
        *last("a"),
    ],
    "a duplicate": [keyed(0, "a"), keyed(0.5, "b", ids=["a"], duplicates=[0]), *last("a")],
    "a key that is free when the window is over": [keyed(0, "a"), keyed(3, "b"), *last("a", "b")],
    "a key that is free once its item is removed": [
        keyed(0, "a", until_removed=True),
        poll(1, "L", "a"),
        remove(1.5, "a", "L"),
        keyed(2, "b", until_removed=True),
        *last("b"),
    ],
    "a duplicate of an item whose add had no reply": [
        keyed(0, "a", outcome=UNKNOWN),
        keyed(0.5, "b", ids=["a"], duplicates=[0]),
        *last("a"),
    ],
    "an operator's calls": [
        add(0, "a", delay=80.0),
        add(0, "b", delay=80.0),
        add(0, "c"),
        operate(1, "cancel", "a"),
        operate(2, "kick", "b"),
        operate(2, "reschedule", "c", low=50.0, high=50.1),
        poll(3, "L", "b"),
        operate(3.5, "cancel", "b", result="leased"),
        remove(3.6, "b", "L"),
        *last("c"),
    ],
    "a purge": [
        add(0, "a", "b"),
        poll(1, "L", "b", span=60.0),
        purge(2),
        remove(3, "b", "L"),
        add(4, "c"),
        *last("c"),
    ],
    "a purge without a reply": [add(0, "a", "b"), purge(2, outcome=UNKNOWN), *last("a")],
    "items that expire, one of them only later": [
        expiring(0, "a", 5.0),
        expiring(0, "b", 99.0),
        add(0, "c", "d", expiries=[[], []]),
        *last("b", "c", "d"),
        *expired("a", 89.0),
    ],
    "an item that comes late, because it was moved back from the dead ones unseen": [
        expiring(0, "a", 5.0),
        poll(6, "", until=8.0),
        poll(70, "", no_wait=True),
        add(80, "b"),
        poll(81, "L", "b"),
        remove(81.1, "b", "L"),
        *last(dead("a", "expired", 1, 0, died_at=7_000)),
    ],
    "an item that is refused because it would have expired": [refused(expiring(0, "a", 5.0, delay=4.99), Kind.FAILED)],
    "an item that expires after it failed": [
        expiring(0, "a", 5.0),
        poll(1, "L", "a", span=60.0),
        settle(2, entry("a", "L", "fail", 9.0)),
        operate(90, "kick", "a", result="not_found"),
        *expired("a", 89.0, attempt=2, failures=1),
    ],
    "an item that is delivered when a crash has delayed its expiry": [
        expiring(0, "a", 89.0),
        Crash(40, 41),
        *last("a", at=89.03),
    ],
    "a key that is free once its item has expired": [
        add(0, "a", keys=[b"k"], until_removed=True, expiries=[[0.9, 1.0, 1_000]]),
        keyed(3, "b", until_removed=True),
        *last("b"),
        *expired("a", 2.0),
    ],
}


@pytest.mark.parametrize("what", TRUE)
def test_a_true_history_is_accepted(what):
    assert check(history(*TRUE[what], **(SHORT_WINDOW if "window" in what else {}))).examples == []


def test_a_true_history_of_a_queue_with_few_attempts_is_accepted():
    calls = [
        add(0, "a", "b"),
        poll(1, "L", "a", "b"),
        settle(1.5, entry("a", "L", "fail", died=True)),
        poll(4, "D", dead("a", "attempts", 2, 1), dead("b", "lost", 2, 0), dead=True),
        remove(4.1, "b", "D", dead=True),
        settle(4.2, entry("a", "D", "defer"), dead=True),
        # It was moved back.
        *last(dead("a", "attempts", 1, 0)),
    ]
    assert check(history(*calls, **LIMITED)).examples == []
