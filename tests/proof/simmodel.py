# ruff: noqa: C901, PLR0912  (a case for each kind of write)
"""
The expected rows: the obvious queue, fed with every plan when it is made and with every batch that survived.

Knows nothing of keys, records, windows or scans.  Apart from the model of the broker's tests, which compares decisions
in memory: this one reads what a crash has left.
"""

from bisect import bisect_left, insort
from copy import copy

from attrs import define, field
from simworld import BrokenPromise

from queueber.broker.model import Item
from queueber.broker.storage import DeleteItem, DeleteLease, PutItems, PutLease


@define(eq=False)
class Rows:
    """Items, leases and queues."""

    items: dict = field(factory=dict)
    """By queue's number and key."""

    leases: dict = field(factory=dict)
    queues: dict = field(factory=dict)
    free: dict = field(factory=dict)
    """The keys of the items of each queue that no lease names, in order."""

    def copy(self):
        return Rows(dict(self.items), dict(self.leases), dict(self.queues), {q: copy(k) for q, k in self.free.items()})

    def apply(self, writes, records=()):
        for write in writes:
            if isinstance(write, PutItems):
                for item in write.items:
                    place = write.queue, item.key
                    if place not in self.items:
                        insort(self.free.setdefault(write.queue, []), item.key)
                    self.items[place] = item
            elif isinstance(write, DeleteItem):
                if (write.queue, write.key) not in self.items:
                    raise BrokenPromise(f"a plan deletes {write.key}, which is not there")
                del self.items[write.queue, write.key]
                self._take(write.queue, write.key)
            elif isinstance(write, PutLease):
                for key in write.record.keys:
                    self._take(write.record.queue, key)
                self.leases[write.id] = write.record
            elif isinstance(write, DeleteLease):
                gone = self.leases.pop(write.id, None)
                if gone is None:
                    raise BrokenPromise(f"a plan deletes the lease {write.id.hex()}, which is not there")
                for key in gone.keys:
                    if (gone.queue, key) in self.items:
                        insort(self.free[gone.queue], key)
            else:
                self.queues[write.record.number] = write.record
        for record in records:
            self.queues[record.number] = record

    def _take(self, queue, key):
        free = self.free.get(queue, [])
        at = bisect_left(free, key)
        if at < len(free) and free[at] == key:
            del free[at]

    def ready(self, name, now, spoilt=frozenset()):
        """The items of a queue that may be handed out, in order, but for those at *spoilt* places."""
        return [
            key
            for number, record in self.queues.items()
            if record.name == name
            for key in self.free.get(number, ())
            if key.due <= now and (number, key) not in spoilt
        ]

    def overdue(self, now, spoilt):
        """The items under leases that ended before *now*, but for those at *spoilt* places."""
        return [
            key
            for lease in self.leases.values()
            if lease.deadline < now
            for key in lease.keys
            if (lease.queue, key) in self.items and (lease.queue, key) not in spoilt
        ]

    def check_claim(self, plan, now, spoilt):
        """Who is served gets what has been due for longest, as it was added; of *spoilt* places he may get any."""
        taken = []
        (number,) = {write.record.queue for write in plan.writes}
        for delivery in plan.reply:
            for item in delivery.items:
                known = self.items.get((number, item.key))
                if known is None or fields(known) != fields(item):
                    raise BrokenPromise(f"{item} was handed out, which is not what is there: {known}")
                taken.append(item.key)
        free = self.free.get(number, [])
        first = [key for key in free if key in taken or (number, key) not in spoilt][: len(taken)]
        if sorted(taken) != first:
            raise BrokenPromise(f"out of order: {sorted(taken)} left, and {first} were first")
        if taken and max(taken).due > now:
            raise BrokenPromise(f"early: {max(taken)} left at {now}")

    def check_by_itself(self):
        """Check what holds after any commit: exact counters, and no free item at or below a floor."""
        for number, record in self.queues.items():
            count = sum(queue == number for queue, _ in self.items)
            if record.added - record.removed != count:
                raise BrokenPromise(f"queue {record.name} counts {record.added} - {record.removed} and has {count}")
            free = self.free.get(number)
            if free and free[0] <= record.floor:
                raise BrokenPromise(f"{free[0]} lies below the floor {record.floor}")


def fields(item: Item):
    """Return the fields of an item."""
    return item.key, item.contents, item.added_at, item.attempts
