"""
The structs of ``storage.capnp``, each a segment without a frame header.

Items and time marks are written or read in every commit and scan. Both
consist of one Data and of integers that occupy a word each, so
`FlatStruct` packs and unpacks them with `struct`, at the offsets that the
schema gives.  A segment of any other form, such as one written by a newer
version, is read through its layout.
"""

from struct import Struct, error
from typing import Any, Final

from queueber.capnp.builder import BYTE_LIST, LIST_COUNT_SHIFT, PADDING, struct_pointer
from queueber.capnp.layout import layout
from queueber.capnp.reader import WORD

LIST_TAG_MASK: Final = (1 << LIST_COUNT_SHIFT) - 1
"""The bits of a list pointer below its count."""

_INTEGER_FORMATS: Final = {(1 << 32) - 1: "I4x", (1 << 64) - 1: "Q"}
"""The format with which `struct` packs a word that has an integer of that mask."""


class FlatStruct:
    """A struct of one Data and of integers that have a word each."""

    def __init__(self, name: str, data: str, *integers: str) -> None:
        """
        Take the fields *data* and *integers* of the struct *name*, in the order of their words.

        Fields that the schema gained later are not among them, so that rows keep the size that they had before.
        """
        self._layout = layout(name)
        self._fields = (data, *integers)
        places = [self._layout.numbers[integer] for integer in integers]
        assert [(place.word, place.shift, place.default) for place in places] == [(i, 0, 0) for i in range(len(places))]
        assert self._layout.slots[data] == 0
        # The rest of a small integer's word is skipped: a later version may have a field there.
        self._head = Struct("<Q" + "".join(_INTEGER_FORMATS[place.mask] for place in places) + "Q")
        self.pack = self._head.pack
        """Packs all but the Data: `root`, the integers, and the pointer to the Data."""

        self.unpack_from = self._head.unpack_from
        """Unpacks the same; the Data follows, unless the segment has another form."""

        self.head_bytes = self._head.size

        self.root = struct_pointer(len(integers), 1)

    def build(self, data: bytes, *integers: int) -> bytes:
        """Return the struct with these fields."""
        size = len(data)
        head = self.pack(self.root, *integers, BYTE_LIST | size << LIST_COUNT_SHIFT)
        return head + data + PADDING[size % WORD] if size % WORD else head + data

    def read(self, struct: bytes) -> tuple[Any, ...]:
        """
        Return the fields, the Data first.

        Raises:
            RemoteProtocolError: *struct* is not a valid segment.
        """
        start = self.head_bytes
        try:
            root, *integers, pointer = self.unpack_from(struct)
        except error:
            root = pointer = 0
        size = pointer >> LIST_COUNT_SHIFT
        if root == self.root and pointer & LIST_TAG_MASK == BYTE_LIST and start + size <= len(struct):
            return struct[start : start + size], *integers
        fields = self._layout.read(struct)
        return tuple(fields[field] for field in self._fields)


STORED_ITEM: Final = FlatStruct("StoredItem", "contents", "addedAtMs", "attempts")
TIME_MARK: Final = FlatStruct("TimeMark", "bootId", "bootTimeMs", "queueTimeMs", "wallMs")
SYNC_MARK: Final = layout("SyncMark")
FORMAT_STRUCT: Final = layout("Format")
PLACE_STRUCT: Final = layout("Place")
STORED_SETTINGS: Final = layout("StoredSettings")
SETTINGS_STRUCT: Final = layout("Settings")
RETIRED_STRUCT: Final = layout("Retired")
NUMBERS_STRUCT: Final = layout("Numbers")
DEDUP_RECORD: Final = layout("DedupRecord")
