"""
A small queue, correct or with one of `BUGS`, and the history that its clients observe.

The queue decides one call after the other, each at a time between the call's
begin and end.  For the clients, calls overlap in any way.
"""

from math import inf
from types import MappingProxyType

from attrs import define, evolve, field
from history import (
    Add,
    Crash,
    Delivered,
    Entry,
    Extend,
    History,
    Operate,
    Outcome,
    Poll,
    Redrive,
    Remove,
    Settle,
)

from queueber.errors import Kind

BUGS = (
    "forgets an add",
    "stores half an add",
    "brings removed items back",
    "delivers leased items",
    "removes twice",
    "ignores delays",
    "ends leases early",
    "accepts ended leases",
    "alters contents",
    "forgets an attempt",
    "delivers the newest first",
    "forgets waiting polls",
    "counts failures twice",
    "forgets errors",
    "keeps the rejected",
    "forgets the dead",
    "ignores the delays of settles",
    "hands off by halves",
    "adds what is sent again",
    "ignores keys",
    "keeps keys for ever",
    "cancels the leased",
    "delivers the expired",
    "adds in vain",
)

CALL_SECONDS = 0.1
"""The longest time that a call takes."""

WINDOW = 2.0
"""The time for which a key counts, seconds."""


@define(eq=False)
class Row:
    """An item of the queue."""

    id: bytes
    contents: bytes
    due: float
    attempt: int = 1
    lease: bytes = b""
    failures: int = 0
    error: str = ""
    dead: bool = False
    died_at: int = 0
    """ms"""

    death: str = "rejected"
    expires: float = inf


@define(eq=False)
class Tiny:
    """The queue, driven by the numbers of *random*, which needs `random`, `randrange`, `choice` and `choices`."""

    random: object
    bug: str = ""
    now: float = 100.0
    rows: dict = field(factory=dict)
    deadlines: dict = field(factory=dict)
    seen: list = field(factory=list)
    history: History = field(factory=History)
    count: int = 0
    requests: list = field(factory=list)
    """Adds with request ids, and whether they were done."""

    keys: dict = field(factory=dict)
    """The id that each key stands for, and since when."""

    def id(self):
        self.count += 1
        return self.count.to_bytes(16, "big")

    def hits(self, bug):
        """Return whether to have *bug* in this call."""
        return self.bug == bug and self.random.random() < 0.5

    def note(self, call, *, known=True):
        """Log *call*, decided now."""
        call.invoked = self.now - self.random.random() * CALL_SECONDS / 2
        call.ended = self.now + self.random.random() * CALL_SECONDS / 2
        if not known:
            call.outcome = Outcome.UNKNOWN
        self.history.calls.append(call)

    def expire(self):
        grace = 2.0 if self.bug == "accepts ended leases" else 0.0
        for row in self.rows.values():
            if row.lease and self.deadlines[row.lease] + grace <= self.now:
                row.due = max(self.deadlines[row.lease], row.due + 0.001)
                row.attempt += not row.dead and not self.hits("forgets an attempt")
                row.lease = b""

    def live(self, lease):
        return self.deadlines.get(lease, 0) > self.now or (
            lease in self.deadlines and self.bug == "accepts ended leases"
        )

    def add(self, *, known=True):
        count = 1 + self.random.randrange(3)
        delays = [self.random.choice([0.0, 0.0, 0.3, 2.0])] * count
        ids = [self.id() for _ in range(count)]
        contents = [b"contents %d" % int.from_bytes(each, "big") for each in ids]
        call = Add(queue="q", invoked=0, outcome=Outcome.OK, contents=contents, delays=delays, ids=ids)
        if self.random.random() < 0.3:
            call.request = ids[0]
        self.note(call, known=known)
        rows = [Row(*each) for each in zip(ids, contents, [self.now + each for each in delays], strict=True)]
        if not known:
            call.ids = []
            if self.hits("stores half an add"):
                rows = rows[:1]
            elif self.random.random() < 0.5:
                self.requests += [(call, [])] * bool(call.request)
                return
        if known and self.hits("forgets an add"):
            return
        for row in rows:
            if self.bug == "ignores delays":
                row.due = self.now
            self.rows[row.id] = row
        self.requests += [(call, ids)] * bool(call.request)

    def add_expiring(self):
        """Add an item that expires, perhaps before it is due: then the add is refused."""
        number, delay = self.id(), self.random.choice([0.0, 0.3, 2.0])
        expires = self.now + self.random.choice([0.2, 1.0, 3.0])
        call = Add(
            queue="q", invoked=0, outcome=Outcome.OK, contents=[b"until " + number], delays=[delay], ids=[number]
        )
        call.expiries = [[expires, expires, round(expires * 1_000)]]
        self.note(call)
        if self.now + delay < expires or self.hits("adds in vain"):
            self.rows[number] = Row(number, call.contents[0], self.now + delay, expires=expires)
        else:
            call.outcome, call.ids, call.kind = Outcome.REFUSED, [], Kind.FAILED

    def add_again(self):
        """Send an add with a request id once more."""
        first, ids = self.random.choice(self.requests)
        call = evolve(first, outcome=Outcome.OK, ids=ids)
        self.note(call)
        if not ids or self.hits("adds what is sent again"):
            call.ids = [self.id() for _ in first.contents]
            for number, contents, delay in zip(call.ids, first.contents, first.delays, strict=True):
                self.rows[number] = Row(number, contents, self.now + delay)
            self.requests = [(each, call.ids if each is first else before) for each, before in self.requests]

    def add_keyed(self):
        """Add one item with a key."""
        key, number = b"key %d" % self.random.randrange(3), self.id()
        call = Add(queue="q", invoked=0, outcome=Outcome.OK, contents=[b"keyed " + number], delays=[0.0], ids=[number])
        call.keys = [key]
        self.note(call)
        first, since = self.keys.get(key, (b"", -inf))
        if (since + WINDOW > self.now or (self.bug == "keeps keys for ever" and first)) and not self.hits(
            "ignores keys"
        ):
            call.ids, call.duplicates = [first], [0]
            return
        self.keys[key] = number, self.now
        self.rows[number] = Row(number, call.contents[0], self.now)

    def poll(self, *, known=True, count=None, span=None, dead=False):
        self.expire()
        self.bury_expired()
        free = (row for row in self.rows.values() if row.due <= self.now and not row.lease and row.dead == dead)
        ready = sorted(free, key=_place)
        if self.hits("delivers the newest first"):
            ready.reverse()
        if self.hits("delivers leased items"):
            ready += [row for row in self.rows.values() if row.lease and row.dead == dead]
        if self.hits("forgets waiting polls"):
            ready = []
        taken = ready[: count or 1 + self.random.randrange(3)]
        span = span or self.random.choice([0.2, 1.0, 5.0])
        call = Poll(queue="q", invoked=0, outcome=Outcome.OK, span=span, dead=dead)
        self.note(call, known=known)
        if self.bug == "forgets waiting polls" and not ready:
            call.ended = call.invoked + 4.0
        if not taken:
            return []
        lease = self.id()
        self.deadlines[lease] = self.now + span * (0.1 if self.bug == "ends leases early" else 1)
        for row in taken:
            row.lease = lease
        if known:
            call.lease = lease
            for row in taken:
                contents = b"else" if self.hits("alters contents") else row.contents
                call.items.append(_delivered(row, contents))
            self.seen += [(row.id, lease, dead) for row in taken]
        return taken

    def entries(self):
        """Return entries of a settle, and whether they are about dead items."""
        seen = self.seen[-5:] if self.random.random() < 0.8 else self.seen
        some = {number: (lease, line) for number, lease, line in (self.random.choice(seen) for _ in range(3))}
        dead, entries = next(iter(some.values()))[1], []
        for number, (lease, line) in some.items():
            if line != dead:
                continue
            action = self.random.choice(("remove", "fail", "fail", "defer", "reject"))
            delay = self.random.choice((None, 0.0, 1.0)) if action in {"fail", "defer"} else None
            if action == "fail":
                delay = delay or 0.0
            entries.append(Entry(lease=lease, id=number, action=action, delay=delay, error="broken"))
        return entries, dead

    def settle(self, *, known=True):
        """Settle some items, and now and then hand some off."""
        if self.random.random() < 0.7:
            self.poll(span=5.0)
            self.wait()
        entries, dead = self.entries()
        adds = [b"handed off " + self.id()] if not dead and self.random.random() < 0.3 else []
        call = Settle(queue="q", invoked=0, outcome=Outcome.OK, entries=entries, dead=dead, to="q", contents=adds)
        call.delays, call.all_or_nothing = [0.0] * len(adds), self.random.random() < 0.3
        self.note(call, known=known)
        for each in entries:
            row = self.rows.get(each.id)
            there = row is not None and row.lease == each.lease and self.live(each.lease)
            each.result = "done" if there else "lease_lost"
        refused = (adds or call.all_or_nothing) and any(each.result != "done" for each in entries)
        if not refused and (known or self.random.random() < 0.5):
            for each in entries:
                if each.result == "done":
                    self.leave(self.rows[each.id], each)
            call.changed = any(each.result == "done" for each in entries) or bool(adds)
        if call.changed or (adds and self.hits("hands off by halves")):
            call.ids = [self.id() for _ in adds]
            self.rows |= {number: Row(number, each, self.now) for number, each in zip(call.ids, adds, strict=True)}
        if not known:
            call.ids, call.changed = [], False
            for each in entries:
                each.result, each.died = "", False

    def leave(self, row, entry):
        """Let *row* leave its lease."""
        row.lease = b""
        if entry.action == "remove":
            del self.rows[row.id]
            return
        if entry.action != "defer":
            times = 0 if row.dead else 2 if self.hits("counts failures twice") else 1
            row.failures, row.attempt = row.failures + times, row.attempt + times
            row.error = row.error if self.hits("forgets errors") else entry.error
        if entry.action == "reject" and not row.dead:
            entry.died = True
            if self.hits("forgets the dead"):
                del self.rows[row.id]
            elif not self.hits("keeps the rejected"):
                self.die(row, "rejected")
        elif entry.delay is not None:
            row.due = self.now + (0 if self.bug == "ignores the delays of settles" else entry.delay)

    def bury_expired(self):
        """Let the items die that are due and have expired."""
        for row in self.rows.values():
            over = row.expires <= self.now and row.due <= self.now and not row.lease
            if over and self.bug != "delivers the expired":
                self.die(row, "expired")

    def die(self, row, death):
        """Let *row* die."""
        row.dead, row.due, row.expires, row.death = True, self.now, inf, death
        row.died_at = round(self.now * 1_000) + self.count

    def redrive(self):
        """Move a dead item back."""
        self.note(Redrive(queue="q", invoked=0, outcome=Outcome.OK, moved=1))
        for row in self.rows.values():
            if row.dead and not row.lease:
                row.dead, row.attempt, row.failures, row.due = False, 1, 0, self.now
                return

    def cancel(self):
        """Cancel an item that was seen."""
        number = self.random.choice(self.seen)[0]
        row = self.rows.get(number)
        call = Operate(queue="q", invoked=0, outcome=Outcome.OK, id=number, action="cancel", result="not_found")
        self.note(call)
        if row is not None and row.lease and not self.hits("cancels the leased"):
            call.result = "leased"
        elif row is not None:
            call.result = "done"
            del self.rows[number]

    def remove(self, number, lease, dead=False, *, known=True):
        row = self.rows.get(number)
        done = row is not None and row.lease == lease and self.live(lease)
        call = Remove(queue="q", invoked=0, outcome=Outcome.OK, id=number, lease=lease, done=done, dead=dead)
        self.note(call, known=known)
        if done and (known or self.random.random() < 0.5):
            if self.hits("brings removed items back"):
                row.lease, row.due = b"", self.now
                row.attempt += not row.dead
            elif not self.hits("removes twice"):
                del self.rows[number]
        if not known:
            call.done = False

    def extend(self, lease, dead, *, known=True):
        span = self.random.choice([0.1, 1.0, 3.0])
        done = any(row.lease == lease for row in self.rows.values()) and self.live(lease)
        call = Extend(queue="q", invoked=0, outcome=Outcome.OK, lease=lease, span=span, done=done, dead=dead)
        self.note(call, known=known)
        if done and (known or self.random.random() < 0.5):
            self.deadlines[lease] = self.now + span
        if not known:
            call.done = False

    def step(self):
        """One call, or a crash."""
        self.now += self.random.choice([0.001, 0.02, 0.2, 1.0])
        self.expire()
        known = self.random.random() < 0.9
        if not self.seen:
            self.random.choice((self.add, self.poll))(known=known)
            return
        self.wait()
        self.random.choices(list(self.steps), list(self.steps.values()))[0](self, known)

    def wait(self):
        """Let the replies of all calls arrive, without which no client knows an id or a lease."""
        self.now += CALL_SECONDS
        self.expire()

    def crash(self):
        """Stop for a while."""
        self.history.crashes.append(Crash(self.now + 0.1, self.now + 0.6))
        self.now += 0.7

    steps = MappingProxyType(
        {
            lambda self, known: self.add(known=known): 5,
            lambda self, _: self.add_keyed(): 2,
            lambda self, _: self.add_expiring(): 2,
            lambda self, _: self.add_again() if self.requests else None: 1,
            lambda self, known: self.poll(known=known): 6,
            lambda self, known: self.poll(known=known, dead=True): 2,
            lambda self, known: self.remove(*self.random.choice(self.seen), known=known): 4,
            lambda self, known: self.extend(*self.random.choice(self.seen)[1:], known=known): 3,
            lambda self, known: self.settle(known=known): 6,
            lambda self, _: self.redrive(): 1,
            lambda self, _: self.cancel(): 1,
            lambda self, _: self.crash(): 1,
        }
    )
    """Calls, and how often each is made."""

    def drain(self):
        """Take out all items; return the history."""
        for _ in range(30):
            self.now += 1.0
            for dead in (False, True):
                for row in self.poll(count=1_000, span=60.0, dead=dead):
                    self.remove(row.id, row.lease, dead)
        self.history.drained = self.now
        self.history.calls.sort(key=lambda call: call.invoked)
        return self.history


def _delivered(row, contents):
    facts = {"failures": row.failures, "losses": row.attempt - 1 - row.failures, "error": row.error}
    death = {"death": row.death, "died_at": row.died_at} if row.died_at else {}
    return Delivered(id=row.id, contents=contents, attempt=row.attempt, **facts, **death)


def _place(row):
    return row.due, row.id


def history_of(random, steps, bug=""):
    """Run some steps and a drain; return the history as the clients saw it."""
    assert not bug or bug in BUGS
    queue = Tiny(random, bug)
    queue.history.settings["q"] = {"dedup_window_ms": WINDOW * 1_000}
    for _ in range(steps):
        queue.step()
    history = queue.drain()
    assert history.drained < inf
    return history
