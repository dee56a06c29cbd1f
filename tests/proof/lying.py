"""
Several clients and one server, with random faults of its disk, its clocks and its process.

An example is a machine that begins with an empty disk, fifty steps of work and
faults, and a drain.  The server's own parts run on `simworld`.  The rows are
compared with the model at each start, each claim with the order of the queue,
and each reply with the promises that `simclients` has noted.

A failing example is made small before it is shown, and is repeated by its seed:
``--seed S --only N``.  ``--lies`` gives a disk that claims to have synced and has
not: there the check has to find a loss.
"""

import argparse
import itertools
import sys
import time
from random import Random

from attrs import define, evolve, field
from counts import Counts, command_line
from simclients import PLACES, QUEUES, SESSION_GRACE_MS, Call, Client, Facts, SessionFact, new_item
from simdisk import Dead
from simworld import FULL, ROOMY, Machine, on
from twisted.logger import globalLogBeginner

from queueber import api
from queueber.api import control_types as types
from queueber.broker import ClaimBounds
from queueber.broker.model import LOWEST
from queueber.limits import Limits
from queueber.server.core.clock import JUMP_MAX_SECONDS
from queueber.store.rows.keys import ITEMS_TABLE, decode_item_key, item_key
from queueber.units import SpanMs
from tests.support.queue_model import BrokenPromise, ModelStore, must

STEPS = 50
CLIENTS = 3
SESSIONS = 2
PINGED_SECONDS = 2.0
"""The longest step of time while a session is attached: silent peers are lost after thirty seconds."""

TIGHT = {
    "leased_items": 8,
    "poll_items": 5,
    "queue_window_bytes": 600,
    "window_bytes": 800,
    "refill_items": 3,
    "refill_bytes": 400,
    "expiry_slice": 2,
}
FATAL = frozenset({"write", "sync", "file"})
"""The only errors with which the server may end itself."""

LONGEST = 60_000
"""Durations of leases and delays, ms."""

SPANS = (1, 50, 400, 3_000, LONGEST)
DELAYS = (0, 0, 0, 1, 50, 5_000)
SWEPT_WITHIN = 200
"""The time for a sweep, ms: one begins every 100."""

SETTLE_DELAYS = (None, 0, 1, 400)
ACTIONS = (*[each for each in api.Action if each is not api.Action.EXTEND], api.Action.FAIL, api.Action.DEFER)
REPEATED_WITHIN = 400_000
"""The time within which an add is sent again, ms: the server remembers it for ten minutes."""

WAITS = (0, 0, 30, 2_000, None, None)
ADVANCES = (0.001, 0.05, 0.05, 0.11, 0.5, 2.0, 30.0, 4_000.0)
FAR = 2**62
YEAR = 366 * 86_400.0
JUMPS = tuple(sign * each for sign in (1, -1) for each in (1.0, 3_600.0, YEAR, 10 * YEAR))


@define(eq=False)
class Example:
    """One machine and its clients."""

    seed: object
    lies: float = 0.0
    rng: Random = field(init=False)
    machine: Machine = field(init=False)
    facts: Facts = field(init=False)
    decided: ModelStore | None = None
    """The rows of all plans that were made, durable or not."""

    early: list = field(factory=list)
    clients: list = field(factory=list)
    contents: object = field(factory=itertools.count)
    counts: dict = field(factory=dict)
    repeatable: tuple | None = None
    """The last add with a request id: its parameters and its call."""

    repeating: list = field(factory=list)
    """Adds that were sent again."""

    def __attrs_post_init__(self):
        self.rng = Random(self.seed)
        limits = Limits(**TIGHT) if self.rng.random() < 0.6 else Limits()
        bounds = self.rng.choice((ClaimBounds(), ClaimBounds(polls=3, items=4, bytes=30)))
        self.machine = Machine(self.rng, limits, bounds, lies=self.lies)
        self.machine.submitted = self.submitted
        self.facts = Facts(self.now)
        self.counts = self.facts.counts

    def now(self):
        """Return queue time, as the running server counts it."""
        return self.machine.clock.now()

    def spoilt(self):
        """The places whose rows could not be read at some time since the last start."""
        return {(int.from_bytes(row[1:5], "big"), decode_item_key(row)) for row in self.machine.disk.spoilt}

    # What the server decides

    def submitted(self, plan):
        if self.decided is None:
            self.early.append(plan)
            return
        deliveries = plan.reply if isinstance(plan.reply, list) and hasattr((plan.reply or [0])[0], "waiter") else ()
        now = self.machine.clock.now()
        try:
            if any(each.items for each in deliveries):
                self.check_claim(plan, now)
            self.decide(self.decided, plan)
            self.check_empty(deliveries, now)
        except BrokenPromise as wrong:
            # Here it would only end the simulated server.
            self.machine.bugs.append(wrong)

    @staticmethod
    def decide(rows, plan):
        """Apply a plan to *rows*, and what its commit will add."""
        rows.apply(plan.writes, plan.records)
        for number in plan.dropped:
            rows.queues.pop(number, None)

    def check_claim(self, plan, now):
        """Polls get the items that have been due for longest, as they were added; spoilt ones may be passed over."""
        (number,) = {write.record.queue for write in plan.writes}
        items = [item for delivery in plan.reply for item in delivery.items]
        for item in items:
            known = self.decided.items.get((number, item.key))
            must(item == known, "{} was handed out, and {} is there", item, known)
        taken, spoilt = sorted(item.key for item in items), self.spoilt()
        first = [key for key in self.decided.unleased(number) if key in taken or (number, key) not in spoilt]
        must(taken == first[: len(taken)], "out of order: {} left, and {} were first", taken, first)
        must(taken[-1].due <= now, "early: {} left at {}", taken[-1], now)

    def ready(self, name, now):
        """Return the keys of the items that a poll must be given; none if no more items may be leased."""
        if self.decided.leased_items() >= self.machine.limits.leased_items:
            return []
        number, spoilt = self.decided.number(name.removeprefix("dead "), dead=name.startswith("dead ")), self.spoilt()
        return [key for key in self.decided.ready(number, now) if (number, key) not in spoilt]

    def check_empty(self, deliveries, now):
        """Check that no poll gets an empty reply while there are items for it."""
        for each in deliveries:
            if not each.items and each.error is None:
                queue = each.waiter.queue
                ready = self.ready(f"{'dead ' * (queue.owner is not None)}{queue.name}", now)
                must(not ready, "a poll got an empty reply while {} were ready", ready)

    # The machine

    def start(self, *, power, reboot=False):
        """Start the server, as often as it takes; then check that it has everything that was promised."""
        machine, rng = self.machine, self.rng
        for attempt in itertools.count():
            machine.disk.restart(power=power)
            if power or reboot:
                machine.boots += 1
                machine.booted, machine.boot_skew = machine.time, 0.0
            elif rng.random() < 0.05:
                machine.boot_skew -= rng.choice((0.5, 3_000.0))
            if rng.random() < 0.2:
                self.jump()
            rows, note = self.survived()
            self.decided, self.early = None, []
            if attempt < 3:
                self.obstruct()
            machine.boot(rng.choice((0.0, 0.2, 0.2, 5.0, 5_000.0)))
            self._guard(machine.settle)
            machine.disk.crash_in = None
            machine.disk.fails.clear()
            if machine.up is not None and not machine.dead:
                if machine.disk.failed:
                    raise BrokenPromise(f"the server starts although {machine.disk.failed} failed")
                break
            if not machine.disk.dead and not machine.disk.failed:
                raise BrokenPromise("the server does not start")
            self.facts.count("crash while starting")
            power, reboot = rng.random() < 0.5, False
        self.decided = rows
        for plan in self.early:
            self.decide(rows, plan)
        self.check_clock(note)
        self.check_rows(rows)
        self.facts.check(rows)
        self.facts.disturbed = False
        self.clients = []

    def obstruct(self):
        """Let the start fail, perhaps."""
        if self.rng.random() < 0.2:
            # A directory is made once: more often in the middle of that.
            few = not self.machine.disk.there_for_good and self.rng.random() < 0.5
            self.machine.disk.crash_in = self.rng.randrange(1, 6 if few else 25)
        if self.rng.random() < 0.05:
            self.machine.disk.fails.add(self.rng.choice(("write", "sync", "read", "file")))

    def survived(self):
        """Return the rows of all commits that are on the disk, and the last of their notes."""
        rows, last, log = ModelStore(), None, self.machine.disk.log
        notes = [] if log is None else [*log.base_notes, *(batch.note for batch in log.batches)]
        for note in notes:
            if note is not None:
                rows.apply(note[0])
                last = note
        rows.check()
        return rows, last

    def check_clock(self, note):
        machine = self.machine
        now = machine.clock.now()
        if note is None:
            expected = machine.wall() * 1e3
        else:
            _, mark, moment, boots = note
            if boots == machine.boots:
                if machine.boot_skew:
                    if now < mark.queue_time:
                        raise BrokenPromise(f"queue time ran backwards: {mark.queue_time} to {now}")
                    return
                expected = mark.queue_time + (machine.time - moment) * 1e3
            else:
                wall = machine.wall() * 1e3
                passed = min(wall - mark.queue_time, wall - mark.wall)
                expected = mark.queue_time + (0 if passed > JUMP_MAX_SECONDS * 1e3 else max(0, passed))
        if abs(now - expected) > 3:
            raise BrokenPromise(f"queue time is {now} and should be {expected:.0f}")

    def check_rows(self, rows):
        """Check that the store finds what was committed."""
        store = self.machine.store
        found, expected = store.recover(), rows.recover()
        queues = {each.number: each for each in found.queues}
        must(queues == rows.queues, "queues: {}, and {} were committed", queues, rows.queues)
        must(found.leases == expected.leases, "leases: {}, and {} were committed", found.leases, expected.leases)
        items = {
            (number, item.key): item
            for number in (*rows.queues, *rows.retired)
            for item in store.scan(number, LOWEST, items_max=10**6, bytes_max=10**12).items
        }
        must(items == rows.items, "items: {}, and {} were committed", items, rows.items)
        self.check_side_rows(store, rows)

    def check_side_rows(self, store, rows):
        """Check that the store finds items by their ids, settings, retired numbers, and records of adds."""
        for number in rows.queues:
            ids = [item.key.id for (queue, _), item in rows.items.items() if queue == number]
            must(
                store.find([number], ids) == rows.find([number], ids), "items of {} are not found by their ids", number
            )
        for (queue, key), record in rows.once.items():
            found = store.dedup(queue, [key]) if queue else store.requests([key])
            must(found == [record], "the record of {} is {}, and {} was committed", key.hex(), found, record)
        ended, expected = (each.ended(FAR, entries_max=10**6) for each in (store, rows))
        must(list(ended) == expected, "the index of ends is {}, and {} was committed", ended, expected)
        found = store.recover()
        must((found.settings, found.retired) == (rows.settings, rows.retired), "settings or retired numbers differ")

    def jump(self):
        """Set the clock."""
        before = self.machine.clock and self.machine.clock.now()
        self.machine.wall_offset = max(0.0, self.machine.wall_offset + self.rng.choice(JUMPS))
        if self.machine.clock and self.machine.clock.now() != before:
            raise BrokenPromise("the wall clock moves queue time")
        self.facts.count("wall clock set")

    def end(self, *, power):
        """End the process or the machine."""
        machine = self.machine
        if machine.ended is not None and not machine.disk.failed & FATAL:
            raise BrokenPromise(f"the server ended by itself: {machine.ended}")
        self.facts.crashed_at = self.facts.now()
        self.facts.count("power cut" if power else "killed")
        # What was written may be on its way to the peer, or not.
        self.facts.hear([client for client in self.clients if self.rng.random() < 0.5])
        for client in self.clients:
            client.forget()
        machine.disk.dead = True
        machine.disk.power = False
        self.start(power=power)

    # Steps

    def step(self, seed):
        rng = self.rng
        # Each step by itself, so that others can be left out.
        rng.seed(seed)
        name = rng.choices(NAMES, WEIGHTS)[0]
        getattr(self, name)()
        self.after()

    def after(self):
        machine = self.machine
        machine.reactor.advance(0) if not machine.dead else None
        if machine.bugs:
            raise machine.bugs[0]
        if machine.dead:
            self.end(power=machine.disk.power)
            return
        if machine.disk.failed & {"write", "sync"}:
            raise BrokenPromise(f"the server goes on although {machine.disk.failed} failed")
        self.facts.hear(self.clients)
        for client in list(self.clients):
            if client.transport.gone and client.superseded:
                self.clients.remove(client)
                client.lose(politely=True)
            elif client.transport.gone:
                raise BrokenPromise("the server closed a connection")
        if machine.bugs:
            raise machine.bugs[0]

    def client(self):
        if len(self.clients) < CLIENTS or not self.clients:
            self.clients.append(Client(self.facts, self.machine.up))
        return self.rng.choice(self.clients)

    def queue(self):
        return self.rng.choices(QUEUES, (3, 1))[0]

    def place(self):
        """Return a queue, or now and then its dead items."""
        return self.rng.choices(PLACES, (12, 4, 3, 1))[0]

    def add(self):
        """Make one call, or several that arrive together and differ only in their contents."""
        client, queue, several = self.client(), self.queue(), self.rng.choice((1, 1, 1, 6))
        delay = self.rng.choice(DELAYS) if several > 1 else None
        client.ask(*[self.adding(queue, delay) for _ in range(several)])

    def adding(self, queue, delay, *, request=b"", keys=()):
        rng = self.rng
        count = len(keys) or (1 if delay is not None else rng.choice((1, 1, 2, 4)))
        specified = [b"%d" % next(self.contents) for _ in range(count)]
        delays = [rng.choice(DELAYS) if delay is None else delay for _ in specified]
        call = self.facts.adding(queue, specified, delays)
        for fact, key in zip(call.facts, keys, strict=False):
            # Others of the call may be duplicates.
            fact.key, fact.siblings = key, [fact]
            self.facts.keys.setdefault((queue, key), []).append(fact)
        keys = keys or [b""] * count
        items = [new_item(*each) for each in zip(specified, delays, keys, strict=True)]
        return api.ADD, api.write_add_request(api.AddRequest(items, request)), call

    def poll(self):
        rng = self.rng
        span, wait = rng.choice(SPANS), rng.choice(WAITS)
        call = Call("poll", self.facts.now(), self.place(), span=span, wait=wait)
        request = api.PollRequest(SpanMs(span), rng.randrange(1, 6), wait or None, no_wait=wait == 0)
        self.client().ask((api.POLL, api.write_poll_request(request), call))

    def add_again(self):
        """Make an add with a request id, and send it again: at once, over another connection, or after a loss."""
        if self.repeatable is None or self.rng.random() < 0.5:
            _, content, call = self.adding(self.queue(), 0, request=self.rng.randbytes(16))
            self.repeatable = content, call
            self.client().ask((api.ADD, content, call))
        content, call = self.repeatable
        recent = self.facts.now() - call.invoked < REPEATED_WITHIN
        if recent and call.facts[0].added not in ("refused", "absent"):
            again = evolve(call, again=True)
            for fact in call.facts:
                fact.askers += 1
            self.repeating.append(again)
            self.client().ask((api.ADD, content, again))

    def add_keyed(self):
        """Add items with keys, some of them already taken."""
        keys = [b"key %d" % self.rng.randrange(4) for _ in range(self.rng.randrange(1, 4))]
        method, content, call = self.adding(self.queue(), None, keys=keys)
        self.client().ask((method, content, call))

    def settle_some(self):
        """Settle items of the last leases in any way, perhaps after one more poll, and hand some off."""
        if self.rng.random() < 0.7:
            call = Call("poll", self.facts.now(), self.place(), span=LONGEST)
            request = api.PollRequest(SpanMs(LONGEST), 3, None, no_wait=True)
            self.client().ask((api.POLL, api.write_poll_request(request), call))
            self._guard(self.machine.settle)
            if self.machine.dead:
                return
            self.facts.hear(self.clients)
        now = self.facts.now()
        live = [each for each in self.facts.leases.values() if each.low > now and each.items]
        entries, lease = [], self.rng.choice(live) if live and self.rng.random() < 0.8 else self.lease()
        if lease is None:
            return
        for _ in range(self.rng.choice((1, 2, 4))):
            one = self.lease() if self.rng.random() < 0.2 else lease
            item = self.rng.choice(one.given)
            if any(each[:2] == (one, item) for each in entries):
                continue
            action = self.rng.choice(ACTIONS)
            delay = None if action in (api.Action.REMOVE, api.Action.REJECT) else self.rng.choice(SETTLE_DELAYS)
            entries.append((one, item, action, delay))
        queue = self.place() if self.rng.random() < 0.1 else lease.queue
        adds = [b"%d" % next(self.contents)] if self.rng.random() < 0.3 else []
        to = self.queue()
        facts = self.facts.adding(to, adds, [0] * len(adds)).facts
        every = self.rng.random() < 0.3
        call = self.facts.settling(queue, entries, facts, all_or_nothing=every)
        settlements = [
            api.Settlement(one.id, item.id, action, None if delay is None else SpanMs(delay), "broken")
            for one, item, action, delay in entries
        ]
        added = [api.AddTo(to, [new_item(each, 0) for each in adds])] if adds else []
        content = api.write_settle_request(api.SettleRequest(settlements, added, every))
        self.client().ask((api.SETTLE, content, call))

    def attach(self):
        """Attach a session, new or known, to a connection, perhaps while another has it; or poll in it."""
        sessions = self.facts.sessions
        attached = [each for each in sessions if each.client in self.clients]
        if attached and self.rng.random() < 0.6:
            session = self.rng.choice(attached)
            call = Call("poll", self.facts.now(), self.queue(), session=session)
            request = api.PollRequest(SpanMs(0), self.rng.randrange(1, 4), None, no_wait=True, session=session.id)
            session.client.ask((api.POLL, api.write_poll_request(request), call))
            if self.rng.random() < 0.5:
                return
            # Its worker comes back at once, over the same connection or another one.
            self._guard(self.machine.settle)
            if self.machine.dead:
                return
            self.facts.hear(self.clients)
            if session.client in self.clients and self.rng.random() < 0.5:
                self.clients.remove(session.client)
                session.client.lose(politely=False)
                if self.rng.random() < 0.5:
                    # Too late.
                    self.advance_by(2.0 * SESSION_GRACE_MS / 1e3)
                    self._guard(self.machine.settle)
                    if self.machine.dead:
                        return
            self.client().attach(session)
            return
        if len(sessions) < SESSIONS:
            sessions.append(SessionFact(self.rng.randbytes(16)))
        self.client().attach(self.rng.choice(sessions))

    def operate(self):
        """Purge, redrive, cancel an item or configure, as an operator does."""
        queue, client = self.queue(), self.client()
        match self.rng.randrange(5):
            case 0:
                client.operate(self.facts.purging(queue), types.PURGE, False)
            case 1 | 2:
                buried = [item.queue for item in self.facts.items.values() if item.dead and not item.removed]
                queue = self.rng.choice(buried) if buried else queue
                request = types.RedriveRequest(limit=self.rng.randrange(1, 4))
                client.operate(self.facts.redriving(queue), types.REDRIVE, request)
            case 3:
                settings = types.QueueSettings(lease_ms=SpanMs(self.rng.choice((100, 60_000))))
                request = types.ConfigureRequest(names=["lease_ms"], settings=settings)
                client.operate(Call("configure", self.facts.now(), queue), types.CONFIGURE, request)
            case _ if known := [item for item in self.facts.items.values() if item.id is not None]:
                item = self.rng.choice(known)
                client.operate(self.facts.cancelling(item), types.CANCEL, item.id)

    def lease(self):
        """Return one of the last leases, ended or not."""
        leases = list(itertools.islice(reversed(self.facts.leases.values()), 6))
        return self.rng.choice(leases) if leases else None

    def remove(self):
        """Make one call, or several that arrive together."""
        calls = [self.removing() for _ in range(self.rng.choice((1, 1, 2, 4)))]
        self.client().ask(*[each for each in calls if each is not None])

    def removing(self):
        lease = self.lease()
        if lease is None:
            return None
        item, queue = self.rng.choice(lease.given), lease.queue
        if self.rng.random() < 0.1:
            item = self.rng.choice([each for each in self.facts.items.values() if each.id is not None])
        if self.rng.random() < 0.1:
            queue = self.queue()
        call = self.facts.removing(queue, lease, item)
        return api.REMOVE, api.write_remove_request(api.RemoveRequest(item.id, lease.id)), call

    def extend(self):
        lease = self.lease()
        if lease is None or lease.extending or lease.session is not None:
            return
        span, queue = self.rng.choice(SPANS), self.queue() if self.rng.random() < 0.1 else lease.queue
        client = self.client()
        call = self.facts.extending(queue, lease, span)
        client.ask((api.EXTEND, api.write_extend_request(api.ExtendRequest(lease.id, SpanMs(span))), call))

    def cancel(self):
        waiting = [(c, q) for c in self.clients for q, call in c.calls.items() if call.kind == "poll"]
        if waiting:
            client, question = self.rng.choice(waiting)
            client.give_up(question)

    def drop(self):
        if self.clients:
            client = self.clients.pop(self.rng.randrange(len(self.clients)))
            client.lose(politely=self.rng.random() < 0.5)

    def advance(self):
        self.advance_by(self.rng.choice(ADVANCES))

    def advance_by(self, span):
        """Let *span* seconds pass, or fewer if a call or a session would be over."""
        # A call that is sent again much later is another one.
        waits = bool(self.repeating)
        if any(session.client is not None for session in self.facts.sessions):
            span = min(span, PINGED_SECONDS)
            for client in {session.client for session in self.facts.sessions} & set(self.clients):
                client.ping()
        self.machine.advance(min(span, 30.0) if waits else span)

    def work(self):
        machine = self.machine
        for _ in range(self.rng.randrange(1, 5)):
            self._guard(machine.pool.work if self.rng.random() < 0.5 else machine.pool.deliver)

    def settle(self):
        self._guard(self.machine.settle)
        if not self.machine.dead and not self.machine.up.committer.stalled and not self.machine.disk.stalls:
            self.after()
            if not self.machine.dead:
                self.undisturbed()
                self.check_no_poll_waits_for_a_ready_item()
                self.repeating = []
                surviving = [lease.id for lease in self.facts.leases.values() if self.survives(lease)]
                must(not surviving or self.facts.disturbed, f"the session leases {surviving} survive their grace")

    def _guard(self, deed):
        """Handle a process that has died in the middle."""
        try:
            deed()
        except BaseException as why:
            if isinstance(why, BrokenPromise) or not self.machine.disk.dead:
                raise

    def stall(self):
        self.machine.disk.stalls = self.rng.randrange(1, 4)
        self.facts.count("stalled")

    def fail(self):
        kind = self.rng.choice(("write", "sync", "sync", "read", "read", "file"))
        self.machine.disk.fails.add(kind)
        self.facts.disturbed |= kind == "read"
        self.facts.count("failed " + kind)

    def crash(self):
        """Let the process or the machine end soon, in the middle of an operation."""
        self.machine.disk.crash_in = self.rng.randrange(1, 12)
        self.machine.disk.power = self.rng.random() < 0.6

    def kill(self):
        self.end(power=self.rng.random() < 0.6)

    def stop(self):
        """Stop the server in order."""
        machine = self.machine
        self.facts.crashed_at = self.facts.now()
        stopped = machine.server.stopService()
        for _ in range(60):
            self._guard(lambda: (machine.advance(0.1), machine.settle()))
            if stopped.called or machine.dead:
                break
        else:
            raise BrokenPromise("the server does not stop")
        self.facts.hear(self.clients)
        for client in self.clients:
            client.forget()
        if machine.dead:
            self.end(power=machine.disk.power)
        else:
            self.facts.count("stopped")
            self.start(power=False, reboot=self.rng.random() < 0.5)

    def space(self):
        self.machine.space = FULL if self.machine.space is ROOMY else ROOMY

    def quiesce(self):
        """Check that no poll waits for a ready item once the disk has caught up."""
        machine = self.machine
        machine.disk.stalls = 0
        for _ in range(5):
            self._guard(lambda: (machine.advance(0.06), machine.settle()))
        self.after()
        if not machine.dead:
            self.undisturbed()
            self.check_no_poll_waits_for_a_ready_item()
            overdue = self.overdue(self.facts.now() - SWEPT_WITHIN)
            overdue += [lease.id for lease in self.facts.leases.values() if self.survives(lease)]
            if overdue and not self.facts.disturbed:
                raise BrokenPromise(f"leases have ended, and {overdue} are still under them")

    def survives(self, lease):
        """Return whether a session lease is there although its grace is over."""
        over = lease.session is not None and lease.high < self.facts.now() - SWEPT_WITHIN
        return over and lease.id in self.decided.leases and not self.machine.disk.spoilt

    def overdue(self, now):
        """Return the keys of the items under leases that ended before *now*, without spoilt ones."""
        spoilt = self.spoilt()
        return [
            item.key
            for lease_id, lease in self.decided.ended_leases(now - 1)
            for item in self.decided.held(lease_id)
            if (lease.queue, item.key) not in spoilt
        ]

    def undisturbed(self):
        """Let everything finish, including the consequences of a failed read."""
        if "read" not in self.machine.disk.fails:
            self.facts.disturbed = bool(self.machine.disk.unreadable)

    def spoil(self):
        """Make a row unreadable, either one under a lease or any."""
        log, rows = self.machine.disk.log, self.decided
        leased = [item_key(lease.queue, key) for lease in rows.leases.values() for key in lease.keys]
        items = [row for row in log.keys if row[:1] == ITEMS_TABLE]
        candidates = [row for row in leased if row in log.rows] if self.rng.random() < 0.5 else items
        if candidates:
            self.machine.disk.spoil(self.rng.choice(candidates))
            self.facts.disturbed = True
            self.facts.count("row spoilt")

    def check_no_poll_waits_for_a_ready_item(self):
        """Check that no poll waits while an item is ready for it."""
        # The timer that serves it is set in whole milliseconds, from a now that is rounded down to one.
        now = self.facts.now() - 1
        for client in self.clients:
            for call in client.calls.values():
                if call.kind == "poll" and (ready := self.ready(call.queue, now)):
                    raise BrokenPromise(f"a poll waits while {ready} are ready")

    # The end

    def drain(self):
        """Check that without faults everything that was added and not removed comes out, and nothing is left."""
        machine, disk = self.machine, self.machine.disk
        disk.crash_in, disk.stalls, machine.space = None, 0, ROOMY
        disk.fails.clear()
        # A lying disk is found out by the last power cut at the latest.
        self.end(power=self.rng.random() < 0.5)
        self.rng.seed("drain")
        disk.crash_in = None
        client = Client(self.facts, machine.up)
        self.clients = [client]
        for _ in range(200):
            machine.advance(LONGEST / 1e3 + 1)
            machine.settle()
            before = self.counts.get("delivered", 0)
            for queue in PLACES:
                call = Call("poll", self.facts.now(), queue, span=LONGEST)
                request = api.PollRequest(SpanMs(LONGEST), 100, None, no_wait=True)
                client.ask((api.POLL, api.write_poll_request(request), call))
            machine.settle()
            self.after()
            for lease in self.facts.leases.values():
                if lease.low > self.facts.now():
                    for item in lease.items:
                        if not item.removed:
                            call = self.facts.removing(lease.queue, lease, item)
                            content = api.write_remove_request(api.RemoveRequest(item.id, lease.id))
                            client.ask((api.REMOVE, content, call))
            machine.settle()
            self.after()
            if self.counts.get("delivered", 0) == before:
                break
        for _ in range(3):
            # The rows that purges left.
            machine.advance(2.0)
            machine.settle()
        self.after()
        self.check_drained()

    def check_drained(self):
        for fact in self.facts.items.values():
            if fact.added == "acked" and not fact.removed and not fact.removing:
                raise BrokenPromise(f"lost: {fact.contents} did not come out")
            if fact.added in ("asked", "unknown"):
                raise BrokenPromise(f"{fact.contents} is {fact.added} to the end")
        left = [key for key in self.machine.disk.log.keys if key[:1] in b"il"]
        if left or self.decided.items or self.decided.leases:
            raise BrokenPromise(f"rows are left: {left}, {self.decided.items}, {self.decided.leases}")
        self.machine.up.broker.check()


WEIGHTED = {
    "add": 18,
    "add_again": 4,
    "add_keyed": 4,
    "settle_some": 20,
    "attach": 10,
    "operate": 8,
    "poll": 24,
    "remove": 28,
    "extend": 14,
    "cancel": 4,
    "drop": 3,
    "advance": 16,
    "work": 28,
    "settle": 24,
    "jump": 4,
    "stall": 2,
    "fail": 2,
    "crash": 4,
    "kill": 3,
    "stop": 2,
    "space": 1,
    "quiesce": 6,
    "spoil": 2,
}
NAMES, WEIGHTS = tuple(WEIGHTED), tuple(WEIGHTED.values())


def play(seed, steps, *, lies=0.0):
    """Return the error in an example of these steps, or None, and what happened in it."""
    example = Example(seed, lies)
    with on(example.machine):
        try:
            example.start(power=False)
            for step in steps:
                example.step(step)
            example.drain()
        except BrokenPromise as wrong:
            return str(wrong), example
        except Dead:
            return f"the server ended by itself: {example.machine.ended}", example
    return None, example


def smaller(seed, steps, *, lies=0.0):
    """Return fewer of *steps* that still fail."""
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            if play(seed, fewer, lies=lies)[0] is not None:
                steps = fewer
            else:
                at += size
        size //= 2
    return steps


def steps_of(seed, number):
    """Return the seeds of an example's steps."""
    rng = Random(f"{seed} {number}")
    return [rng.getrandbits(62) for _ in range(STEPS)]


def names_of(steps):
    """Return the steps."""
    return [Random(step).choices(NAMES, WEIGHTS)[0] for step in steps]


def main():
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--examples", "--cycles", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="the example of this number")
    parser.add_argument("--lies", type=float, default=0.0, help="how often a sync is none: losses must be found")
    asked = parser.parse_args()
    globalLogBeginner.beginLoggingTo([lambda _: None], redirectStandardIO=False, discardBuffer=True)
    alone = asked.only is not None
    tries, counts, began = Counts("lying", "examples", target=1 if alone else asked.examples), {}, time.monotonic()
    for _, number in zip(tries.rounds(1), [asked.only] if alone else itertools.count(), strict=False):
        steps = steps_of(asked.seed, number)
        wrong, example = play(f"{asked.seed} {number}", steps, lies=asked.lies)
        for what, count in example.counts.items():
            counts[what] = counts.get(what, 0) + count
        if wrong is not None and not asked.lies:
            few = smaller(f"{asked.seed} {number}", steps)
            again, _ = play(f"{asked.seed} {number}", few)
            wrong = f"example {number} (--only {number}): {wrong}; in {names_of(few)}: {again}"
        if wrong is None and not example.counts.get("added"):
            tries.void()
        else:
            tries.count([wrong] if wrong else [])
    print(", ".join(f"{count:,} {what}" for what, count in sorted(counts.items())))
    print(f"{time.monotonic() - began:.0f} s")
    if asked.lies:
        found = len(tries.failures)
        tries.failures = [] if found else ["a disk that lies was not found out"]
        print(f"a disk that lies was found out in {found} of {tries.n} examples")
    return tries.end(command_line())


if __name__ == "__main__":
    sys.exit(main())
