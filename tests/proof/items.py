"""One item of a history: its deliveries, the calls that ended them, and the operators' calls on it."""

from math import inf

from attrs import define, field
from expiries import may_be_dead_by
from history import Outcome, Settle
from tenure import SWEEP_TURNS, SWEPT_SECONDS, latest_end


@define(eq=False)
class Exit:
    """A remove, or an entry of a settle, as it concerns one item."""

    call: object
    lease: bytes
    id: bytes
    action: str
    done: bool = False
    """Whether it took effect for certain."""

    maybe: bool = False
    """Whether it may have taken effect although that is not certain."""

    is_decided: bool = True
    """Whether an answer that it did nothing says that the lease did not hold the item."""

    delay: float | None = None
    error: str = ""
    died: bool | None = None
    """Whether the item is dead by the reply; None if the reply does not say."""

    def __attrs_post_init__(self):
        self.maybe = self.maybe or self.call.outcome is Outcome.UNKNOWN

    @property
    def invoked(self):
        return self.call.invoked

    @property
    def ended(self):
        return self.call.ended

    @property
    def outcome(self):
        return self.call.outcome

    def concerns(self, poll):
        """Return whether it was made to the queue of *poll*."""
        return (isinstance(self.call, Settle) and self.call.everywhere) or self.call.line == poll.line


@define(eq=False)
class Delivery:
    """An item in a poll's reply."""

    poll: object
    lease: object
    item: "Item"
    delivered: object

    @property
    def attempt(self):
        return self.delivered.attempt

    @property
    def failures(self):
        return self.delivered.failures

    @property
    def losses(self):
        """Return how often a lease on the item ended by itself."""
        losses = self.delivered.losses
        return self.attempt - 1 - self.failures if losses is None else losses

    @property
    def life(self):
        """Return what differs before and after a death and a redrive, in order."""
        return self.delivered.died_at, not self.poll.dead

    @property
    def order(self):
        """Return what orders the deliveries of an item as they were decided."""
        return *self.life, self.attempt, self.poll.ended

    @property
    def exits(self):
        """Return the calls by which it may have left this lease."""
        return [each for each in self.item.exits if each.lease == self.poll.lease]

    def held_until(self, before=inf):
        """Return the moment up to which the item was certainly under its lease."""
        left = [each.invoked for each in self.exits if each.done or each.maybe]
        return min([self.lease.earliest_end(before), *left])

    def certainly_held(self, call):
        """Return whether the item was under its lease for the whole duration of *call*."""
        return self.poll.ended < call.invoked and call.ended < self.held_until()

    def gone_by(self, crashes, seen):
        """Return the moment from which the item was certainly not under its lease."""
        done = [each.ended for each in self.exits if each.done and each.outcome is Outcome.OK]
        return min([latest_end(self.lease, crashes, seen), *done])


@define(eq=False)
class Item:
    """A submitted item with its deliveries and the calls on it."""

    add: object
    place: int
    id: bytes | None
    judge: object = field(repr=False)
    deliveries: list = field(factory=list)
    exits: list = field(factory=list)
    operations: list = field(factory=list)
    hidden: bool = False
    """Whether a session may have held it under a lease that no reply showed."""

    def __str__(self):
        name = self.id.hex() if self.id else "of unknown id"
        return f"item {name} of the add at {self.add.invoked:.3f}"

    @property
    def delay(self):
        """Return the item's delay in seconds."""
        return self.add.delays[self.place]

    @property
    def is_duplicate(self):
        """Return whether the reply to its add said that it was not added."""
        return self.place in self.add.duplicates

    @property
    def key(self):
        """Return its deduplication key; empty for none."""
        return self.add.keys[self.place] if self.add.keys else b""

    @property
    def expiry(self):
        """Return when it expires: at the earliest, at the latest, and in ms of the server's time; None for never."""
        return (self.add.expiries[self.place] or None) if self.add.expiries else None

    def first_due(self, seen):
        """Return the earliest moment at which it may have been due when it was handed out at *seen*."""
        due = self.add.invoked + self.delay
        for each in self.operations:
            if each.invoked < seen and (each.done or each.outcome is Outcome.UNKNOWN):
                due = min(due, max(each.invoked, each.low))
        return due

    def under(self, lease):
        """Return the delivery under the lease with that id; None without one."""
        return next((each for each in self.deliveries if each.poll.lease == lease), None)

    def handed_out_after(self, call):
        """Return whether the item was delivered again after *call*, a remove or a cancel."""
        under = self.under(call.lease) if isinstance(call, Exit) else None
        return any(
            each.poll.invoked > call.ended or (under is not None and each.order > under.order)
            for each in self.deliveries
        )

    def covered_at(self, left):
        """Return whether the lease of *left* covered this item and may have been alive when the call was sent."""
        each = self.under(left.lease)
        if each is None or not left.concerns(each.poll):
            return False
        return left.invoked <= latest_end(each.lease, self.judge.history.crashes, left.invoked)

    def may_have_left(self, lease, moment, but=None):
        """Return whether a call other than *but* that began before *moment* may have taken the item from *lease*."""
        return any(
            each.done
            or (each.maybe and (each.action != "remove" or not self.handed_out_after(each)) and self.covered_at(each))
            for each in self.exits
            if each.lease == lease.poll.lease and each.invoked < moment and each is not but
        )

    def may_be_gone(self):
        """Return whether a call may have removed the item for ever."""
        return (
            any(
                each.done or (each.maybe and not self.handed_out_after(each) and self.covered_at(each))
                for each in self.exits
                if each.action == "remove"
            )
            or any(
                each.done or (each.outcome is Outcome.UNKNOWN and not self.handed_out_after(each))
                for each in self.operations
                if each.action == "cancel"
            )
            or any(
                purge.ended > self.add.invoked
                and not any(each.poll.invoked > purge.ended or each.certainly_held(purge) for each in self.deliveries)
                for dead in (False, True)
                for purge in self.judge.purges[self.add.queue, dead]
            )
        )

    def was_not_found(self):
        """Return whether an operator's call did not find the item, which was certainly there."""
        if self.add.outcome is not Outcome.OK or self.judge.history.setting(self.add.queue, "max_attempts"):
            return False
        return any(
            each.result == "not_found"
            and self.add.ended < each.invoked
            and not may_be_dead_by(self, each.ended)
            and not any(
                (one.done or one.maybe) and one.action in {"remove", "reject"} and one.invoked < each.ended
                for one in self.exits
            )
            and not any(
                one.action == "cancel" and one.invoked < each.ended for one in self.operations if one is not each
            )
            and not any(
                purge.invoked < each.ended
                for dead in (False, True)
                for purge in self.judge.purges[self.add.queue, dead]
            )
            for each in self.operations
        )

    def purged_before_delivery(self):
        """Yield purges of the queue when the item was certainly in it and not leased, each with a later delivery."""
        crashes, history = self.judge.history.crashes, self.judge.history
        for purge in self.judge.purges[self.add.queue, False]:
            if purge.outcome is not Outcome.OK or self.add.outcome is not Outcome.OK or self.hidden:
                continue
            swept = SWEEP_TURNS * history.busy_before(purge.invoked)
            later = [each for each in self.deliveries if each.poll.invoked > purge.ended]
            earlier = [each for each in self.deliveries if each.poll.invoked <= purge.ended]
            if (
                later
                and self.add.ended < purge.invoked
                and not later[0].delivered.died_at
                and not any(each.died for each in self.exits)
                # Until they are swept the items of a lease that has ended are leased.
                and all(
                    each.gone_by(crashes, purge.invoked) < purge.invoked - SWEPT_SECONDS - swept for each in earlier
                )
                and not self.judge.unknown.may_hold(self.add.line, purge)
            ):
                yield purge, later[0]
