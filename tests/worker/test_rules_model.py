"""
Any order of events, against an obvious model of the server and of the handlers.

The model keeps a set of leased items for each lease, and forgets an item when a
settlement arrives.  Calls arrive late, twice, or not at all, and so do answers.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from queueber.client_core.errors import OutcomeUnknown
from queueber.errors import InvalidRequest, Overloaded
from queueber.values import Outcome, Settled
from queueber.worker.actions import Cancel, CancelPoll, End, Extend, GiveBack, Poll, PollAnswer, Settle, Start
from queueber.worker.policy import TICK_SECONDS, Policy
from queueber.worker.rules import WorkerRules
from queueber.worker.verdicts import DEFER, REMOVE, Defer, Fail, Reject
from tests.support.examples import examples

SPAN = 30.0
VERDICTS = st.sampled_from(
    [REMOVE, DEFER, Defer(5).verdict, Fail().verdict, Fail(3).verdict, Reject("no").verdict, None]
)


class Worlds(RuleBasedStateMachine):
    @initialize(
        concurrency=st.integers(1, 3),
        prefetch=st.one_of(st.none(), st.integers(0, 3)),
        session=st.booleans(),
        max_runtime=st.sampled_from([None, 4.0]),
        stall=st.sampled_from([None, 8.0]),
    )
    def begin(self, concurrency, prefetch, session, max_runtime, stall):
        self.now = 100.0
        self.session = session
        self.policy = Policy(
            concurrency=concurrency, prefetch=prefetch, lease_seconds=SPAN, max_runtime=max_runtime, stall=stall
        )
        self.rules = WorkerRules(self.policy, self.now, lambda: 0.5)
        self.places = concurrency + (500 if prefetch is None else prefetch)
        if session:
            self.rules.covered(self.now + SPAN)
        # The server: the items of each lease, by lease; those of a timed lease end with it.
        self.server = {}
        self.ends = {}
        self.known_lost = set()
        # The worker's calls under way, the handlers, and all that was ever sent.
        self.poll = None
        self.cancelled_polls = set()
        self.settles = {}
        self.extends = []
        self.handlers = {}
        self.delivered = {}
        self.verdicts = {}
        self.out_of_upkeep = set()
        self.names = 0
        self.stops = 0
        self.ended = False
        self.act()

    # ---- the worker's actions

    def act(self):  # noqa: C901  (one case for each action)
        for action in self.rules.actions(self.now):
            assert not self.ended
            match action:
                case Poll(number, n):
                    assert self.poll is None
                    assert not self.stops
                    self.poll = (number, n, self.now)
                case CancelPoll(number):
                    assert self.poll[0] == number
                    self.cancelled_polls.add((number, self.poll[2]))
                    self.poll = None
                case Start(items):
                    assert not self.stops
                    for taken in items:
                        assert taken.lease.id not in self.known_lost
                        self.handlers[taken] = None
                        taken.begin(self.now)
                case Cancel(taken):
                    assert taken in self.handlers
                case Settle(number, entries):
                    for each in entries:
                        self.check_entry(each)
                    self.settles[number] = entries
                case Extend(lease):
                    assert self.in_upkeep(lease)
                    self.extends.append((lease, self.now))
                case GiveBack(lease, _, waiting):
                    assert not {(lease, each) for each in waiting} & self.out_of_upkeep
                    self.server.pop(lease, None)
                case End():
                    self.ended = True

    def in_upkeep(self, lease):
        """Return the items that still need *lease*."""
        return {item for each, item in self.delivered if each == lease} - {
            item for each, item in self.out_of_upkeep if each == lease
        }

    def check_entry(self, entry):
        key = (entry.lease, entry.id)
        # No result is acknowledged after its lease is known to be lost.
        assert entry.lease not in self.known_lost
        # No item is settled twice: what is sent again is the same verdict.
        assert self.verdicts.setdefault(key, entry[2:]) == entry[2:]
        self.out_of_upkeep.add(key)

    # ---- the server

    def leased(self, n):
        lease = b"lease %d" % len(self.ends)
        items = []
        for _ in range(n):
            self.names += 1
            items.append((b"%d" % self.names, self.names))
        self.server[lease] = {item_id for item_id, _ in items}
        self.ends[lease] = self.now + SPAN
        self.delivered.update({(lease, item_id): None for item_id, _ in items})
        return lease, items

    def apply(self, entries):
        answer = []
        for each in entries:
            held = self.alive(each.lease)
            if each.id in held:
                held.remove(each.id)
                answer.append(Settled(Outcome.DONE))
            else:
                answer.append(Settled(Outcome.LEASE_LOST))
        return answer

    def alive(self, lease):
        if lease not in self.server or (not self.session and self.now >= self.ends[lease]):
            return set()
        return self.server[lease]

    @precondition(lambda self: self.poll is not None)
    @rule(data=st.data())
    def answer_the_poll(self, data):
        number, n, sent = self.poll
        lease, items = self.leased(data.draw(st.integers(1, min(n, 5))))
        self.poll = None
        self.rules.delivered(number, PollAnswer(lease, None, self.session, items, sent), self.now)
        self.act()

    @precondition(lambda self: self.poll is not None)
    @rule(why=st.sampled_from([None, Overloaded("full"), OutcomeUnknown("lost")]))
    def end_the_poll(self, why):
        number, _, _ = self.poll
        self.poll = None
        if why is None:
            self.rules.delivered(number, None, self.now)
        else:
            self.rules.poll_failed(number, why, self.now)
        self.act()

    @precondition(lambda self: self.cancelled_polls and not self.ended)
    @rule()
    def answer_a_cancelled_poll(self):
        number, sent = self.cancelled_polls.pop()
        lease, items = self.leased(1)
        self.rules.delivered(number, PollAnswer(lease, None, self.session, items, sent), self.now)
        self.act()

    @precondition(lambda self: self.settles)
    @rule(how=st.sampled_from(["done", "done", "lost before", "lost after", "refused"]), data=st.data())
    def answer_a_settle(self, how, data):
        number = data.draw(st.sampled_from(sorted(self.settles)))
        entries = self.settles.pop(number)
        if how == "refused" and len(entries) > 1:
            answer = InvalidRequest("too much at once")
        elif how in {"done", "refused"}:
            answer = self.apply(entries)
        else:
            if how == "lost after":
                self.apply(entries)
            answer = OutcomeUnknown("the connection was lost")
        self.rules.settled(number, answer, self.now)
        self.act()

    @precondition(lambda self: self.extends)
    @rule(arrives=st.booleans())
    def answer_an_extension(self, arrives):
        lease, sent = self.extends.pop(0)
        if not arrives:
            answer = OutcomeUnknown("the connection was lost")
        elif answer := bool(self.alive(lease)):
            self.ends[lease] = self.now + SPAN
        if answer is False and self.in_upkeep(lease):
            # Otherwise its last settlement may have overtaken the extension, and is sent again if that is not known.
            self.lose(lease)
        self.rules.extended(lease, answer, sent, self.now)
        self.act()

    @precondition(lambda self: self.server)
    @rule(data=st.data())
    def the_operator_ends_a_lease(self, data):
        lease = data.draw(st.sampled_from(sorted(self.server)))
        self.server[lease] = set()
        self.lose(lease)
        self.rules.lease_lost(lease)
        self.act()

    def lose(self, lease):
        self.known_lost.add(lease)

    @precondition(lambda self: self.session)
    @rule()
    def ping(self):
        self.rules.covered(self.now + SPAN)
        self.act()

    # ---- the handlers and the time

    @precondition(lambda self: self.handlers)
    @rule(verdict=VERDICTS, data=st.data())
    def end_a_handler(self, verdict, data):
        taken = data.draw(st.sampled_from(list(self.handlers)))
        del self.handlers[taken]
        self.rules.done(taken, verdict, self.now)
        self.act()

    @rule()
    def the_loop_turns(self):
        self.rules.loop_turned()
        self.act()

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 2.0, 11.0]))
    def wait(self, seconds):
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + TICK_SECONDS)
            self.rules.tick(self.now)
            self.act()

    @rule(seconds=st.sampled_from([1.0, 40.0]))
    def the_process_pauses(self, seconds):
        self.now += seconds

    @precondition(lambda self: self.stops < 2 and not self.ended)
    @rule(grace=st.sampled_from([0.0, 3.0]))
    def stop(self, grace):
        self.stops += 1
        self.rules.stop(grace, self.now)
        self.act()

    # ---- what always holds

    @invariant()
    def places_suffice(self):
        assert self.ended or len(self.handlers) == self.rules.running <= self.policy.concurrency
        asked = 0 if self.poll is None else self.poll[1]
        assert self.rules.running + self.rules.waiting + asked <= self.places

    def teardown(self):
        """All calls are answered and all handlers end: then each item is settled, or its lease is over."""
        if not hasattr(self, "rules"):
            return
        if self.ended:
            # Its time was up before all was settled; a case in `test_rules` has that.
            return
        self.stops += 1
        self.rules.stop(1.0, self.now)
        self.act()
        for _ in range(200):
            for number, entries in list(self.settles.items()):
                del self.settles[number]
                self.rules.settled(number, self.apply(entries), self.now)
                self.act()
            for taken in list(self.handlers):
                del self.handlers[taken]
                self.rules.done(taken, REMOVE, self.now)
                self.act()
            if self.session:
                self.ping()
            self.now += TICK_SECONDS
            self.rules.tick(self.now)
            self.act()
            if self.ended and not self.settles:
                break
        assert self.ended
        assert (self.rules.leases, self.rules.waiting, self.rules.running, self.rules.settling) == (0, 0, 0, 0)
        if self.session:
            # Those that were lost only here were given back.
            assert [lease for lease, items in self.server.items() if items] == []
        counts = self.rules.counts
        settled = counts.removed + counts.failed + counts.deferred + counts.rejected
        assert counts.delivered == settled + counts.lost


TestWorlds = Worlds.TestCase
TestWorlds.settings = settings(max_examples=examples(60), stateful_step_count=40, deadline=None)
