"""
Structs of leases and queues, which a start reads all and most commits write.

Their usual forms are packed and unpacked with `struct`.  Other forms, such as
those of format 1, are read through the layouts.
"""

from functools import lru_cache
from itertools import starmap
from struct import Struct, pack, unpack_from
from typing import Any, Final

from queueber.broker.model import Key, LeaseRecord, QueueRecord, new_tuple
from queueber.capnp.builder import BYTE_LIST, LIST_COUNT_SHIFT, PADDING, struct_pointer
from queueber.capnp.layout import layout
from queueber.capnp.reader import WORD
from queueber.store.rows.keys import ENTRY, damaged, decode_queue_key
from queueber.store.rows.values import decode_row

_LEASE: Final = layout("LeaseRecord")
_QUEUE: Final = layout("QueueRecord")
assert [_LEASE.numbers[name].word for name in ("queue", "deadlineMs", "leasedAtMs", "graceMs")] == [0, 1, 2, 3]
assert _LEASE.slots == {"entries": 0, "sizes": 1, "session": 2}
assert [_QUEUE.numbers[name].word for name in ("added", "removed", "bytes", "id", "offTime")] == [0, 1, 2, 3, 4]
assert (_QUEUE.numbers["deadOf"].word, _QUEUE.numbers["deadOf"].shift) == (3, 32)
assert (_QUEUE.data_words, _QUEUE.slots) == (5, {"name": 0, "floor": 1})

_TIMED: Final = Struct("<Q3Q2Q")
"""A lease with a deadline: root, queue, deadline, time of the lease, pointers to the entries and the sizes."""

_SESSION: Final = Struct("<Q4Q3Q")
"""A lease with a session or a grace: as above, with the grace, and the pointer to the session."""

_TIMED_ROOT: Final = struct_pointer(3, 2)
_SESSION_ROOT: Final = struct_pointer(4, 3)
_DISTANCE: Final = 1 << 2
"""One word of distance in a pointer."""

_ENTRY_WORDS: Final = ENTRY.size // WORD
_SIZE_BYTES: Final = 4
_COUNTERS: Final = Struct("<5Q")
_HIGH_HALF: Final = 32


def build_lease(record: LeaseRecord) -> bytes:
    """Return *record* as a struct."""
    queue, deadline, keys, sizes, leased_at, session, grace = record
    entries = b"".join(starmap(ENTRY.pack, keys))
    packed_sizes = pack(f"<{len(sizes)}I", *sizes)
    size_words = (len(sizes) + 1) // 2
    first = BYTE_LIST | len(entries) << LIST_COUNT_SHIFT
    second = (BYTE_LIST | len(packed_sizes) << LIST_COUNT_SHIFT) + _ENTRY_WORDS * len(keys) * _DISTANCE
    padding = PADDING[len(packed_sizes) % WORD]
    if not session and not grace:
        head = _TIMED.pack(_TIMED_ROOT, queue, deadline, leased_at, first + _DISTANCE, second)
        return b"".join((head, entries, packed_sizes, padding))
    third = (BYTE_LIST | len(session) << LIST_COUNT_SHIFT) + (_ENTRY_WORDS * len(keys) + size_words) * _DISTANCE
    pointers = first + 2 * _DISTANCE, second + _DISTANCE, third
    head = _SESSION.pack(_SESSION_ROOT, queue, deadline, leased_at, grace, *pointers)
    return b"".join((head, entries, packed_sizes, padding, session))


class _LeaseReader:
    """The reader of leases' structs."""

    def read(self, struct: bytes, /) -> dict[str, Any]:
        """Return the fields."""
        if len(struct) >= _TIMED.size:
            root, queue, deadline, leased_at, first, second = _TIMED.unpack_from(struct)
            end = _TIMED.size + (first >> LIST_COUNT_SHIFT)
            sizes = second >> LIST_COUNT_SHIFT
            if (
                root == _TIMED_ROOT
                and first == (BYTE_LIST | _DISTANCE | end - _TIMED.size << LIST_COUNT_SHIFT)
                and not end % WORD
                and second == (BYTE_LIST | sizes << LIST_COUNT_SHIFT) + (end - _TIMED.size) // WORD * _DISTANCE
                and end + sizes <= len(struct)
            ):
                return {
                    "queue": queue,
                    "deadlineMs": deadline,
                    "entries": struct[_TIMED.size : end],
                    "sizes": struct[end : end + sizes],
                    "leasedAtMs": leased_at,
                    "session": b"",
                    "graceMs": 0,
                }
        return _LEASE.read(struct)


_LEASE_READER: Final = _LeaseReader()


def decode_lease(row_key: bytes, value: bytes) -> LeaseRecord:
    """Return the lease in the row at *row_key*."""
    fields = decode_row(row_key, value, _LEASE_READER)
    keys = _decode_entries(row_key, fields["entries"])
    sizes = fields["sizes"]
    if len(sizes) % _SIZE_BYTES or len(sizes) not in {0, _SIZE_BYTES * len(keys)}:
        raise damaged(row_key, "its list of sizes has another length than its list of keys")
    return LeaseRecord(
        fields["queue"],
        fields["deadlineMs"],
        keys,
        unpack_from(f"<{len(sizes) // _SIZE_BYTES}I", sizes),
        fields["leasedAtMs"],
        fields["session"],
        fields["graceMs"],
    )


def build_queue(record: QueueRecord) -> bytes:
    """Return *record* as a struct."""
    # Every commit writes at least one, and a queue's name does not change.
    _, name, added, removed, floor, size, queue_id, dead_of, off_time = record
    before, after = _queue_template(name)
    if size < 0 or off_time < 0:
        # Items that could not be read when the counters were made are readable again.
        size, off_time = max(0, size), max(0, off_time)
    counters = _COUNTERS.pack(added, removed, size, queue_id | dead_of << _HIGH_HALF, off_time)
    return b"".join((before, counters, after, ENTRY.pack(*floor)))


@lru_cache(maxsize=1_024)
def _queue_template(name: str) -> tuple[bytes, bytes]:
    """
    Return two constant parts of the struct of queue *name*.

    They are the bytes before its counters, and the bytes between its counters and its floor.
    """
    floor = bytes(ENTRY.size)
    struct = _QUEUE.build(name=name.encode(), floor=floor)
    return struct[:WORD], struct[WORD + _COUNTERS.size : -len(floor)]


def decode_queue(row_key: bytes, value: bytes) -> QueueRecord:
    """Return the queue in the row at *row_key*."""
    fields = decode_row(row_key, value, _QUEUE)
    floor = _decode_entries(row_key, fields["floor"])
    if len(floor) != 1:
        raise damaged(row_key, "its floor is not one key")
    return QueueRecord(
        decode_queue_key(row_key),
        fields["name"].decode(),
        fields["added"],
        fields["removed"],
        floor[0],
        fields["bytes"],
        fields["id"],
        fields["deadOf"],
        fields["offTime"],
    )


def _decode_entries(row_key: bytes, entries: bytes) -> tuple[Key, ...]:
    if len(entries) % ENTRY.size:
        raise damaged(row_key, "its list of keys is cut off")
    return tuple([new_tuple(Key, entry) for entry in ENTRY.iter_unpack(entries)])
