"""The checker of histories finds each kind of error, and reports none in a correct history."""

import random
from collections import Counter

import pytest
from checker import Verdict, check
from history import Break, Crash, Extend, load
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import REFUSED, UNKNOWN, add, extend, history, operate, poll, refused, remove
from test_laws import FALSE
from tiny import BUGS, history_of

from queueber.errors import Kind
from tests.support.examples import examples

BAD = {
    "an acknowledged add that never comes": (Verdict.LOST, [add(0, "a")]),
    "an item that came once and never again": (Verdict.LOST, [add(0, "a"), poll(1, "L", "a")]),
    "an unknown remove that did nothing, and then nothing": (
        Verdict.LOST,
        [add(0, "a"), poll(1, "L", "a"), remove(1.5, "a", "L", done=False, outcome=UNKNOWN), poll(3, "M", ("a", 2))],
    ),
    "an unknown remove under a made-up lease, and then nothing": (
        Verdict.LOST,
        [add(0, "a"), remove(1.5, "a", "L", done=False, outcome=UNKNOWN)],
    ),
    "an unknown remove under another item's lease, and then nothing": (
        Verdict.LOST,
        [
            add(0, "a", "b"),
            poll(1, "L", "b"),
            remove(1.1, "a", "L", done=False, outcome=UNKNOWN),
            remove(1.2, "b", "L"),
        ],
    ),
    "an unknown remove when the lease was over, and then nothing": (
        Verdict.LOST,
        [add(0, "a"), poll(1, "L", "a"), remove(9, "a", "L", done=False, outcome=UNKNOWN)],
    ),
    "an unknown remove when an extension came too late, and then nothing": (
        Verdict.LOST,
        [
            add(0, "a"),
            poll(1, "L", "a"),
            extend(8, "L", 5.0, done=False, outcome=UNKNOWN),
            remove(9, "a", "L", done=False, outcome=UNKNOWN),
        ],
    ),
    "an extend that failed": (Verdict.REFUSED, [refused(extend(1, "L", 1.0, done=False), Kind.FAILED)]),
    "an add that is too much for an idle server": (Verdict.REFUSED, [refused(add(1, "a"), Kind.OVERLOADED)]),
    "a poll with an unknown method": (Verdict.REFUSED, [refused(poll(1, ""), Kind.UNIMPLEMENTED)]),
    "a kind that there is not": (Verdict.REFUSED, [refused(poll(1, ""), 9)]),
    "a server that stops and does not": (Verdict.REFUSED, [refused(add(1, "a"), Kind.DISCONNECTED), Crash(3, 4)]),
    "a connection that ends while the server lives": (Verdict.CUT_OFF, [Break(2, "closed"), Crash(3, 4)]),
    "contents that no client added": (Verdict.UNEXPECTED, [poll(1, "L", "a")]),
    "contents that were refused": (Verdict.UNEXPECTED, [add(0, "a", outcome=REFUSED), poll(1, "L", "a")]),
    "another id than the add's": (
        Verdict.UNEXPECTED,
        [add(0, "a", ids=["b"]), poll(1, "L", "a"), remove(1.1, "b", "L", done=False)],
    ),
    "an id that was given twice": (
        Verdict.UNEXPECTED,
        [add(0, "a", "b", ids=["a", "a"]), poll(1, "L", "a"), remove(1.1, "a", "L")],
    ),
    "before it was added": (Verdict.UNEXPECTED, [poll(1, "L", "a"), add(2, "a")]),
    "a lease of two polls": (
        Verdict.UNEXPECTED,
        [add(0, "a", "b"), poll(1, "L", "a"), poll(1.1, "L", "b"), remove(1.2, "a", "L"), remove(1.3, "b", "L")],
    ),
    "a removed item that comes back": (
        Verdict.RESURRECTED,
        [add(0, "a"), poll(1, "L", "a"), remove(1.2, "a", "L"), poll(5, "M", ("a", 2))],
    ),
    "a removed item that comes back after a crash": (
        Verdict.RESURRECTED,
        [add(0, "a"), poll(1, "L", "a", span=60), remove(1.2, "a", "L"), poll(5, "M", "a")],
    ),
    "two live leases": (
        Verdict.DOUBLE_HELD,
        [add(0, "a"), poll(1, "L", "a"), poll(1.5, "M", ("a", 2)), remove(1.6, "a", "M")],
    ),
    "a lease that a crash ended": (
        Verdict.DOUBLE_HELD,
        [add(0, "a"), poll(1, "L", "a", span=9), poll(5, "M", ("a", 2)), remove(5.5, "a", "M")],
    ),
    "an extension that came to nothing": (
        Verdict.DOUBLE_HELD,
        [add(0, "a"), poll(1, "L", "a"), extend(1.5, "L", 5.0), poll(3, "M", ("a", 2)), remove(3.1, "a", "M")],
    ),
    "removed twice": (
        Verdict.DOUBLE_REMOVED,
        [add(0, "a"), poll(1, "L", "a"), remove(1.2, "a", "L"), remove(1.3, "a", "L")],
    ),
    "half of an unknown add": (
        Verdict.TORN,
        [add(0, "a", "b", outcome=UNKNOWN), poll(1, "L", "a"), remove(1.1, "a", "L")],
    ),
    "before its delay was over": (
        Verdict.EARLY,
        [add(0, "a", delay=5.0), poll(3, "L", "a"), remove(3.1, "a", "L")],
    ),
    "a live lease under which nothing can be removed": (
        Verdict.SHORT,
        [
            add(0, "a"),
            poll(1, "L", "a"),
            remove(1.5, "a", "L", done=False),
            poll(3, "M", ("a", 2)),
            remove(3.1, "a", "M"),
        ],
    ),
    "a live lease that cannot be extended": (
        Verdict.SHORT,
        [add(0, "a"), poll(1, "L", "a"), extend(1.5, "L", 1.0, done=False), remove(1.7, "a", "L")],
    ),
    "a remove that a crash undid, and that was reported": (
        Verdict.SHORT,
        [
            add(0, "a"),
            poll(1, "L", "a", span=3),
            remove(1.5, "a", "L", done=False, outcome=UNKNOWN),
            remove(1.6, "a", "L", done=False),
            poll(5, "M", ("a", 2)),
            remove(5.1, "a", "M"),
        ],
    ),
    "an ended lease that is extended": (
        Verdict.STALE,
        [add(0, "a"), poll(1, "L", "a"), extend(2.5, "L", 1.0), remove(2.6, "a", "L")],
    ),
    "an ended lease under which something is removed": (
        Verdict.STALE,
        [add(0, "a"), poll(1, "L", "a"), remove(2.5, "a", "L")],
    ),
    "another's lease": (
        Verdict.STALE,
        [add(0, "a", "b"), poll(1, "L", "a"), poll(1, "M", "b"), remove(1.2, "a", "M"), remove(1.3, "b", "M")],
    ),
    "a lease that no client has": (Verdict.STALE, [extend(1, "L", 1.0)]),
    "a first attempt after a first attempt": (
        Verdict.MISCOUNTED,
        [add(0, "a"), poll(1, "L", "a"), poll(5, "M", "a"), remove(5.1, "a", "M")],
    ),
    "a poll that waits while an item is ready": (
        Verdict.LATE,
        [add(0, "a"), poll(1, "L", "a", until=4.0), remove(4.1, "a", "L")],
    ),
    "a poll that gets nothing while an item is ready": (
        Verdict.LATE,
        [add(0, "a"), poll(1, "L", until=4.0), poll(5, "M", "a"), remove(5.1, "a", "M")],
    ),
    "polls in a row that get nothing while an item is ready": (
        Verdict.LATE,
        [
            add(0, "a"),
            *[poll(1 + 1.3 * each, "", until=2.2 + 1.3 * each) for each in range(3)],
            poll(6, "M", "a"),
            remove(6.1, "a", "M"),
        ],
    ),
    "a poll that does not wait and gets nothing while an item is ready": (
        Verdict.LATE,
        [add(0, "a"), poll(1, "", no_wait=True), poll(2, "M", "a"), remove(2.1, "a", "M")],
    ),
    "the wrong way round in a reply": (
        Verdict.OUT_OF_ORDER,
        [add(0, "a"), add(1, "b"), poll(2, "L", "b", "a"), remove(2.1, "a", "L"), remove(2.2, "b", "L")],
    ),
    "the later one first": (
        Verdict.OUT_OF_ORDER,
        [
            add(0, "a"),
            add(1, "b"),
            poll(2, "L", "b"),
            poll(2.5, "M", "a"),
            remove(2.6, "b", "L"),
            remove(2.7, "a", "M"),
        ],
    ),
    "the later one first of two that came back": (
        Verdict.OUT_OF_ORDER,
        [
            add(0, "a", "b"),
            poll(1, "L", "a"),
            poll(1.1, "M", "b", span=2),
            poll(6, "N", ("b", 2)),
            poll(6.5, "O", ("a", 2)),
            remove(6.6, "b", "N"),
            remove(6.7, "a", "O"),
        ],
    ),
    "a new one before one that came back": (
        Verdict.OUT_OF_ORDER,
        [
            add(0, "a"),
            poll(1, "L", "a"),
            add(4, "b"),
            poll(6, "N", "b"),
            poll(6.5, "O", ("a", 2)),
            remove(6.6, "b", "N"),
            remove(6.7, "a", "O"),
        ],
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_it_sees_what_is_wrong(what):
    verdict, calls = BAD[what]
    findings = check(history(*calls))
    assert verdict in findings.wrong, findings.examples


def test_every_verdict_has_a_bad_history():
    assert {verdict for verdict, _ in [*BAD.values(), *FALSE.values()]} == set(Verdict)


GOOD = {
    "nothing": [],
    "an unknown add that is not there": [add(0, "a", "b", outcome=UNKNOWN)],
    "an unknown add that is there": [
        add(0, "a", "b", outcome=UNKNOWN),
        poll(1, "L", "a", "b"),
        remove(1.1, "a", "L"),
        remove(1.1, "b", "L"),
    ],
    "an unknown remove that took effect": [
        add(0, "a"),
        poll(1, "L", "a"),
        remove(1.2, "a", "L", done=False, outcome=UNKNOWN),
        remove(1.3, "a", "L", done=False),
    ],
    "an unknown remove under a lease that an extension may have kept alive": [
        add(0, "a"),
        poll(1, "L", "a"),
        extend(1.5, "L", 60.0, done=False, outcome=UNKNOWN),
        remove(9, "a", "L", done=False, outcome=UNKNOWN),
    ],
    "what cannot be": [
        refused(add(0, "a", delay=1e9), Kind.FAILED),
        refused(Extend(queue="q", invoked=1, ended=2, lease=b"", span=1.0), Kind.FAILED),
    ],
    "a server that has to catch up": [
        refused(add(0, "a"), Kind.OVERLOADED, "the storage engine has to catch up first; try again later")
    ],
    "a server that stops": [refused(add(3, "a"), Kind.DISCONNECTED), Break(3.1, "closed"), Crash(3, 4)],
    "polls that get nothing while another may have it": [
        add(0, "a"),
        poll(0.9, "", until=4.5, outcome=UNKNOWN),
        *[poll(1 + 1.3 * each, "", until=2.2 + 1.3 * each) for each in range(3)],
        poll(5, "", no_wait=True),
        poll(6, "M", "a"),
        remove(6.1, "a", "M"),
    ],
    "a poll that does not wait for what just became due": [
        add(0, "a", delay=1.0),
        poll(1.005, "", no_wait=True),
        poll(2, "M", "a"),
        remove(2.1, "a", "M"),
    ],
    "a new one before one that was swept late": [
        add(0, "a"),
        poll(1, "L", "a"),
        add(2.1, "b"),
        poll(2.3, "N", "b"),
        poll(2.5, "O", ("a", 2)),
        remove(2.6, "b", "N"),
        remove(2.7, "a", "O"),
    ],
    "an item that came again": [
        add(0, "a"),
        poll(1, "L", "a"),
        remove(2.5, "a", "L", done=False),
        poll(3, "M", ("a", 2)),
        remove(3.1, "a", "M"),
    ],
    "an attempt that no client saw": [
        add(0, "a"),
        poll(0.5, "", outcome=UNKNOWN),
        poll(1, "L", ("a", 2)),
        remove(1.1, "a", "L"),
    ],
    "a lease that was cut short by its holder": [
        add(0, "a"),
        poll(1, "L", "a", span=60),
        extend(1.1, "L", 0.1),
        poll(2, "M", ("a", 2)),
        remove(2.1, "a", "M"),
    ],
    "a lease that may have been cut short": [
        add(0, "a"),
        poll(1, "L", "a", span=60),
        extend(1.1, "L", 0.1, done=False, outcome=UNKNOWN),
        poll(2, "M", ("a", 2)),
        remove(2.1, "a", "M"),
    ],
}


@pytest.mark.parametrize("what", GOOD)
def test_it_lets_pass_what_is_right(what):
    assert check(history(*GOOD[what])).examples == []


def test_it_counts_what_is_allowed():
    again = [add(0, "a"), poll(1, "L", "a"), poll(3, "M", ("a", 2)), remove(3.1, "a", "M")]
    late = [add(4, "b", outcome=UNKNOWN), poll(5, "N", "b"), remove(5.1, "b", "N")]
    findings = check(history(*again, *late))
    assert (findings.items, findings.duplicates, findings.recovered, findings.examples) == (2, 1, 1, [])


def test_before_the_drain_nothing_is_lost():
    assert check(history(add(0, "a"), drained=float("inf"))).examples == []


@pytest.mark.slow
@settings(max_examples=examples(75), deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 80))
def test_a_right_queue_is_never_called_wrong(numbers, steps):
    assert check(history_of(numbers, steps)).examples == []


# What each bug must be called at least; the same slip may well show in other ways, too.
NAMES = {
    "forgets an add": Verdict.LOST,
    "stores half an add": Verdict.TORN,
    "brings removed items back": Verdict.RESURRECTED,
    "delivers leased items": Verdict.DOUBLE_HELD,
    "removes twice": Verdict.DOUBLE_REMOVED,
    "ignores delays": Verdict.EARLY,
    "ends leases early": Verdict.SHORT,
    "accepts ended leases": Verdict.STALE,
    "alters contents": Verdict.UNEXPECTED,
    "forgets an attempt": Verdict.MISCOUNTED,
    "delivers the newest first": Verdict.OUT_OF_ORDER,
    "forgets waiting polls": Verdict.LATE,
    "counts failures twice": Verdict.MISCOUNTED,
    "forgets errors": Verdict.MISREPORTED,
    "keeps the rejected": Verdict.UNDEAD,
    "forgets the dead": Verdict.LOST,
    "ignores the delays of settles": Verdict.EARLY,
    "hands off by halves": Verdict.TORN,
    "adds what is sent again": Verdict.TWICE,
    "ignores keys": Verdict.TWICE,
    "keeps keys for ever": Verdict.WITHHELD,
    "cancels the leased": Verdict.STALE,
    "delivers the expired": Verdict.EXPIRED,
    "adds in vain": Verdict.IN_VAIN,
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_wrong_queue_is_found_out(bug):
    found = Counter()
    for seed in range(20):
        found += check(history_of(random.Random(seed), 80, bug)).wrong
    assert NAMES[bug] in found, found


UNREADABLE = "the item cannot be read at the moment; the server's log says why"


@pytest.mark.parametrize(
    ("fault", "crash", "has_cause"),
    [(2.0, None, True), (4.0, None, False), (2.0, Crash(2.2, 2.8), False), (2.5, Crash(2.2, 2.8), True)],
    ids=["before it", "after it", "of an earlier server", "of this server's start"],
)
def test_only_a_server_that_has_met_a_fault_may_be_unable_to_read(fault, crash, has_cause):
    call = refused(operate(3.0, "kick", "a", result=""), Kind.OVERLOADED, UNREADABLE)
    found = check(history(call, *([crash] if crash else []), faults=[fault]))
    assert (Verdict.REFUSED not in found.wrong) is has_cause, found.examples


def test_a_history_survives_being_saved(tmp_path):
    path = tmp_path / "history"
    made = history_of(random.Random(7), 60, "ends leases early")
    made.crashes.append(Crash(1.0, 2.0))
    made.breaks.append(Break(3.0, "closed"))
    made.faults.append(4.0)
    made.save(path)
    assert (check(load(path)), load(path).faults) == (check(made), [4.0])
    assert check(made).wrong[Verdict.CUT_OFF] == 1
