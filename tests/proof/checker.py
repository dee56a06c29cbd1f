"""
Checks whether some order of events in a server that keeps its promises explains a history.

Each item is a small automaton, and each lease a span with an earliest and a
latest end, so a check takes time in proportion to the history.  There are no
false alarms: whatever a correct server can cause is accepted.  An error that
no client can observe is not found.

It shares no code with the server and no model with other tests: it judges calls and replies alone, so that an error
in the understanding of a queue that the server and its tests have in common is found here.

``checker.py FILE`` judges a history that was saved.
"""

import sys
from collections import Counter
from enum import StrEnum
from math import inf

from attrs import define, field
from flow import judge_flow
from history import Add, Delivered, Extend, Outcome, Poll, Remove, load
from tenure import Lease, after_crashes, latest_end, skew

from queueber.errors import Kind
from queueber.limits import Limits
from queueber.units import MS_PER_SECOND

LATE_SECONDS = 1.5
EXAMPLES_MAX = 5
ID_BYTES = 16
DELAY_SECONDS_MAX = Limits().delay_ms / MS_PER_SECOND
BUSY = "the storage engine has to catch up first"
"""The one reason for `overloaded` under so small a load: tiny write buffers."""


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


@define(eq=False)
class Delivery:
    """An item in a poll's reply."""

    poll: Poll
    lease: Lease
    item: "Item"
    attempt: int


@define(eq=False)
class Item:
    """A submitted item with its deliveries and removes."""

    add: Add
    place: int
    id: bytes | None
    deliveries: list = field(factory=list)
    removes: list = field(factory=list)

    def __str__(self):
        name = self.id.hex() if self.id else "of unknown id"
        return f"item {name} of the add at {self.add.invoked:.3f}"

    @property
    def delay(self):
        """Return the item's delay in seconds."""
        return self.add.delays[self.place]

    def handed_out_after(self, remove):
        """Return whether the item was delivered again after *remove*."""
        at = next((each.attempt for each in self.deliveries if each.poll.lease == remove.lease), inf)
        return any(each.attempt > at or each.poll.invoked > remove.ended for each in self.deliveries)

    def covered_at(self, remove, crashes):
        """Return whether the lease of *remove* covered this item and may have been alive when the call was sent."""
        for each in self.deliveries:
            poll, lease = each.poll, each.lease
            if poll.lease == remove.lease and poll.queue == remove.queue:
                return remove.invoked <= latest_end(lease, crashes, remove.invoked)
        return False

    def may_be_removed_by(self, moment, crashes):
        """Return whether a remove that began before *moment* may have removed the item."""
        return any(
            each.done
            or (each.outcome is Outcome.UNKNOWN and not self.handed_out_after(each) and self.covered_at(each, crashes))
            for each in self.removes
            if each.invoked < moment
        )


class Judge:
    """The check of one history: `judge` runs it."""

    def __init__(self, history):
        self.history = history
        self.findings = Findings()
        self.found = self.findings.found
        self.items = {}
        self.by_id = {}
        self.leases = {}
        for add in history.of(Add):
            self.take_add(add)
        for poll in history.of(Poll):
            self.take_poll(poll)
        for remove in history.of(Remove):
            self.take_remove(remove)
        for extend in history.of(Extend):
            if extend.lease in self.leases:
                self.leases[extend.lease].extends.append(extend)
            elif extend.done:
                self.found(Verdict.STALE, f"the lease {extend.lease.hex()}, which no poll returned, was extended")

    def take_add(self, add):
        """Record the items of an add."""
        for place, contents in enumerate(add.contents):
            item = Item(add, place, add.ids[place] if add.outcome is Outcome.OK else None)
            assert contents not in self.items, "contents must tell items apart"
            self.items[contents] = item
            if item.id is not None:
                if item.id in self.by_id:
                    self.found(Verdict.UNEXPECTED, f"the id of {item} was given before")
                self.by_id[item.id] = item

    def take_poll(self, poll):
        """Record the lease and the deliveries of a poll."""
        if poll.lease:
            if poll.lease in self.leases:
                self.found(Verdict.UNEXPECTED, f"two polls have the lease {poll.lease.hex()}")
            self.leases[poll.lease] = Lease(poll)
        for delivered in poll.items:
            self.take(poll, delivered)

    def take_remove(self, remove):
        """Record a remove with its lease and its item."""
        if remove.lease in self.leases:
            self.leases[remove.lease].removes.append(remove)
        if remove.id in self.by_id:
            self.by_id[remove.id].removes.append(remove)
        elif remove.done:
            self.found(Verdict.UNEXPECTED, f"{remove.id.hex()}, which no client added, was removed")

    def take(self, poll, delivered: Delivered):
        """Record a delivery."""
        item = self.items.get(delivered.contents)
        if item is None or item.add.queue != poll.queue or item.add.outcome is Outcome.REFUSED:
            self.found(Verdict.UNEXPECTED, f"the poll at {poll.invoked:.3f} gave {delivered.contents[:40]!r}")
            return
        if item.id is None:
            item.id = delivered.id
            self.by_id[item.id] = item
        if item.id != delivered.id or poll.ended < item.add.invoked:
            self.found(Verdict.UNEXPECTED, f"{item} was given at {poll.ended:.3f} as {delivered.id.hex()}")
            return
        item.deliveries.append(Delivery(poll, self.leases[poll.lease], item, delivered.attempt))

    def judge(self):
        """Check all items, leases, refusals and disconnects; return the findings."""
        for item in self.items.values():
            item.deliveries.sort(key=lambda each: (each.attempt, each.poll.ended))
            self.judge_deliveries(item)
            self.judge_removes(item)
            if item.deliveries:
                self.findings.items += 1
                self.findings.duplicates += len(item.deliveries) - 1
                self.findings.recovered += item.add.outcome is Outcome.UNKNOWN
        for lease in self.leases.values():
            self.judge_lease(lease)
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
                return max(call.delays, default=0.0) > DELAY_SECONDS_MAX
            return isinstance(call, Remove | Extend) and len(call.lease) != ID_BYTES
        if call.kind == Kind.OVERLOADED:
            return isinstance(call, Add) and BUSY in call.why
        return call.kind == Kind.DISCONNECTED and self.away(call.ended)

    def judge_breaks(self):
        """Find connections that the server ended while it ran."""
        for each in self.history.breaks:
            if not self.away(each.at):
                self.found(Verdict.CUT_OFF, f"a connection at {each.at:.3f}, while the server lived: {each.why[:100]}")

    def away(self, at):
        """Return whether the server was down or going down at that moment."""
        return any(crash.down <= at <= crash.up for crash in self.history.crashes)

    def judge_deliveries(self, item):
        """Find deliveries that are early or double-held, and miscounted attempts."""
        crashes = self.history.crashes
        before = None
        for each in item.deliveries:
            poll = each.poll
            due = item.add.invoked + item.delay
            if poll.ended < due - skew(crashes, item.add.invoked, poll.ended):
                self.found(Verdict.EARLY, f"{item} was given {due - poll.ended:.3f} s before its delay was over")
            if before is not None:
                repeated = each.attempt == before.attempt and not self.excused(before.lease)
                if repeated or poll.ended < before.poll.invoked:
                    self.found(Verdict.MISCOUNTED, f"{item}: attempt {before.attempt}, and then {each.attempt}")
                self.judge_pair(item, before, each)
            before = each

    def excused(self, lease):
        """Return whether *lease* may have ended while the server was down, which counts no attempt."""
        return after_crashes(self.history.crashes, lease.earliest_end(), lease.latest_end())[1]

    def judge_pair(self, item, one, other):
        """Find two consecutive deliveries of which neither lease can have ended before the other delivery."""
        slack = skew(self.history.crashes, one.poll.invoked, other.poll.ended)
        first_held = other.poll.ended < one.lease.earliest_end(other.poll.ended) - slack
        if first_held and one.poll.ended < other.lease.earliest_end(one.poll.ended) - slack:
            self.found(
                Verdict.DOUBLE_HELD,
                f"{item} was given at {one.poll.ended:.3f} for {one.poll.span:.3f} s and again at"
                f" {other.poll.ended:.3f}",
            )

    def judge_removes(self, item):
        """Find items that were removed twice, removed under a wrong lease, or delivered after their removal."""
        done = [each for each in item.removes if each.done]
        if len(done) > 1:
            self.found(Verdict.DOUBLE_REMOVED, f"{item} was removed {len(done)} times")
        for remove in done:
            lease = self.leases.get(remove.lease)
            if lease is None or not any(each.lease is lease for each in item.deliveries):
                self.found(Verdict.STALE, f"{item} was removed under a lease that did not cover it")
            elif remove.queue != lease.poll.queue:
                self.found(Verdict.STALE, f"{item} was removed through another queue")
            elif item.handed_out_after(remove):
                self.found(Verdict.RESURRECTED, f"{item} was removed at {remove.ended:.3f} and came back")

    def judge_lease(self, lease):
        """Find calls that succeeded after the lease's end, and calls that did nothing before it."""
        crashes, poll = self.history.crashes, lease.poll
        for call in [*lease.extends, *lease.removes]:
            if call.outcome is not Outcome.OK:
                continue
            if call.done:
                others = Lease(poll, [each for each in lease.extends if each is not call])
                if call.invoked > latest_end(others, crashes, call.ended):
                    self.found(
                        Verdict.STALE, f"the lease of the poll at {poll.invoked:.3f} still served at {call.invoked:.3f}"
                    )
                continue
            slack = skew(crashes, poll.invoked, call.ended)
            if call.queue != poll.queue or call.ended >= lease.earliest_end(call.ended) - slack:
                continue
            covered = [self.by_id[each.id] for each in poll.items if each.id in self.by_id]
            if isinstance(call, Remove):
                covered = [each for each in covered if each.id == call.id]
            if any(not each.may_be_removed_by(call.ended, crashes) for each in covered):
                self.found(
                    Verdict.SHORT,
                    f"the lease of the poll at {poll.invoked:.3f} for {poll.span:.3f} s had ended at {call.ended:.3f}",
                )

    def judge_remaining(self):
        """Find lost items and torn batches, after a drain that took out all items."""
        for item in self.items.values():
            if item.add.outcome is Outcome.OK and not item.may_be_removed_by(inf, self.history.crashes):
                self.found(Verdict.LOST, f"{item}, {len(item.deliveries)} times delivered")
        for add in self.history.of(Add):
            if add.outcome is Outcome.UNKNOWN:
                seen = sum(1 for contents in add.contents if self.items[contents].deliveries)
                if 0 < seen < len(add.contents):
                    self.found(
                        Verdict.TORN, f"of the add at {add.invoked:.3f} there were {seen} of {len(add.contents)} items"
                    )


def check(history):
    """Return the errors in *history*."""
    return Judge(history).judge()


if __name__ == "__main__":
    findings = check(load(sys.argv[1]))
    print(*findings.examples, sep="\n")
    print(f"{findings.items:,} items, {findings.duplicates:,} duplicates, {findings.recovered:,} recovered")
    sys.exit(1 if findings.wrong else 0)
