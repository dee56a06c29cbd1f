"""
The one model of queues that all tests with an expectation of a queue share.

The model is items by place, leases by id, and nothing else: no bytes, no window, no floor, no scan.  It changes in two
ways.  Calls, time and crashes change it by the methods named after them (`add`, `claim`, `extend`, ...), which say what
a call means.  A plan changes `ModelStore` by its writes, as it changes a disk.  The test of the broker does both and
compares the two with `state`.

A method for one more event is a few lines of `put`, `delete`, `hold` and `release`: a settled item is released at
another place or at none, one that dies is released into another queue, a purge deletes what is `unleased`.

Three things have no use for it.  The history checker of the proof judges calls and replies by rules of its own, so that
a mistake in this model is found, and its `tiny` server shares nothing with it for the same reason.  `Facts` in
`tests/proof/simclients.py` models what a client knows while replies are on their way, which is not a queue.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from copy import copy
from typing import Self

from attrs import define, field, fields

from queueber.broker.model import (
    LOWEST,
    TIME_BYTES,
    UNKNOWN_TIME,
    Facts,
    Item,
    ItemId,
    Key,
    LeaseId,
    LeaseRecord,
    QueueNumber,
    QueueRecord,
    off_time,
)
from queueber.broker.storage import (
    DedupRecord,
    DeleteDedup,
    DeleteEnded,
    DeleteItem,
    DeleteLease,
    DeleteQueue,
    DeleteRequest,
    DeleteRetired,
    DeleteSettings,
    Digest,
    Ended,
    Found,
    PutDedup,
    PutItems,
    PutLease,
    PutNumbers,
    PutQueue,
    PutRequest,
    PutRetired,
    PutSettings,
    Recovered,
    RequestId,
    Scan,
    SettingFields,
    Write,
)
from queueber.units import WallMs
from queueber.values import Action, Death, DeathReason


class BrokenPromise(AssertionError):
    """A queue did what no queue may do."""


def must(true: object, what: str, *values: object) -> None:
    """Raise `BrokenPromise` with *what*, in which *values* replace the braces, unless *true*."""
    if not true:
        raise BrokenPromise(what.format(*values) if values else what)


def key_after(key: Key, deadline: WallMs) -> Key:
    """Return the new key of an item at *key* whose lease ended at *deadline*."""
    return Key(WallMs(max(key.due + 1, deadline)), key.id)


def dead(queue: Hashable) -> Hashable:
    """Return the model's name of the dead items of a queue."""
    return "dead", queue


def died(item: Item, queue: Hashable, reason: DeathReason, now: WallMs) -> Item:
    """Return *item* of the queue with that name as a dead one."""
    due = max(now, int.from_bytes(item.key.id[:TIME_BYTES], "big") + 1)
    facts = (item.facts or Facts())._replace(expires_at=UNKNOWN_TIME, death=Death(reason, now, str(queue)))
    return item._replace(key=Key(WallMs(due), item.key.id), facts=facts)


@define
class QueueModel:
    """
    Items and leases of any number of queues.  A queue is anything that can be a key: a name or a number.

    Every change that a correct server cannot make raises `BrokenPromise`.
    """

    items: dict[tuple[Hashable, Key], Item] = field(factory=dict)
    """By place: the queue and the item's key."""

    leases: dict[LeaseId, LeaseRecord] = field(factory=dict)
    """Each with all keys that it was given, of which some items may be gone."""

    _holders: dict[tuple[Hashable, Key], LeaseId] = field(factory=dict)
    """The lease that names a place, whether there is an item or not."""

    _held: dict[LeaseId, dict[ItemId, Key]] = field(factory=dict)
    """The items of each lease that are still there."""

    _unleased: dict[Hashable, list[Key]] = field(factory=dict)
    """The places of each queue that no lease names, in order."""

    attempts_max: dict[Hashable, int] = field(factory=dict)
    """The attempts after which an item of a queue dies; without an entry it never does."""

    def copy(self) -> Self:
        """Return a copy that later changes leave alone."""
        changing = {each.alias: copy(getattr(self, each.name)) for each in fields(type(self))}
        for index in ("held", "unleased"):
            changing[index] = {key: copy(entries) for key, entries in changing[index].items()}
        return type(self)(**changing)

    # Changes

    def put(self, queue: Hashable, item: Item) -> None:
        """Place an item; it replaces one with the same key."""
        place = queue, item.key
        if place in self._holders:
            self._held[self._holders[place]][item.key.id] = item.key
        elif place not in self.items:
            insort(self._unleased.setdefault(queue, []), item.key)
        self.items[place] = item

    def delete(self, queue: Hashable, key: Key) -> Item:
        """Delete the item at *key* and return it."""
        place = queue, key
        must(place in self.items, "{} is deleted and is not there", key)
        if place in self._holders:
            del self._held[self._holders[place]][key.id]
        else:
            self._discard_unleased(queue, key)
        return self.items.pop(place)

    def hold(self, lease_id: LeaseId, record: LeaseRecord) -> None:
        """Make a lease, or replace the one with that id."""
        if lease_id in self.leases:
            self.release(lease_id)
        for key in record.keys:
            place = record.queue, key
            must(place not in self._holders, "{} is under two leases", key)
            self._holders[place] = lease_id
            self._discard_unleased(*place)
        self.leases[lease_id] = record
        self._held[lease_id] = {key.id: key for key in record.keys if (record.queue, key) in self.items}

    def release(self, lease_id: LeaseId) -> list[Item]:
        """End a lease.  Its items stay where they are and are returned."""
        must(lease_id in self.leases, "the lease {} is deleted and is not there", lease_id.hex())
        items, record = self.held(lease_id), self.leases.pop(lease_id)
        del self._held[lease_id]
        for key in record.keys:
            del self._holders[record.queue, key]
        for item in items:
            insort(self._unleased.setdefault(record.queue, []), item.key)
        return items

    def _discard_unleased(self, queue: Hashable, key: Key) -> None:
        keys = self._unleased.get(queue, [])
        at = bisect_left(keys, key)
        if at < len(keys) and keys[at] == key:
            del keys[at]

    # Events

    def add(self, queue: Hashable, items: Iterable[Item]) -> None:
        """Add new items, each with the key, the contents and the time of its add."""
        for item in items:
            must((queue, item.key) not in self.items, "{} is added twice", item.key)
            expires_at = item.facts.expires_at if item.facts is not None else 0
            must(not expires_at or item.key.due < expires_at, "{} is added, and expires at {}", item.key, expires_at)
            self.put(queue, item)

    def claim(
        self, queue: Hashable, lease_id: LeaseId, keys: Sequence[Key], deadline: WallMs, now: WallMs = UNKNOWN_TIME
    ) -> None:
        """Lease the items at *keys*."""
        must(all((queue, key) in self.items for key in keys), "one of {} is leased and is not there", keys)
        self.hold(lease_id, LeaseRecord(queue, deadline, tuple(keys), leased_at=now))

    def remove(self, lease_id: LeaseId, item_id: bytes) -> None:
        """Remove a leased item.  The lease ends with its last item."""
        held = self._held.get(lease_id, {})
        must(item_id in held, "the lease {} does not hold {}", lease_id.hex(), item_id.hex())
        self.delete(self.leases[lease_id].queue, held[item_id])
        if not held:
            self.release(lease_id)

    def leave(self, lease_id: LeaseId, item_id: bytes) -> Item:
        """Take a leased item out of its lease, whose row names it no more, and out of its queue; return it."""
        held = self._held.get(lease_id, {})
        must(item_id in held, "the lease {} does not hold {}", lease_id.hex(), item_id.hex())
        record = self.leases[lease_id]
        item = self.delete(record.queue, held[item_id])
        if held:
            self.hold(lease_id, record._replace(keys=tuple(held.values())))
        else:
            self.release(lease_id)
        return item

    def extend(self, lease_id: LeaseId, deadline: WallMs) -> None:
        """Let a lease end at *deadline*."""
        self.leases[lease_id] = self.leases[lease_id]._replace(deadline=deadline)

    def expire(self, lease_id: LeaseId, *, counts: bool = True, now: WallMs = UNKNOWN_TIME) -> None:
        """
        End a lease at its deadline: its items get a later key and count one attempt more, or die at *now*.

        They do not if *counts* is false, because it ended while the server was down.
        """
        record = self.leases[lease_id]
        for item in self.release(lease_id):
            self.delete(record.queue, item.key)
            facts = item.facts
            if record.leased_at and (facts is None or not facts.first_leased_at):
                facts = (facts or Facts())._replace(first_leased_at=record.leased_at)
            attempts = item.attempts + counts
            lost = item._replace(attempts=attempts, facts=facts)
            if counts and attempts >= self.attempts_max.get(record.queue, attempts + 1):
                self.put(dead(record.queue), died(lost, record.queue, DeathReason.LOST, now))
            else:
                self.put(record.queue, lost._replace(key=key_after(item.key, record.deadline)))

    def settle(
        self, lease_id: LeaseId, item_id: bytes, action: Action, due: WallMs | None, error: str, now: WallMs
    ) -> None:
        """
        Let a leased item leave its lease by *action*, `FAIL`, `REJECT` or `DEFER`, with *error*.

        It comes back at *due*, or to its own place if that is None, unless it dies at *now*.
        """
        record = self.leases[lease_id]
        queue, item = record.queue, self.leave(lease_id, item_id)
        facts = item.facts or Facts()
        if not facts.first_leased_at:
            facts = facts._replace(first_leased_at=record.leased_at)
        attempts = item.attempts
        if action is not Action.DEFER:
            attempts += 1
            facts = facts._replace(failures=facts.failures + 1, last_error=error)
        item = item._replace(attempts=attempts, facts=facts)
        last = attempts >= self.attempts_max.get(queue, attempts + 1)
        if action is Action.REJECT or (action is Action.FAIL and last):
            reason = DeathReason.REJECTED if action is Action.REJECT else DeathReason.ATTEMPTS
            self.put(dead(queue), died(item, queue, reason, now))
        else:
            self.put(queue, item if due is None else item._replace(key=Key(due, item.key.id)))

    def give_back(self, lease_id: LeaseId) -> None:
        """End a lease that its poll never received: its items stay as they were."""
        self.release(lease_id)

    # Questions

    def find(self, queue: Hashable, item_id: bytes) -> Item:
        """Return the item of *queue* with this id."""
        found = [item for place, item in self.items.items() if place[1].id == item_id and place[0] == queue]
        must(found, f"there is no item {item_id.hex()}")
        return found[0]

    def holder(self, queue: Hashable, key: Key) -> LeaseId | None:
        """Return the lease that names the item at *key*; None without one."""
        return self._holders.get((queue, key))

    def held(self, lease_id: LeaseId) -> list[Item]:
        """Return the items under a lease, in the order in which it was given them; none if there is no such lease."""
        return [self.items[self.leases[lease_id].queue, key] for key in self._held.get(lease_id, {}).values()]

    def holds(self, queue: Hashable, lease_id: LeaseId, item_id: bytes) -> bool:
        """Return whether a lease on items of *queue* holds this one."""
        return item_id in self._held.get(lease_id, ()) and self.leases[lease_id].queue == queue

    def unleased(self, queue: Hashable) -> Sequence[Key]:
        """Return the keys of the items that no lease names, in order."""
        return self._unleased.get(queue, ())

    def ready(self, queue: Hashable, now: int) -> list[Key]:
        """Return the keys of the items that a poll may be given at *now*, in order."""
        keys = self.unleased(queue)
        return list(keys[: bisect_left(keys, Key(WallMs(now + 1), ItemId(b"")))])

    def ended_leases(self, now: int) -> Iterator[tuple[LeaseId, LeaseRecord]]:
        """Yield the leases whose deadline is no later than *now*."""
        yield from [(lease_id, record) for lease_id, record in self.leases.items() if record.deadline <= now]

    def leased_items(self) -> int:
        """Return how many items are under leases."""
        return len(self.items) - sum(map(len, self._unleased.values()))

    def count(self, queue: Hashable) -> int:
        """Return how many items *queue* has."""
        return sum(each == queue for each, _ in self.items)

    def state(self, name_of: Callable[[Hashable], Hashable] = lambda queue: queue) -> tuple[dict, dict]:
        """Return items by place, and leases with the keys of their items; *name_of* maps the queue of each."""
        items = {(name_of(queue), key): item for (queue, key), item in self.items.items()}
        leases = {
            lease_id: (name_of(record.queue), record.deadline, tuple(item.key for item in self.held(lease_id)))
            for lease_id, record in self.leases.items()
        }
        return items, leases


@define
class ModelStore(QueueModel):
    """The model as a store: changed by writes, read as a broker reads a store.  Its queues are numbers."""

    queues: dict[QueueNumber, QueueRecord] = field(factory=dict)
    settings: dict[QueueNumber, SettingFields] = field(factory=dict)
    retired: dict[QueueNumber, QueueNumber] = field(factory=dict)
    next_number: int = 1
    once: dict[tuple[QueueNumber, Digest | RequestId], DedupRecord] = field(factory=dict)
    """The records of deduplication keys by the queue's id and digest, and those of request ids by 0 and the id."""

    ends: set[Ended] = field(factory=set)
    """The index of the records' ends."""

    def apply(self, writes: Iterable[Write], records: Iterable[QueueRecord] = ()) -> None:
        """Apply the writes and the queues' records of one plan."""
        for write in writes:
            match write:
                case PutItems(queue, items):
                    for item in items:
                        self.put(queue, item)
                case DeleteItem(queue, key):
                    self.delete(queue, key)
                case PutLease(lease_id, lease):
                    self.hold(lease_id, lease)
                case DeleteLease(lease_id):
                    self.release(lease_id)
                case PutQueue(queue_record):
                    self.queues[queue_record.number] = queue_record
                case _:
                    self._apply_other(write)
        for record in records:
            self.queues[record.number] = record

    def _apply_other(self, write: Write) -> None:
        """Apply a write that is about no item, or fail if the model does not know its kind."""
        match write:
            case DeleteQueue(number):
                # One that is purged in the commit of its first add has no row.
                self.queues.pop(number, None)
            case PutSettings(queue, configured):
                self.settings[queue] = configured
            case DeleteSettings(queue):
                self.settings.pop(queue, None)
            case PutRetired(number, queue):
                self.retired[number] = queue
            case DeleteRetired(number):
                self.retired.pop(number, None)
            case PutNumbers(following):
                self.next_number = following
            case _:
                self._apply_once(write)

    def _apply_once(self, write: Write) -> None:
        """Apply a write that is about an add that happens once, or fail if the model does not know its kind."""
        match write:
            case PutDedup(queue, key, record):
                self._put_once(queue, key, record)
            case PutRequest(key, record):
                self._put_once(QueueNumber(0), key, record)
            case DeleteDedup(queue, key):
                must(self.once.pop((queue, key), None), f"the record of {key.hex()} is deleted and is not there")
            case DeleteRequest(key):
                must(self.once.pop((0, key), None), f"the record of {key.hex()} is deleted and is not there")
            case DeleteEnded(entry):
                must(entry in self.ends, f"{entry} is deleted and is not there")
                self.ends.discard(entry)
            case _:
                raise NotImplementedError(f"the model has no rows for {write}")

    def _put_once(self, queue: QueueNumber, key: Digest | RequestId, record: DedupRecord) -> None:
        self.once[queue, key] = record
        self.ends.add(Ended(record.indexed_at, queue, key))

    def number(self, name: str, *, dead: bool = False) -> QueueNumber | None:
        """Return the number of a queue, or with *dead* of its dead items; None if nothing was ever added to it."""
        named = (
            number for number, record in self.queues.items() if record.name == name and bool(record.dead_of) == dead
        )
        return next(named, None)

    def name(self, number: QueueNumber) -> str:
        """Return the name of a queue."""
        return self.queues[number].name

    def scan(self, queue: QueueNumber, after: Key, *, items_max: int, bytes_max: int = 10**12) -> Scan:
        """Return the rows of a queue above *after*."""
        keys = sorted(key for number, key in self.items if number == queue and key > after)
        taken: list[Item] = []
        for key in keys[:items_max]:
            if sum(len(item.contents) for item in taken) >= bytes_max:
                break
            taken.append(self.items[queue, key])
        return Scan(taken, exhausted=len(taken) == len(keys))

    def keys(self, queue: QueueNumber, after: Key, *, items_max: int) -> list[Key]:
        """Return the keys of the first rows of a queue above *after*."""
        return sorted(key for number, key in self.items if number == queue and key > after)[:items_max]

    def read(self, queue: QueueNumber, keys: Iterable[Key]) -> list[Item | None]:
        """Return the items at *keys*; None where there is none."""
        return [self.items.get((queue, key)) for key in keys]

    def find(self, queues: Sequence[QueueNumber], ids: Iterable[ItemId]) -> list[Found | None]:
        """Return the items with these ids; None for one that is in none of *queues*."""
        places = {key.id: Found(queue, item) for (queue, key), item in self.items.items() if queue in queues}
        return [places.get(each) for each in ids]

    def dedup(self, queue: QueueNumber, digests: Iterable[Digest]) -> list[DedupRecord | None]:
        """Return the records of deduplication keys."""
        return [self.once.get((queue, digest)) for digest in digests]

    def requests(self, ids: Iterable[RequestId]) -> list[DedupRecord | None]:
        """Return the records of request ids."""
        return [self.once.get((QueueNumber(0), each)) for each in ids]

    def ended(self, now: int, *, entries_max: int) -> list[tuple[Ended, DedupRecord | None]]:
        """Return the first entries of the index of ends, each with its record."""
        entries = sorted(entry for entry in self.ends if entry.ends <= now)
        return [(entry, self.once.get((entry.queue, entry.key))) for entry in entries[:entries_max]]

    def recover(self) -> Recovered:
        """Return the state from which a broker starts."""
        recovered = {}
        for lease_id, record in self.leases.items():
            held = self.held(lease_id)
            sizes = tuple(len(item.contents) for item in held)
            recovered[lease_id] = record._replace(keys=tuple(item.key for item in held), sizes=sizes)
        return Recovered(
            list(self.queues.values()), recovered, None, dict(self.settings), dict(self.retired), self.next_number
        )

    def _items_of(self, record: QueueRecord) -> list[Item]:
        """Return the items of a queue, those that are leased under its retired numbers included."""
        formers = {number for number, queue in self.retired.items() if queue == record.id}
        return [
            item
            for (queue, key), item in self.items.items()
            if queue == record.number or (queue in formers and self.holder(queue, key) is not None)
        ]

    def check(self) -> None:
        """Check what holds after any commit: exact counters and sizes, and no unleased item at or below a floor."""
        for number, record in self.queues.items():
            items = self._items_of(record)
            must(not record.dead_of or all(off_time(item.key) for item in items), "a dead item is where its id says")
            size, off = sum(len(item.contents) for item in items), sum(off_time(item.key) for item in items)
            counted = record.added - record.removed, record.bytes, record.off_time
            must(counted == (len(items), size, off), "{} is wrong: {}", record, (len(items), size, off))
            first = next(iter(self.unleased(number)), None)
            must(first is None or first > record.floor, "{} lies below the floor {}", first, record.floor)
        must(all(key > LOWEST for _, key in self.items), "an item has the lowest key")
        for (queue, key), once in self.once.items():
            must(Ended(once.indexed_at, queue, key) in self.ends, f"no sweep will find {once}")
        for lease in self.leases.values():
            for key, size in zip(lease.keys, lease.sizes, strict=True):
                item = self.items.get((lease.queue, key))
                must(item is None or size == len(item.contents), "{} has the wrong size of {}", lease, item)
