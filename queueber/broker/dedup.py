"""
Adding once: adds with a request id or with deduplication keys, and the end of their records.

Such an add reads the records of its keys before it is decided, unless it has
only a request id, which certainly has no record.  The read takes a snapshot that
may lack the writes of the plans that were not durable at its request or were made
since; the lookup follows these, and they win.  So of two adds with one key, the
one that is decided second finds the record of the first.

A record has an end, or counts until its item is gone.  An item may go in many
ways: it is removed, cancelled, purged with its queue, it expires or dies.  None
of them knows of the record.  Instead, a lookup that finds such a record also
looks for the item, and a record whose item is gone or has expired is no hit.

Every record has an entry in the index of ends, at which a sweep looks at it.  A
record with an end is deleted then, unless it was renewed meanwhile.  One without
an end is deleted if its item is gone, and else looked at again later, after as
long as its item exists, but between ten minutes and a day.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import Final, NamedTuple, TypeAlias

from attrs import define, field

from queueber.broker.adds import Adds
from queueber.broker.expired import is_expired
from queueber.broker.model import NO_QUEUE, TIME_BYTES, Item, ItemId, QueueNumber
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.broker.recent_requests import REQUEST_SPAN, RecentRequests
from queueber.broker.storage import (
    DedupRecord,
    DeleteDedup,
    DeleteEnded,
    DeleteItem,
    DeleteRequest,
    Digest,
    Ended,
    PutDedup,
    PutItems,
    PutRequest,
    RequestId,
    Write,
)
from queueber.errors import QueueberError
from queueber.fixed_limits import ID_BYTES
from queueber.units import DAY, MINUTE, SpanMs, WallMs, no_earlier_than
from queueber.values import NewItem

CHECK_SPAN_MIN: Final = SpanMs(10 * MINUTE)
CHECK_SPAN_MAX: Final = SpanMs(DAY)
"""The least and the longest time between two looks at a record without an end."""

UNTIL_REMOVED: Final = WallMs(0)
"""The end of a record that counts until its item is gone."""

RecordKey: TypeAlias = tuple[QueueNumber, Digest | RequestId]
"""The queue's id and a digest, or `NO_QUEUE` and a request id."""


class AddedOnce(NamedTuple):
    """The reply of an add with a request id or deduplication keys."""

    ids: tuple[ItemId, ...]
    """The id of each item; that of the first one for a duplicate."""

    duplicates: tuple[int, ...]
    """The places of the items that were not added."""


def digest_of(key: bytes) -> Digest:
    """Return what stands for a deduplication key in the store."""
    return Digest(blake2b(key, digest_size=ID_BYTES).digest())


@define(eq=False)
class RecordLog:
    """The records and items that plans have written since a read was requested: they are not in its snapshot."""

    _records: dict[RecordKey, DedupRecord | None] = field(factory=dict, init=False)
    _writes: list[Write] = field(factory=list, init=False)
    """The writes of items, in order."""

    def note(self, writes: Sequence[Write]) -> None:
        """Note the writes of one plan."""
        for write in writes:
            if isinstance(write, PutItems | DeleteItem):
                self._writes.append(write)
            elif isinstance(write, PutDedup):
                self._records[write.queue, write.digest] = write.record
            elif isinstance(write, DeleteDedup):
                self._records[write.queue, write.digest] = None
            elif isinstance(write, PutRequest):
                self._records[NO_QUEUE, write.id] = write.record
            elif isinstance(write, DeleteRequest):
                self._records[NO_QUEUE, write.id] = None

    @property
    def ends(self) -> list[WallMs]:
        """The times at which written records are checked next."""
        return [record.indexed_at for record in self._records.values() if record is not None]

    def overlaid(self, records: Mapping[RecordKey, DedupRecord | None]) -> dict[RecordKey, DedupRecord | None]:
        """Return *records*, which were read, as they are now."""
        return {**records, **self._records}

    def row_of(self, item: ItemId) -> tuple[QueueNumber, Item | None] | None:
        """Return where a plan has put *item* last, and its row; `NO_QUEUE` if it is gone, None if no plan wrote it."""
        for write in reversed(self._writes):
            if isinstance(write, PutItems):
                for each in write.items:
                    if each.key.id == item:
                        return write.queue, each
            elif isinstance(write, DeleteItem) and write.key.id == item:
                return NO_QUEUE, None
        return None


@define(eq=False)
class KeyedAdd(RecordLog):
    """An add with a request id or deduplication keys, whose records are being read."""

    queue: Queue
    items: Sequence[NewItem]
    request_id: RequestId | None
    digests: Sequence[Digest | None]
    """The digest of each item's key; None for an item without one."""

    queue_id: QueueNumber | None
    """The id of the queue at the request; without one there are no records to read."""

    number: QueueNumber | None
    """The number of the queue at the request."""

    records: dict[RecordKey, DedupRecord | None] = field(factory=dict, init=False)
    """The records that were read."""

    existing: dict[ItemId, Item] = field(factory=dict, init=False)
    """The items of records without an end that were found under `number`, without contents."""

    def add_records(self, records: Mapping[RecordKey, DedupRecord | None]) -> None:
        """Take records that were read; None for those that do not exist."""
        self.records.update(records)

    def add_existing(self, items: Iterable[Item]) -> None:
        """Take items of records without an end that were found under `number`."""
        self.existing.update((item.key.id, item._replace(contents=b"")) for item in items)


@define(eq=False)
class Sweep(RecordLog):
    """A look at the first entries of the index of ends."""

    entries: Sequence[tuple[Ended, DedupRecord | None]] = field(default=(), init=False)
    """The entries that were read, with the present records."""

    wanted: dict[QueueNumber, list[ItemId]] = field(factory=dict, init=False)
    """The items to look for, by the number of their queue."""

    existing: set[ItemId] = field(factory=set, init=False)
    """The items of `wanted` that were found there."""

    def add_existing(self, items: Iterable[ItemId]) -> None:
        """Take items of `wanted` that were found."""
        self.existing.update(items)


@define(eq=False)
class Deduplication:
    """Decides adds that are to happen once, and deletes the records of those whose time is over."""

    _queues: Queues
    _adds: Adds
    _uncommitted: UncommittedPlans
    _recent: RecentRequests = field(factory=RecentRequests, init=False)
    next_end: WallMs | None = field(default=WallMs(0), init=False)
    """A time before which no sweep is needed; None: there are no records."""

    def begin(self, queue: Queue, items: Sequence[NewItem], request_id: bytes) -> KeyedAdd:
        """
        Begin an add, and follow all plans from now on.

        The caller reads the records if there may be any, and passes it to `decide`, or to `cancel`.
        """
        digests = [
            digest_of(item.options.dedup_key) if item.options is not None and item.options.dedup_key else None
            for item in items
        ]
        request = RequestId(request_id) if request_id else None
        keyed = KeyedAdd(queue, items, request, digests, queue.id, queue.number)
        self._uncommitted.follow(keyed)
        return keyed

    def may_have_records(self, keyed: KeyedAdd, now: WallMs) -> bool:
        """Return whether there may be records of *keyed* to read."""
        if any(digest is not None for digest in keyed.digests):
            return True
        return keyed.request_id is not None and self._recent.may_have_record(keyed.request_id, now)

    def cancel(self, keyed: KeyedAdd) -> None:
        """End an add whose records could not be read."""
        self._uncommitted.unfollow(keyed)

    def decide(self, keyed: KeyedAdd, now: WallMs) -> Plan[AddedOnce | QueueberError]:
        """
        Add the items that are no duplicates, or none if the call itself is one.

        Returns:
            A plan whose reply has the ids and the duplicates, or why the whole call is refused.
        """
        self._uncommitted.unfollow(keyed)
        queue, records = keyed.queue, keyed.overlaid(keyed.records)
        if keyed.request_id is not None:
            record = records.get((NO_QUEUE, keyed.request_id))
            if record is not None and record.ends > now:
                return self._uncommitted.plan(queue, [], AddedOnce(record.ids, record.duplicates))
        first: dict[Digest, ItemId | int] = {}
        """For each key that is taken: the item, or the place of the item in this call."""
        fresh: list[int] = []
        for place, digest in enumerate(keyed.digests):
            if digest is None:
                fresh.append(place)
            elif digest not in first:
                record = None if queue.id is None else records.get((queue.id, digest))
                if record is not None and self._counts(keyed, record, now):
                    first[digest] = record.ids[0]
                else:
                    first[digest] = place
                    fresh.append(place)
        return self._add(keyed, fresh, first, now)

    def _add(
        self, keyed: KeyedAdd, fresh: list[int], first: Mapping[Digest, ItemId | int], now: WallMs
    ) -> Plan[AddedOnce | QueueberError]:
        """Add the items at the places *fresh*, and write the records."""
        queue, items = keyed.queue, keyed.items
        fresh_items = [items[place] for place in fresh]
        # An error numbers the items as the call does.
        never = self._adds.why_never(zip(fresh, fresh_items, strict=True), now)
        why = never or self._adds.why_refused(queue, fresh_items)
        if why is not None:
            queue.used_at = now
            return self._uncommitted.plan(queue, [], why)
        plan = self._adds.add(queue, [fresh_items], now, checked=True)
        (added_ids,) = plan.reply
        assert not isinstance(added_ids, QueueberError), "it was checked"
        ids = dict(zip(fresh, added_ids, strict=True))
        for place, digest in enumerate(keyed.digests):
            if place not in ids:
                assert digest is not None, "an item without a key is no duplicate"
                taken = first[digest]
                ids[place] = ids[taken] if isinstance(taken, int) else taken
        added = set(fresh)
        once = AddedOnce(
            tuple(ids[place] for place in range(len(items))),
            tuple(place for place in range(len(items)) if place not in added),
        )
        writes: list[PutDedup | PutRequest] = [
            write for place in fresh if (write := self._record_write(keyed, place, ids[place], now)) is not None
        ]
        if keyed.request_id is not None and items:
            ends = no_earlier_than(now, REQUEST_SPAN)
            self._recent.note(keyed.request_id, now)
            writes.append(PutRequest(keyed.request_id, DedupRecord(ends, once.ids, once.duplicates)))
        for written in writes:
            self._note_end(written.record.indexed_at)
        return self._uncommitted.with_more(plan, queue, list(writes), once)

    def _note_end(self, end: WallMs) -> None:
        """Note that a record was written."""
        self.next_end = end if self.next_end is None else min(end, self.next_end)

    def _record_write(self, keyed: KeyedAdd, place: int, item: ItemId, now: WallMs) -> PutDedup | None:
        """Return the record of the key of a new item; None if it has no key, or the queue no window."""
        digest, options, queue = keyed.digests[place], keyed.items[place].options, keyed.queue
        if digest is None or options is None:
            return None
        assert queue.id is not None, "a queue with an item has an id"
        if options.until_removed:
            check = no_earlier_than(now, CHECK_SPAN_MIN)
            return PutDedup(queue.id, digest, DedupRecord(UNTIL_REMOVED, (item,), check=check))
        window = queue.settings.dedup_window_ms
        if not window:
            return None
        ends = no_earlier_than(now, window)
        if queue.keyed_until is not None:
            queue.keyed_until = max(queue.keyed_until, ends)
        return PutDedup(queue.id, digest, DedupRecord(ends, (item,)))

    def _counts(self, keyed: KeyedAdd, record: DedupRecord, now: WallMs) -> bool:
        """Return whether *record* makes a second item a duplicate."""
        if record.ends != UNTIL_REMOVED:
            return record.ends > now
        queue, (item,) = keyed.queue, record.ids
        existing = keyed.existing if queue.number == keyed.number else {}
        if not _exists(keyed, queue, item, existing.keys()):
            return False
        if item in queue.held:
            return True
        written = keyed.row_of(item)
        row = existing[item] if written is None else written[1]
        # One that has expired will not be delivered, although it is there until a poll would get it.
        return row is not None and not is_expired(row, queue.settings, now)

    # The end of records

    def begin_sweep(self) -> Sweep:
        """
        Begin a sweep, and follow all plans from now on.

        The caller reads entries, calls `choose_items`, reads these, and calls `finish_sweep`, or `cancel_sweep`.
        """
        sweep = Sweep()
        self._uncommitted.follow(sweep)
        return sweep

    def cancel_sweep(self, sweep: Sweep) -> None:
        """End a sweep whose entries could not be read."""
        self._uncommitted.unfollow(sweep)

    def choose_items(self, sweep: Sweep, entries: Sequence[tuple[Ended, DedupRecord | None]]) -> None:
        """Take the *entries* that were read, and choose the items to look for: those of records without an end."""
        sweep.entries = entries
        asked = [
            (entry.queue, record.ids[0])
            for entry, record in entries
            if record is not None and record.ends == UNTIL_REMOVED
        ]
        queues = self._by_id() if asked else {}
        for queue_id, item in asked:
            queue = queues.get(queue_id)
            if queue is not None and queue.number is not None:
                sweep.wanted.setdefault(queue.number, []).append(item)

    def finish_sweep(
        self, sweep: Sweep, now: WallMs, later: Sequence[tuple[Ended, DedupRecord | None]] = ()
    ) -> Plan[int]:
        """
        Delete the entries that were read, and the records that do not count any more; the reply is how many.

        *later* has the first entry of all if there were none to delete.
        """
        self._uncommitted.unfollow(sweep)
        if not sweep.entries:
            self.next_end = later[0][0].ends if later else None
            if not later:
                self._recent.note_no_others()
            for end in sweep.ends:
                self._note_end(end)
        records = sweep.overlaid({(entry.queue, entry.key): record for entry, record in sweep.entries})
        queues = self._by_id() if sweep.wanted else {}
        writes: list[Write] = []
        deleted = 0
        for entry, _ in sweep.entries:
            writes.append(DeleteEnded(entry))
            record = records[entry.queue, entry.key]
            if record is None or entry.ends != record.indexed_at:
                # It was renewed, and has another entry.
                continue
            queue, item = queues.get(entry.queue), record.ids[0]
            if record.ends == UNTIL_REMOVED and queue is not None:
                found = sweep.existing if queue.number in sweep.wanted else set()
                if _exists(sweep, queue, item, found):
                    again = record._replace(check=_next_check(item, now))
                    writes.append(PutDedup(entry.queue, Digest(entry.key), again))
                    continue
            deleted += 1
            if entry.queue:
                writes.append(DeleteDedup(entry.queue, Digest(entry.key)))
            else:
                writes.append(DeleteRequest(RequestId(entry.key)))
        return self._uncommitted.plan_rows(writes, deleted)

    def _by_id(self) -> dict[QueueNumber, Queue]:
        return {queue.id: queue for queue in self._queues if queue.id is not None}


def _exists(log: RecordLog, queue: Queue, item: ItemId, found: AbstractSet[ItemId]) -> bool:
    """Return whether *item* is among the items of *queue* that did not die; *found* were read under its number."""
    if item in queue.held:
        return True
    written = log.row_of(item)
    return item in found if written is None else written[0] == queue.number


def _next_check(item: ItemId, now: WallMs) -> WallMs:
    age = now - int.from_bytes(item[:TIME_BYTES], "big")
    return no_earlier_than(now, SpanMs(min(max(age, CHECK_SPAN_MIN), CHECK_SPAN_MAX)))
