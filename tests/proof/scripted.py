"""Calls and histories written by hand, for the tests of the checker: a call lasts 10 ms, an item is named by a text."""

from history import (
    Add,
    Attach,
    Break,
    Crash,
    Delivered,
    Entry,
    Extend,
    History,
    Kept,
    Operate,
    Outcome,
    Ping,
    Poll,
    Purge,
    Remove,
    Settle,
)

OK, REFUSED, UNKNOWN = Outcome.OK, Outcome.REFUSED, Outcome.UNKNOWN
FOREVER = float("inf")


def name(text):
    return text.encode().ljust(16, b".")


def add(at, *contents, delay=0.0, outcome=OK, ids=None, **more):
    ids = (ids or list(contents)) if outcome is OK else []
    return Add(
        queue="q",
        invoked=at,
        ended=at + 0.01,
        outcome=outcome,
        contents=[each.encode() for each in contents],
        delays=[delay] * len(contents),
        ids=[name(each) for each in ids],
        **more,
    )


def given(item, attempt=1, failures=0, **more):
    """Return a delivered item whose facts are known."""
    losses = more.pop("losses", attempt - 1 - failures)
    return Delivered(id=name(item), contents=item.encode(), attempt=attempt, failures=failures, losses=losses, **more)


def dead(item, reason, attempt, failures, died_at=1, **more):
    """Return a dead item, or one that was moved back, that died after *attempt* less one attempts."""
    return given(item, attempt, failures, death=reason, died_at=died_at, **more)


def poll(at, lease, *items, span=1.0, until=None, outcome=OK, no_wait=False, **more):
    """Return items from names: an item is "a", or ("a", 2) for its second attempt, or one that is `given`."""
    pairs = [each if isinstance(each, tuple) else (each, 1) for each in items]
    return Poll(
        queue="q",
        invoked=at,
        ended=until or at + 0.01,
        outcome=outcome,
        span=FOREVER if "session" in more else span,
        items=[
            each if isinstance(each, Delivered) else Delivered(id=name(each), contents=each.encode(), attempt=attempt)
            for each, attempt in pairs
        ],
        lease=name(lease) if items else b"",
        no_wait=no_wait,
        **more,
    )


def remove(at, item, lease, done=True, outcome=OK, **more):
    times = {"invoked": at, "ended": at + 0.01, "outcome": outcome}
    return Remove(queue="q", id=name(item), lease=name(lease), done=done, **times, **more)


def extend(at, lease, span, done=True, outcome=OK):
    return Extend(queue="q", invoked=at, ended=at + 0.01, outcome=outcome, lease=name(lease), span=span, done=done)


def entry(item, lease, action, delay=None, result="done", died=None, error=""):
    """Return an entry of a settle; the item is dead after a reject unless *died* says otherwise."""
    died = action == "reject" and result == "done" if died is None else died
    number = name(item) if item else b""
    return Entry(lease=name(lease), id=number, action=action, delay=delay, error=error, result=result, died=died)


def settle(at, *entries, added=(), outcome=OK, changed=True, ids=None, **more):
    if outcome is not OK:
        for each in entries:
            each.result, each.died = "", False
    return Settle(
        queue="q",
        invoked=at,
        ended=at + 0.01,
        outcome=outcome,
        entries=list(entries),
        to="q",
        contents=[each.encode() for each in added],
        delays=[0.0] * len(added),
        ids=[name(each) for each in (added if ids is None else ids)] if outcome is OK else [],
        changed=changed and outcome is OK,
        **more,
    )


def attach(at, connection, *leases, session="S", grace=2.0, outcome=OK, queue="q"):
    """Return an attach that lists leases: each is a name, then the names of its items."""
    kept = [Kept(lease=name(lease), queue=queue, ids=[name(each) for each in ids]) for lease, *ids in leases]
    times = {"invoked": at, "ended": at + 0.01, "outcome": outcome}
    return Attach(queue="q", session=name(session), grace=grace, leases=kept, connection=connection, **times)


def ping(at, connection, *leases):
    return Ping(
        queue="q",
        invoked=at,
        ended=at + 0.01,
        outcome=OK,
        connection=connection,
        leases=[name(each) for each in leases],
    )


def operate(at, action, item, result="done", **more):
    times = {"invoked": at, "ended": at + 0.01}
    outcome = OK if result else UNKNOWN
    return Operate(queue="q", id=name(item), action=action, result=result, outcome=outcome, **times, **more)


def purge(at, outcome=OK, *, dead=False):
    return Purge(queue="q", invoked=at, ended=at + 0.01, outcome=outcome, dead=dead)


def refused(call, kind, why="internal error"):
    call.outcome, call.kind, call.why = REFUSED, kind, why
    return call


def gone(connection, at):
    """Return the end of a connection."""
    return connection, at


def history(*found, drained=1_000.0, faults=(), **settings):
    """Return a history of calls, crashes, breaks, ends of connections and faults, with settings of the queue."""
    crashes = [each for each in found if isinstance(each, Crash)]
    breaks = [each for each in found if isinstance(each, Break)]
    ends = dict(each for each in found if isinstance(each, tuple))
    calls = [each for each in found if not isinstance(each, Crash | Break | tuple)]
    calls.sort(key=lambda call: call.invoked)
    return History(calls, crashes, drained, breaks, ends, list(faults), {"q": settings})
