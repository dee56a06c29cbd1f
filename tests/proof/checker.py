"""
Checks whether some order of events in a server that keeps its promises explains a history.

Each item is a small automaton, and each lease a span with an earliest and a
latest end, so a check takes time in proportion to the history.  There are no
false alarms: whatever a correct server can cause is accepted.  An error that
no client can observe is not found.

It shares no code with the server and no model with other tests: it judges calls and replies alone, so that an error
in the understanding of a queue that the server and its tests have in common is found here.

Items are in `items`, leases in `tenure`.  The laws about one item are here, those about several in `flow`, about
settles in `settling`, sessions in `attendance`, adds that happen once in `once` and items that expire in `expiries`.

``checker.py FILE`` judges a history that was saved.
"""

import sys
from collections import Counter, defaultdict
from enum import StrEnum
from math import inf

from attendance import judge_sessions, unseen_leases
from attrs import define, field
from expiries import judge_expiries, may_be_in_vain
from flow import Unknown, judge_flow
from history import Add, Attach, Delivered, Extend, Operate, Outcome, Poll, Purge, Remove, Settle, load
from items import Delivery, Exit, Item
from once import judge_once, merged_adds
from settling import judge_counts, judge_deaths, judge_settles, take_settle
from tenure import Lease, SessionLease, latest_end, skew

from queueber.errors import Kind
from queueber.limits import Limits
from queueber.units import MS_PER_SECOND

LATE_SECONDS = 1.5
EXAMPLES_MAX = 5
ID_BYTES = 16
DELAY_SECONDS_MAX = Limits().delay_ms / MS_PER_SECOND
BUSY = "the storage engine has to catch up first"
"""The one reason for `overloaded` under so small a load and with a good disk: tiny write buffers."""

UNREADABLE = "cannot be read at the moment"
"""The reason of every call that had to read a file of the database and could not."""


class Verdict(StrEnum):
    """The kinds of errors."""

    LOST = "lost"
    UNEXPECTED = "unexpected"
    RESURRECTED = "resurrected"
    DOUBLE_HELD = "double-held"
    DOUBLE_REMOVED = "double-removed"
    TORN = "torn batch"
    EARLY = "early"
    SHORT = "short"
    STALE = "stale lease obeyed"
    MISCOUNTED = "attempts miscounted"
    MISREPORTED = "facts misreported"
    UNDEAD = "undead"
    EXPIRED = "expired"
    IN_VAIN = "added in vain"
    TWICE = "added twice"
    WITHHELD = "withheld as a duplicate"
    LATE = "late"
    OUT_OF_ORDER = "out of order"
    REFUSED = "refused without cause"
    CUT_OFF = "cut off"


@define
class Findings:
    """The errors of a history with a few examples of each kind, and the counts of permitted events."""

    wrong: Counter = field(factory=Counter)
    examples: list = field(factory=list)
    items: int = 0
    """Items that were delivered at least once."""

    duplicates: int = 0
    """Deliveries of an item after its first.  Permitted."""

    recovered: int = 0
    """Delivered items of adds whose reply was lost.  Permitted."""

    def found(self, verdict, what):
        """Count an error, and keep its description if there are few of its kind."""
        self.wrong[verdict] += 1
        if self.wrong[verdict] <= EXAMPLES_MAX:
            self.examples.append(f"{verdict}: {what}")


class Judge:
    """The check of one history: `judge` runs it."""

    def __init__(self, history):
        self.history = history
        history.note_busy()
        self.findings = Findings()
        self.found = self.findings.found
        self.items = {}
        self.by_id = {}
        self.leases = {}
        self.unseen = set()
        """Leases that a session had and no poll's reply showed."""
        self.purges = defaultdict(list)
        """By queue and whether of its dead items."""
        for purge in history.of(Purge):
            if purge.outcome is not Outcome.REFUSED:
                self.purges[purge.line].append(purge)
        self.unknown = Unknown(history)
        """The polls without a reply."""
        attaches = defaultdict(list)
        for attach in history.of(Attach):
            attaches[attach.session].append(attach)
        self.attaches = attaches
        self.adds = merged_adds(history, self, Verdict)
        self.take_calls(history)

    def take_calls(self, history):
        """Record all calls with their items and leases."""
        for add in self.adds:
            self.take_add(add)
        for poll in history.of(Poll):
            self.take_poll(poll)
        self.unseen, hidden = unseen_leases(history, self.leases)
        for number in hidden & self.by_id.keys():
            self.by_id[number].hidden = True
        for remove in history.of(Remove):
            self.take_exit(Exit(remove, remove.lease, remove.id, "remove", done=remove.done))
        for settle in history.of(Settle):
            take_settle(self, settle)
        for operate in history.of(Operate):
            self.take_operation(operate)
        for extend in history.of(Extend):
            self.take_extend(extend)

    def take_add(self, add):
        """Record the items of an add."""
        for place, contents in enumerate(add.contents):
            item = Item(add, place, add.ids[place] if add.outcome is Outcome.OK else None, self)
            assert contents not in self.items, "contents must tell items apart"
            self.items[contents] = item
            if place in add.duplicates:
                item.id = None
            if item.id is not None:
                if item.id in self.by_id:
                    self.found(Verdict.UNEXPECTED, f"the id of {item} was given before")
                self.by_id[item.id] = item

    def take_poll(self, poll):
        """Record the lease and the deliveries of a poll."""
        if poll.lease:
            if poll.lease in self.leases:
                self.found(Verdict.UNEXPECTED, f"two polls have the lease {poll.lease.hex()}")
            made = Lease(poll)
            if poll.session:
                made = SessionLease(poll, attaches=self.attaches[poll.session], history=self.history)
            self.leases[poll.lease] = made
        for delivered in poll.items:
            self.take(poll, delivered)

    def take_exit(self, left):
        """Record a remove, or an entry of a settle, with its lease and its item."""
        if left.lease in self.leases:
            self.leases[left.lease].exits.append(left)
        if left.id in self.by_id:
            self.by_id[left.id].exits.append(left)
        elif left.done and left.lease not in self.unseen:
            self.found(Verdict.UNEXPECTED, f"{left.id.hex()}, which no client added, was removed")

    def take_extend(self, extend):
        """Record an extend with its lease."""
        if extend.lease in self.leases:
            self.leases[extend.lease].extends.append(extend)
        elif extend.done:
            self.found(Verdict.STALE, f"the lease {extend.lease.hex()}, which no poll returned, was extended")

    def take_operation(self, operate):
        """Record an operator's call on an item."""
        if operate.id in self.by_id:
            self.by_id[operate.id].operations.append(operate)
        elif operate.done:
            self.found(Verdict.UNEXPECTED, f"{operate.id.hex()}, which no client added, was changed")

    def take(self, poll, delivered: Delivered):
        """Record a delivery."""
        item = self.items.get(delivered.contents)
        if item is not None and item.is_duplicate:
            self.found(Verdict.TWICE, f"{item}, which was a duplicate, was given at {poll.ended:.3f}")
            return
        if item is None or item.add.queue != poll.queue or item.add.outcome is Outcome.REFUSED:
            self.found(Verdict.UNEXPECTED, f"the poll at {poll.invoked:.3f} gave {delivered.contents[:40]!r}")
            return
        if item.id is None:
            item.id = delivered.id
            self.by_id[item.id] = item
        if item.id != delivered.id or poll.ended < item.add.invoked:
            verdict = Verdict.TWICE if item.add.request and item.id != delivered.id else Verdict.UNEXPECTED
            self.found(verdict, f"{item} was given at {poll.ended:.3f} as {delivered.id.hex()}")
            return
        item.deliveries.append(Delivery(poll, self.leases[poll.lease], item, delivered))

    def judge(self):
        """Check all items, leases, refusals and disconnects; return the findings."""
        for item in self.items.values():
            item.deliveries.sort(key=lambda each: each.order)
            self.judge_deliveries(item)
            judge_counts(self, Verdict, item)
            judge_deaths(self, Verdict, item)
            self.judge_exits(item)
            self.judge_operations(item)
            if item.deliveries:
                self.findings.items += 1
                self.findings.duplicates += len(item.deliveries) - 1
                self.findings.recovered += item.add.outcome is Outcome.UNKNOWN
        for lease in self.leases.values():
            self.judge_lease(lease)
        judge_settles(self, Verdict)
        judge_sessions(self, Verdict)
        judge_once(self, Verdict)
        judge_expiries(self, Verdict)
        if self.history.drained < inf:
            self.judge_remaining()
        judge_flow(self, Verdict, LATE_SECONDS)
        self.judge_refusals()
        self.judge_breaks()
        return self.findings

    def judge_refusals(self):
        """Find refusals of valid calls for which the history shows no reason."""
        for call in self.history.calls:
            if call.outcome is Outcome.REFUSED and not self.has_cause(call):
                kind = Kind(call.kind).name.lower() if call.kind in set(Kind) else f"kind {call.kind}"
                self.found(
                    Verdict.REFUSED,
                    f"the {type(call).__name__.lower()} at {call.invoked:.3f}: {kind}: {call.why[:100]}",
                )

    def has_cause(self, call):
        """Return whether *call* was refused for a valid reason."""
        if call.kind == Kind.FAILED:
            if isinstance(call, Add):
                return max(call.delays, default=0.0) > DELAY_SECONDS_MAX or may_be_in_vain(call)
            return isinstance(call, Remove | Extend) and len(call.lease) != ID_BYTES
        if call.kind == Kind.OVERLOADED:
            adds = isinstance(call, Add) or (isinstance(call, Settle) and call.contents)
            return (adds and BUSY in call.why) or (UNREADABLE in call.why and self.after_fault(call))
        return call.kind == Kind.DISCONNECTED and self.away(call.ended)

    def after_fault(self, call):
        """Return whether the server that answered *call* had met a fault of the disk by then."""
        begin = max((crash.down for crash in self.history.crashes if crash.down <= call.invoked), default=-inf)
        return any(begin <= fault <= call.ended for fault in self.history.faults)

    def judge_breaks(self):
        """Find connections that the server ended while it ran, and that no newer one has replaced."""
        for each in self.history.breaks:
            if not self.away(each.at) and not self.is_replaced(each):
                self.found(Verdict.CUT_OFF, f"a connection at {each.at:.3f}, while the server lived: {each.why[:100]}")

    def is_replaced(self, lost):
        """Return whether another connection has attached a session of the lost connection."""
        return any(
            any(each.connection == lost.connection and each.outcome is Outcome.OK for each in attaches)
            and any(each.connection != lost.connection and each.invoked <= lost.at for each in attaches)
            for attaches in self.attaches.values()
        )

    def away(self, at):
        """Return whether the server was down or going down at that moment."""
        return any(crash.down <= at <= crash.up for crash in self.history.crashes)

    def judge_deliveries(self, item):
        """Find deliveries that are early or double-held."""
        crashes = self.history.crashes
        before = None
        for each in item.deliveries:
            poll = each.poll
            due = item.first_due(poll.ended)
            if poll.ended < due - skew(crashes, item.add.invoked, poll.ended):
                self.found(Verdict.EARLY, f"{item} was given {due - poll.ended:.3f} s before its delay was over")
            if before is not None:
                if poll.ended < before.poll.invoked:
                    self.found(Verdict.MISCOUNTED, f"{item}: attempt {before.attempt}, and before it {each.attempt}")
                self.judge_pair(item, before, each)
            before = each

    def judge_pair(self, item, one, other):
        """Find two consecutive deliveries of which neither lease can have ended before the other delivery."""
        slack = skew(self.history.crashes, one.poll.invoked, other.poll.ended)
        first_held = other.poll.ended < one.held_until(other.poll.ended) - slack
        if first_held and one.poll.ended < other.held_until(one.poll.ended) - slack:
            self.found(
                Verdict.DOUBLE_HELD,
                f"{item} was given at {one.poll.ended:.3f} for {one.poll.span:.3f} s and again at"
                f" {other.poll.ended:.3f}",
            )

    def judge_exits(self, item):
        """Find items that left one lease twice, or a wrong one, or were delivered after their removal."""
        done = [each for each in item.exits if each.done]
        for lease, count in Counter(each.lease for each in done).items():
            if count > 1:
                self.found(Verdict.DOUBLE_REMOVED, f"{item} left the lease {lease.hex()} {count} times")
        removed = [each for each in done if each.action == "remove"]
        removed += [each for each in item.operations if each.done and each.action == "cancel"]
        if len({each.lease if isinstance(each, Exit) else each for each in removed}) > 1:
            self.found(Verdict.DOUBLE_REMOVED, f"{item} was removed {len(removed)} times")
        for left in done:
            lease = self.leases.get(left.lease)
            if left.lease in self.unseen:
                continue
            if lease is None or not any(each.lease is lease for each in item.deliveries):
                self.found(Verdict.STALE, f"{item} was removed under a lease that did not cover it")
            elif not left.concerns(lease.poll):
                self.found(Verdict.STALE, f"{item} was removed through another queue")
        for each in removed:
            if item.handed_out_after(each):
                self.found(Verdict.RESURRECTED, f"{item} was removed at {each.ended:.3f} and came back")

    def judge_operations(self, item):
        """Find operators' calls on items that were leased, or not found although they were there, and purged items."""
        for each in item.operations:
            holder = next((one for one in item.deliveries if one.certainly_held(each)), None)
            if each.done and holder is not None:
                self.found(Verdict.STALE, f"{item} was leased at {each.invoked:.3f}, and {each.action} changed it")
        if item.was_not_found():
            self.found(Verdict.LOST, f"an operator did not find {item}")
        for purge, each in item.purged_before_delivery():
            self.found(
                Verdict.RESURRECTED, f"{item} was purged at {purge.ended:.3f} and came back at {each.poll.ended:.3f}"
            )

    def judge_lease(self, lease):
        """Find calls that succeeded after the lease's end, and calls that did nothing before it."""
        crashes, poll = self.history.crashes, lease.poll
        for call in [*lease.extends, *lease.exits]:
            if call.outcome is not Outcome.OK or not call.is_decided:
                continue
            if call.done:
                others = lease.without(call)
                if call.invoked > latest_end(others, crashes, call.ended):
                    self.found(
                        Verdict.STALE, f"the lease of the poll at {poll.invoked:.3f} still served at {call.invoked:.3f}"
                    )
                continue
            slack = skew(crashes, poll.invoked, call.ended)
            if not call.concerns(poll) or call.ended >= lease.earliest_end(call.ended) - slack:
                continue
            covered = [self.by_id[each.id] for each in poll.items if each.id in self.by_id]
            if isinstance(call, Exit):
                covered = [each for each in covered if each.id == call.id]
            if any(not each.may_have_left(lease, call.ended, call) for each in covered):
                self.found(
                    Verdict.SHORT,
                    f"the lease of the poll at {poll.invoked:.3f} for {poll.span:.3f} s had ended at {call.ended:.3f}",
                )

    def judge_remaining(self):
        """Find lost items and torn batches, after a drain that took out all items."""
        for item in self.items.values():
            if item.add.outcome is Outcome.OK and not item.is_duplicate and not item.may_be_gone():
                self.found(Verdict.LOST, f"{item}, {len(item.deliveries)} times delivered")
        for add in self.adds:
            if add.outcome is Outcome.UNKNOWN and not self.purges[add.line]:
                # One with a key may be a duplicate.
                fresh = [each for place, each in enumerate(add.contents) if not (add.keys and add.keys[place])]
                seen = sum(1 for contents in fresh if self.items[contents].deliveries)
                if 0 < seen < len(fresh):
                    self.found(Verdict.TORN, f"of the add at {add.invoked:.3f} there were {seen} of {len(fresh)} items")


def check(history):
    """Return the errors in *history*."""
    return Judge(history).judge()


if __name__ == "__main__":
    findings = check(load(sys.argv[1]))
    print(*findings.examples, sep="\n")
    print(f"{findings.items:,} items, {findings.duplicates:,} duplicates, {findings.recovered:,} recovered")
    sys.exit(1 if findings.wrong else 0)
