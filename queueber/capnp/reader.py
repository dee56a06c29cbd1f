"""
Reader of untrusted messages: frames, and the pointers in them.

Every position is a word index into the whole frame.  Segments lie end to end
in it, so an index alone identifies a word.  A pointer also needs the bounds of
its segment, ``[start, end)``, because its target must lie between them.  So the
position of a pointer is passed as the three integers `at`, `start` and `end`,
and that of a struct as a `StructAt` tuple.  They are plain integers because each
call passes a dozen of them, and objects would cost more than the reading.

Three rules make a hostile frame harmless:

1. A pointer is checked against its segment before its target is read.
2. The words of a list or text are charged to the frame's budget before they are
   walked or copied, so that many pointers to the same words cannot multiply
   work.  Elements without a size cost nothing, so the caller checks or charges
   their count before it walks the list.  A struct takes the same few reads
   whatever its length, and is not charged.
3. Nothing here recurses.  Callers that follow pointers deeper than the schema of
   one call limit the depth.

Everything raises `RemoteProtocolError`, and nothing else, on a bad frame.
"""

import sys
from array import array
from collections.abc import Sequence
from typing import TypeAlias

from queueber.errors import RemoteProtocolError
from queueber.units import counted

WORD = 8
"""Bytes of one word."""

LITTLE_ENDIAN = sys.byteorder == "little"
"""Whether this machine has the byte order of the encoding."""

StructAt: TypeAlias = tuple[int, int, int, int, int]
"""The place of a struct: first word of its data, first of its pointers, its end, and start and end of its segment."""

EMPTY: StructAt = (0, 0, 0, 0, 0)
"""The target of a null pointer: a struct without any field."""

_STRUCT, _LIST, _FAR, _OTHER = range(4)
_SIGN_30 = 1 << 29
_BITS_16 = 0xFFFF
_BITS_29 = (1 << 29) - 1
_BITS_30 = (1 << 30) - 1
_BITS_32 = 0xFFFFFFFF

_SIZE_VOID, _SIZE_BIT, _SIZE_BYTE, _SIZE_2, _SIZE_4, _SIZE_8, _SIZE_POINTER, _SIZE_COMPOSITE = range(8)
_NARROW = {_SIZE_BYTE: 1, _SIZE_2: 2, _SIZE_4: 4}
"""Bytes of an element, for the sizes that are smaller than a word."""


class Frame:
    """One message from the stream, or one value from the disk: its words and its budget."""

    __slots__ = ("budget", "data", "end", "factor", "segments", "start", "words")

    def __init__(
        self,
        data: bytes,
        words: Sequence[int],
        start: int,
        end: int,
        segments: Sequence[tuple[int, int]] | None,
        budget: int,
        factor: int = 2,
    ) -> None:
        """Describe the words *start* to *end* of *data*, and the other *segments* of a message that has several."""
        self.data = data
        """The bytes that hold the message, and possibly others."""

        self.words = words
        """The 64-bit words of `data`."""

        self.start = start
        """The first word of segment 0."""

        self.end = end
        """The end of segment 0."""

        self.segments = segments
        """The bounds of all segments; None if there is only one."""

        self.budget = budget
        """Words that may still be walked or copied."""

        self.factor = factor
        """The budget at the start, as a multiple of the frame's length."""

    def segment(self, index: int) -> tuple[int, int]:
        """Return the bounds of segment *index*."""
        if self.segments is None:
            if index == 0:
                return self.start, self.end
        elif index < len(self.segments):
            return self.segments[index]
        raise RemoteProtocolError("a far pointer names a segment that the message does not have")

    def spend(self, words: int) -> None:
        """Charge *words* to the budget."""
        self.budget -= words
        if self.budget < 0:
            raise RemoteProtocolError(
                f"more is read out of a message than {self.factor} times its length (traversal_factor)",
                limit="traversal_factor",
            )


def words_of(data: bytes) -> Sequence[int]:
    """Return the whole words of *data*, without a copy on a little-endian machine."""
    whole = memoryview(data)
    if len(data) % WORD:
        whole = whole[: len(data) // WORD * WORD]
    if LITTLE_ENDIAN:
        return whole.cast("Q")
    swapped = array("Q")
    swapped.frombytes(whole)
    swapped.byteswap()
    return swapped


def single_segment(data: bytes, *, factor: int = 2) -> Frame:
    """Return *data*, one segment without a frame header, as a frame with a budget of *factor* times its length."""
    words = words_of(data)
    count = len(words)
    if count * WORD != len(data):
        raise RemoteProtocolError(f"a segment is {counted(len(data), 'byte')}, which is not a whole number of words")
    return Frame(data, words, 0, count, None, factor * count, factor)


def struct_at(frame: Frame, at: int, start: int, end: int) -> StructAt:
    """Return the struct that the pointer at *at* leads to; `EMPTY` if it is null."""
    word = frame.words[at]
    if word & 3:
        word, body, start, end = follow(frame, at, start, end)
        if word & 3:
            raise RemoteProtocolError("a pointer to something else was found in place of one to a struct")
        if not word:
            return EMPTY
    elif not word:
        return EMPTY
    else:
        offset = (word & _BITS_32) >> 2
        body = at + 1 + (offset if offset < _SIGN_30 else offset - 2 * _SIGN_30)
    pointers = body + (word >> 32 & _BITS_16)
    stop = pointers + (word >> 48)
    if body < start or stop > end:
        raise RemoteProtocolError("a struct pointer leads out of its segment")
    return body, pointers, stop, start, end


def slot_at(frame: Frame, struct: StructAt, slot: int) -> StructAt:
    """Return the struct that the pointer *slot* of *struct* leads to; `EMPTY` if it is null or absent."""
    at = struct[1] + slot
    return struct_at(frame, at, struct[3], struct[4]) if at < struct[2] else EMPTY


def follow(frame: Frame, at: int, start: int, end: int) -> tuple[int, int, int, int]:
    """
    Follow the pointer at *at*, through far pointers if necessary.

    Returns:
        The word with the kind and size, 0 for a null pointer; the first word of
        the target, unchecked; and the bounds of the target's segment.
    """
    word = frame.words[at]
    if word & 3 == _FAR:
        double = word & 4
        start, end = frame.segment(word >> 32)
        at = start + (word >> 3 & _BITS_29)
        if at + (2 if double else 1) > end:
            raise RemoteProtocolError("a far pointer leads out of its segment")
        frame.spend(1)
        word = frame.words[at]
        if double:
            return _follow_double(frame, at)
        if word & 3 == _FAR:
            raise RemoteProtocolError("a far pointer leads to another")
    offset = (word & _BITS_32) >> 2
    return word, at + 1 + (offset if offset < _SIGN_30 else offset - 2 * _SIGN_30), start, end


def _follow_double(frame: Frame, at: int) -> tuple[int, int, int, int]:
    """Follow a landing pad of two words at *at*, a far pointer and a tag; return the same as `follow`."""
    pad, tag = frame.words[at], frame.words[at + 1]
    if pad & 7 != _FAR or tag & 3 == _FAR:
        raise RemoteProtocolError("a double-far pointer leads to no landing pad")
    start, end = frame.segment(pad >> 32)
    return tag, start + (pad >> 3 & _BITS_29), start, end


def capability_at(frame: Frame, at: int, start: int, end: int) -> int | None:
    """Return the index of the capability pointer at *at*; None if it is null."""
    word = follow(frame, at, start, end)[0]
    if not word:
        return None
    if word & _BITS_32 != _OTHER:
        raise RemoteProtocolError("a pointer to something else was found in place of a capability")
    return word >> 32


def bytes_at(frame: Frame, at: int, start: int, end: int) -> tuple[int, int]:
    """Return the byte offsets of the beginning and the end of the Data at *at*; both 0 if it is null."""
    word = frame.words[at]
    if not word:
        return 0, 0
    if word & _FAR:
        word, body, start, end = follow(frame, at, start, end)
        if not word:
            return 0, 0
    else:
        offset = (word & _BITS_32) >> 2
        body = at + 1 + (offset if offset < _SIGN_30 else offset - 2 * _SIGN_30)
    if word & 3 != _LIST or word >> 32 & 7 != _SIZE_BYTE:
        raise RemoteProtocolError("a pointer to something else was found in place of one to bytes")
    count = word >> 35
    words = (count + 7) >> 3
    if body < start or body + words > end:
        raise RemoteProtocolError("a list pointer leads out of its segment")
    frame.budget -= words
    if frame.budget < 0:
        frame.spend(0)
    return body * WORD, body * WORD + count


def text_at(frame: Frame, at: int, start: int, end: int) -> bytes:
    """Return the bytes of the Text at *at* without the final NUL; empty if it is null."""
    first, last = bytes_at(frame, at, start, end)
    if first == last:
        if first:
            raise RemoteProtocolError("a text does not end with NUL")
        return b""
    if frame.data[last - 1]:
        raise RemoteProtocolError("a text does not end with NUL")
    return frame.data[first : last - 1]


class ListAt:
    """The place of a list of structs or of pointers.  Element *i* begins at word ``first + i * step``."""

    __slots__ = ("count", "data_words", "end", "first", "frame", "start", "step")

    def __init__(self, frame: Frame, first: int, count: int, step: int, data_words: int, start: int, end: int) -> None:
        """Describe *count* elements from the word *first* on, in the segment *start* to *end*."""
        self.frame = frame
        self.first = first
        self.count = count
        self.step = step
        """Words from one element to the next."""

        self.data_words = data_words
        """Words of data in each element."""

        self.start = start
        self.end = end

    def words(self) -> range:
        """Return the first word of each element."""
        if not self.step:
            return range(0)
        return range(self.first, self.first + self.count * self.step, self.step)

    def element(self, index: int) -> StructAt:
        """Return the struct at *index*, which must be below `count`."""
        body = self.first + index * self.step
        return body, body + self.data_words, body + self.step, self.start, self.end


def struct_list_at(frame: Frame, at: int, start: int, end: int, most: int | None = None) -> ListAt:
    """
    Return the list of structs that the pointer at *at* leads to; an empty one if it is null.

    The list may have any encoding that an older schema allows: a list of pointers,
    of numbers or of Void, whose elements are the first field of each struct.
    Elements may have no size, so check `count` against a limit, or spend it, before
    you walk them.  The elements of a list longer than *most* cannot be walked.
    """
    word, body, start, end = follow(frame, at, start, end)
    if not word:
        return ListAt(frame, 0, 0, 0, 0, 0, 0)
    if word & 3 != _LIST:
        raise RemoteProtocolError("a pointer to something else was found in place of one to a list")
    size, count = word >> 32 & 7, word >> 35
    if size == _SIZE_COMPOSITE:
        return _composite(frame, body, count, start, end)
    if size == _SIZE_BIT:
        raise RemoteProtocolError("a list of bits was found in place of one of structs")
    if size in _NARROW:
        if body < start or body * WORD + count * _NARROW[size] > end * WORD:
            raise RemoteProtocolError("a list pointer leads out of its segment")
        if most is not None and count > most:
            # Return before each number gets a word of its own: there may be millions.
            return ListAt(frame, 0, count, 0, 0, 0, 0)
        return _widened(frame, body, count, _NARROW[size])
    step = 0 if size == _SIZE_VOID else 1
    if body < start or body + count * step > end:
        raise RemoteProtocolError("a list pointer leads out of its segment")
    frame.spend(count * step)
    return ListAt(frame, body, count, step, 1 if size == _SIZE_8 else 0, start, end)


def pointer_list_at(frame: Frame, at: int, start: int, end: int) -> ListAt:
    """
    Return the list of pointers that the pointer at *at* leads to; an empty one if it is null.

    The pointer of element *i* is the word ``first + i * step``.  For a list of
    structs that is the first pointer of each.
    """
    word, body, start, end = follow(frame, at, start, end)
    if not word:
        return ListAt(frame, 0, 0, 0, 0, 0, 0)
    if word & 3 == _LIST:
        size, count = word >> 32 & 7, word >> 35
        if size == _SIZE_POINTER:
            if body < start or body + count > end:
                raise RemoteProtocolError("a list pointer leads out of its segment")
            frame.spend(count)
            return ListAt(frame, body, count, 1, 0, start, end)
        if size == _SIZE_COMPOSITE:
            found = _composite(frame, body, count, start, end)
            if found.step > found.data_words:
                found.first += found.data_words
                return found
    raise RemoteProtocolError("a pointer to something else was found in place of one to a list of pointers")


def numbers_in(numbers: ListAt, bits: int) -> list[int]:
    """
    Return the numbers of *bits* in a list that `struct_list_at` returned.

    That function reads all encodings that such a list may have: a newer schema may have made structs of the numbers.
    """
    if not numbers.data_words:
        numbers.frame.spend(numbers.count)
        return [0] * numbers.count
    mask = (1 << bits) - 1
    return [numbers.frame.words[word] & mask for word in numbers.words()]


def _composite(frame: Frame, body: int, words: int, start: int, end: int) -> ListAt:
    """Return the list of structs whose tag is at *body*, *words* long without the tag."""
    if body < start or body + 1 + words > end:
        raise RemoteProtocolError("a list pointer leads out of its segment")
    tag = frame.words[body]
    count, data_words = (tag & _BITS_32) >> 2 & _BITS_30, tag >> 32 & _BITS_16
    step = data_words + (tag >> 48)
    if tag & 3 != _STRUCT or count * step > words:
        raise RemoteProtocolError("a list's tag does not fit the list")
    frame.spend(words)
    return ListAt(frame, body + 1, count, step, data_words, start, end)


def _widened(frame: Frame, body: int, count: int, size: int) -> ListAt:
    """Copy a list of numbers of *size* bytes each, so that each number has a word: the data of a struct."""
    frame.spend(count)
    first = body * WORD
    raw = frame.data[first : first + count * size]
    wide = single_segment(b"".join(raw[at : at + size].ljust(WORD, b"\0") for at in range(0, len(raw), size)))
    return ListAt(wide, 0, count, 1, 1, 0, count)
