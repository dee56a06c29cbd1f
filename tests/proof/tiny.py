"""
A queue in forty lines, correct or with one of `BUGS`, and the history that its clients observe.

The queue decides one call after the other, each at a time between the call's
begin and end.  For the clients, calls overlap in any way.
"""

from math import inf

from attrs import define, field
from history import Add, Crash, Delivered, Extend, History, Outcome, Poll, Remove

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
)


@define(eq=False)
class Row:
    """An item of the queue."""

    id: bytes
    contents: bytes
    due: float
    attempt: int = 1
    lease: bytes = b""


@define(eq=False)
class Tiny:
    """The queue, driven by the numbers of *random*, which needs `random`, `randrange` and `choice`."""

    random: object
    bug: str = ""
    now: float = 100.0
    rows: dict = field(factory=dict)
    deadlines: dict = field(factory=dict)
    seen: list = field(factory=list)
    history: History = field(factory=History)
    count: int = 0

    def id(self):
        self.count += 1
        return self.count.to_bytes(16, "big")

    def hits(self, bug):
        """Return whether to have *bug* in this call."""
        return self.bug == bug and self.random.random() < 0.5

    def note(self, call, *, known=True):
        """Log *call*, decided now."""
        call.invoked = self.now - self.random.random() * 0.05
        call.ended = self.now + self.random.random() * 0.05
        if not known:
            call.outcome = Outcome.UNKNOWN
        self.history.calls.append(call)

    def expire(self):
        grace = 2.0 if self.bug == "accepts ended leases" else 0.0
        for row in self.rows.values():
            if row.lease and self.deadlines[row.lease] + grace <= self.now:
                row.due = max(self.deadlines[row.lease], row.due + 0.001)
                row.attempt += not self.hits("forgets an attempt")
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
        self.note(call, known=known)
        rows = [Row(*each) for each in zip(ids, contents, [self.now + each for each in delays], strict=True)]
        if not known:
            call.ids = []
            if self.hits("stores half an add"):
                rows = rows[:1]
            elif self.random.random() < 0.5:
                return
        if known and self.hits("forgets an add"):
            return
        for row in rows:
            if self.bug == "ignores delays":
                row.due = self.now
            self.rows[row.id] = row

    def poll(self, *, known=True, count=None, span=None):
        self.expire()
        ready = sorted((row for row in self.rows.values() if row.due <= self.now and not row.lease), key=_place)
        if self.hits("delivers the newest first"):
            ready.reverse()
        if self.hits("delivers leased items"):
            ready += [row for row in self.rows.values() if row.lease]
        if self.hits("forgets waiting polls"):
            ready = []
        taken = ready[: count or 1 + self.random.randrange(3)]
        span = span or self.random.choice([0.2, 1.0, 5.0])
        call = Poll(queue="q", invoked=0, outcome=Outcome.OK, span=span)
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
                call.items.append(Delivered(id=row.id, contents=contents, attempt=row.attempt))
            self.seen += [(row.id, lease) for row in taken]
        return taken

    def remove(self, number, lease, *, known=True):
        row = self.rows.get(number)
        done = row is not None and row.lease == lease and self.live(lease)
        call = Remove(queue="q", invoked=0, outcome=Outcome.OK, id=number, lease=lease, done=done)
        self.note(call, known=known)
        if done and (known or self.random.random() < 0.5):
            if self.hits("brings removed items back"):
                row.lease, row.due = b"", self.now
                row.attempt += 1
            elif not self.hits("removes twice"):
                del self.rows[number]
        if not known:
            call.done = False

    def extend(self, lease, *, known=True):
        span = self.random.choice([0.1, 1.0, 3.0])
        done = any(row.lease == lease for row in self.rows.values()) and self.live(lease)
        call = Extend(queue="q", invoked=0, outcome=Outcome.OK, lease=lease, span=span, done=done)
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
        what = self.random.randrange(20)
        if what < 5:
            self.add(known=known)
        elif what < 12 or not self.seen:
            self.poll(known=known)
        elif what < 16:
            self.remove(*self.random.choice(self.seen), known=known)
        elif what < 19:
            self.extend(self.random.choice(self.seen)[1], known=known)
        else:
            self.history.crashes.append(Crash(self.now + 0.1, self.now + 0.6))
            self.now += 0.7

    def drain(self):
        """Take out all items; return the history."""
        for _ in range(30):
            self.now += 1.0
            for row in self.poll(count=1_000, span=60.0):
                self.remove(row.id, row.lease)
        self.history.drained = self.now
        self.history.calls.sort(key=lambda call: call.invoked)
        return self.history


def _place(row):
    return row.due, row.id


def history_of(random, steps, bug=""):
    """Run some steps and a drain; return the history as the clients saw it."""
    assert not bug or bug in BUGS
    queue = Tiny(random, bug)
    for _ in range(steps):
        queue.step()
    history = queue.drain()
    assert history.drained < inf
    return history
