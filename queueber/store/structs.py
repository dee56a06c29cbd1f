"""
The structs of ``storage.capnp``, as plain values on one side and single segments on the other.

A stand-in until the layouts of `queueber.wire` are there; the bytes are the same.
"""

from struct import Struct

_WORD = 8


def _root(data_words: int, pointers: int) -> int:
    return data_words << 32 | pointers << 48


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % _WORD)


def _pointer(ahead: int, data: bytes) -> int:
    """A pointer to *data*, *ahead* words behind the word after it."""
    return (1 | ahead << 2 | 2 << 32 | len(data) << 35) if data else 0


def _data(payload: bytes, at: int) -> bytes:
    word = int.from_bytes(payload[at : at + _WORD], "little")
    if not word:
        return b""
    start = at + _WORD + ((word & 0xFFFFFFFF) >> 2) * _WORD
    return payload[start : start + (word >> 35)]


_ITEM = Struct("<QQQQ")


def build_item(contents: bytes, added_at: int, attempts: int) -> bytes:
    """A StoredItem."""
    return _ITEM.pack(_root(2, 1), added_at, attempts, _pointer(0, contents)) + _pad(contents)


def read_item(payload: bytes) -> tuple[bytes, int, int]:
    """Contents, added at, attempts of a StoredItem."""
    _, added_at, attempts, _ = _ITEM.unpack_from(payload)
    return _data(payload, 24), added_at, attempts


_LEASE = Struct("<QQQQ")


def build_lease(queue: int, deadline: int, entries: bytes) -> bytes:
    """A LeaseRecord."""
    return _LEASE.pack(_root(2, 1), queue, deadline, _pointer(0, entries)) + _pad(entries)


def read_lease(payload: bytes) -> tuple[int, int, bytes]:
    """Queue, deadline, entries of a LeaseRecord."""
    _, queue, deadline, _ = _LEASE.unpack_from(payload)
    return queue, deadline, _data(payload, 24)


_QUEUE = Struct("<QQQQQ")


def build_queue(name: bytes, added: int, removed: int, floor: bytes) -> bytes:
    """A QueueRecord."""
    padded = _pad(name)
    behind = 1 + len(padded) // _WORD
    return (
        _QUEUE.pack(_root(2, 2), added, removed, _pointer(1, name), _pointer(behind - 1, floor)) + padded + _pad(floor)
    )


def read_queue(payload: bytes) -> tuple[bytes, int, int, bytes]:
    """Name, added, removed, floor of a QueueRecord."""
    _, added, removed, _, _ = _QUEUE.unpack_from(payload)
    return _data(payload, 24), added, removed, _data(payload, 32)


def build_mark(boot_id: bytes, boot_time: int, queue_time: int) -> bytes:
    """A TimeMark."""
    return _ITEM.pack(_root(2, 1), boot_time, queue_time, _pointer(0, boot_id)) + _pad(boot_id)


def read_mark(payload: bytes) -> tuple[bytes, int, int]:
    """Boot id, boot time, queue time of a TimeMark."""
    _, boot_time, queue_time, _ = _ITEM.unpack_from(payload)
    return _data(payload, 24), boot_time, queue_time


def build_sync(sequence: int) -> bytes:
    """A SyncMark."""
    return Struct("<QQ").pack(_root(1, 0), sequence)


def read_sync(payload: bytes) -> int:
    """The sequence of a SyncMark."""
    return int(Struct("<QQ").unpack_from(payload)[1])


def build_format(version: int, durability: str) -> bytes:
    """A Format."""
    text = durability.encode() + b"\0" if durability else b""
    return Struct("<QQQ").pack(_root(1, 1), version, _pointer(0, text)) + _pad(text)


def read_format(payload: bytes) -> tuple[int, str]:
    """Version, durability of a Format."""
    _, version, _ = Struct("<QQQ").unpack_from(payload)
    return version, _data(payload, 16)[:-1].decode()


def pack(struct: bytes) -> bytes:
    """Cap'n Proto's packing."""
    raise NotImplementedError


def unpack(packed: bytes) -> bytes:
    """The reverse of `pack`."""
    raise NotImplementedError
