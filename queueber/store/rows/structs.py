"""
The structs of ``storage.capnp``, each a segment of its own without a frame header.

Items, leases and the time mark are written and read with every commit and scan,
so structs like them, numbers of a word each and one Data, are done by hand
here, from the places the schema gives them.  All that was written otherwise,
perhaps by a newer version, is read through its layout.
"""

from struct import Struct, error
from typing import Any, Final

from queueber.capnp.builder import BYTE_LIST, LIST_COUNT_SHIFT, PADDING
from queueber.capnp.layout import layout
from queueber.capnp.reader import WORD

COUNTLESS: Final = (1 << LIST_COUNT_SHIFT) - 1
"""What of a list's pointer is not its count."""

_WORDS: Final = {(1 << 32) - 1: "I4x", (1 << 64) - 1: "Q"}
"""How a number with that mask is taken out of its word."""


class FlatStruct:
    """A struct of one Data and of numbers that have a word each."""

    def __init__(self, name: str, data: str, *numbers: str) -> None:
        """The struct *name* with the fields *data* and *numbers*, the latter in the order of their places."""
        self._layout = layout(name)
        self._fields = (data, *numbers)
        places = [self._layout.numbers[number] for number in numbers]
        assert [(place.word, place.shift, place.default) for place in places] == [(i, 0, 0) for i in range(len(places))]
        assert (self._layout.data_words, self._layout.pointers) == (len(numbers), 1)
        # A later version may put another number into what a small one leaves of its word.
        self._head = Struct("<Q" + "".join(_WORDS[place.mask] for place in places) + "Q")
        self.pack = self._head.pack
        """Packs all but the Data: `root`, the numbers, and the Data's pointer."""

        self.unpack_from = self._head.unpack_from
        """Takes that out again; the Data is what follows if nothing else wrote it."""

        self.head_bytes = self._head.size

        self.root = self._layout.pointer

    def build(self, data: bytes, *numbers: int) -> bytes:
        """The struct with these fields."""
        size = len(data)
        head = self.pack(self.root, *numbers, BYTE_LIST | size << LIST_COUNT_SHIFT)
        return head + data + PADDING[size % WORD] if size % WORD else head + data

    def read(self, struct: bytes) -> tuple[Any, ...]:
        """
        The fields, the Data first.

        Raises:
            RemoteProtocolError: it is not a sound segment.
        """
        start = self.head_bytes
        try:
            root, *numbers, pointer = self.unpack_from(struct)
        except error:
            root = pointer = 0
        size = pointer >> LIST_COUNT_SHIFT
        if root == self.root and pointer & COUNTLESS == BYTE_LIST and start + size <= len(struct):
            return struct[start : start + size], *numbers
        fields = self._layout.read(struct)
        return tuple(fields[field] for field in self._fields)


STORED_ITEM: Final = FlatStruct("StoredItem", "contents", "addedAtMs", "attempts")
LEASE_RECORD: Final = FlatStruct("LeaseRecord", "entries", "queue", "deadlineMs")
TIME_MARK: Final = FlatStruct("TimeMark", "bootId", "bootTimeMs", "queueTimeMs", "wallMs")
QUEUE_RECORD: Final = layout("QueueRecord")
SYNC_MARK: Final = layout("SyncMark")
FORMAT: Final = layout("Format")
