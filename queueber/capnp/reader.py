"""
Reading what a peer wrote: frames, and the pointers in them.

Every position is a word index into the whole frame.  Segments lie end to end
in it, so an index alone finds a word; a pointer also needs the bounds of its
segment, ``[start, end)``, because what it points to must lie in there.  So a
position that holds a pointer travels as the three integers `at`, `start` and
`end`, and a struct as a `StructAt` tuple: plain integers, because a call
passes through a dozen of them and anything richer would cost more than it
says.

Three rules keep a hostile frame harmless.  A pointer is checked against its
segment before anything behind it is touched.  What a list or a text is made of
is charged to the frame's budget before it is walked or copied, so that many
pointers to the same words cannot multiply work; elements without a size cost
nothing, so who walks a list checks or charges their count first.  (A struct
costs the same few reads however long it is, so it is free.)  And nothing here
recurses: who walks deeper than the schema of one call does counts depth.

Everything raises `RemoteProtocolError`, and nothing else, on a bad frame.
"""

import sys
from array import array
from collections.abc import Sequence
from typing import TypeAlias

from attrs import define

from queueber.errors import RemoteProtocolError
from queueber.units import counted

WORD = 8
"""Bytes of one word."""

LITTLE_ENDIAN = sys.byteorder == "little"
"""Whether this machine's integers lie in memory as those of the encoding do."""

StructAt: TypeAlias = tuple[int, int, int, int, int]
"""Where a struct lies: its data's first word, its pointers' first word, its end, and its segment's start and end."""

EMPTY: StructAt = (0, 0, 0, 0, 0)
"""What a null pointer leads to: a struct in which everything is absent."""

_STRUCT, _LIST, _FAR, _OTHER = range(4)
_SIGN_30 = 1 << 29
_BITS_16 = 0xFFFF
_BITS_29 = (1 << 29) - 1
_BITS_30 = (1 << 30) - 1
_BITS_32 = 0xFFFFFFFF

_SIZE_VOID, _SIZE_BIT, _SIZE_BYTE, _SIZE_2, _SIZE_4, _SIZE_8, _SIZE_POINTER, _SIZE_COMPOSITE = range(8)
_NARROW = {_SIZE_BYTE: 1, _SIZE_2: 2, _SIZE_4: 4}
"""Bytes of the elements that are smaller than a word."""


@define(eq=False)
class Frame:
    """One message as it came, or one value from the disk: its words, and how many of them may be spent."""

    data: bytes
    """The bytes that hold the message, perhaps among others."""

    words: Sequence[int]
    """The same as 64-bit words."""

    start: int
    """The first word of segment 0."""

    end: int
    """The end of segment 0."""

    segments: Sequence[tuple[int, int]] | None
    """The bounds of all segments; None when there is only one."""

    budget: int
    """Words that may still be walked or copied."""

    factor: int = 2
    """How many times its length the budget was."""

    def segment(self, index: int) -> tuple[int, int]:
        """The bounds of segment *index*."""
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
    """The whole words of *data*, without copying them where the machine is little-endian like the wire."""
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
    """The message that is one segment without a frame header; it may be read *factor* times over."""
    words = words_of(data)
    count = len(words)
    if count * WORD != len(data):
        raise RemoteProtocolError(f"a segment is {counted(len(data), 'byte')}, which is not a whole number of words")
    return Frame(data, words, 0, count, None, factor * count, factor)


def struct_at(frame: Frame, at: int, start: int, end: int) -> StructAt:
    """The struct that the pointer at *at* leads to; `EMPTY` when it is null."""
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
    """The struct that the pointer *slot* of *struct* leads to; `EMPTY` when it is null or absent."""
    at = struct[1] + slot
    return struct_at(frame, at, struct[3], struct[4]) if at < struct[2] else EMPTY


def follow(frame: Frame, at: int, start: int, end: int) -> tuple[int, int, int, int]:
    """
    Where the pointer at *at* leads, through far pointers if need be.

    Returns:
        The word that tells kind and size, 0 when null; the first word of what
        it points to, unchecked; and the bounds of the segment that is in.
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
    """As `follow`, for the landing pad of two words at *at*: a far pointer to the content, and its kind and size."""
    pad, tag = frame.words[at], frame.words[at + 1]
    if pad & 7 != _FAR or tag & 3 == _FAR:
        raise RemoteProtocolError("a double-far pointer leads to no landing pad")
    start, end = frame.segment(pad >> 32)
    return tag, start + (pad >> 3 & _BITS_29), start, end


def capability_at(frame: Frame, at: int, start: int, end: int) -> int | None:
    """The index into the message's table of capabilities at *at*; None when it is null."""
    word = follow(frame, at, start, end)[0]
    if not word:
        return None
    if word & _BITS_32 != _OTHER:
        raise RemoteProtocolError("a pointer to something else was found in place of a capability")
    return word >> 32


def bytes_at(frame: Frame, at: int, start: int, end: int) -> tuple[int, int]:
    """Where the Data at *at* lies, as the byte offsets of its beginning and its end; both 0 when it is null."""
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
    """The Text at *at* as its bytes, without the final NUL; empty when it is null."""
    first, last = bytes_at(frame, at, start, end)
    if first == last:
        if first:
            raise RemoteProtocolError("a text does not end with NUL")
        return b""
    if frame.data[last - 1]:
        raise RemoteProtocolError("a text does not end with NUL")
    return frame.data[first : last - 1]


@define(eq=False)
class ListAt:
    """Where a list of structs, or of pointers, lies.  Element *i* begins at word ``first + i * step``."""

    frame: Frame
    first: int
    count: int
    step: int
    """Words from one element to the next."""

    data_words: int
    """Words of data each element has."""

    start: int
    end: int

    def words(self) -> range:
        """The first word of each element."""
        if not self.step:
            return range(0)
        return range(self.first, self.first + self.count * self.step, self.step)

    def element(self, index: int) -> StructAt:
        """The struct at *index*, which must be below `count`."""
        body = self.first + index * self.step
        return body, body + self.data_words, body + self.step, self.start, self.end


def struct_list_at(frame: Frame, at: int, start: int, end: int, most: int | None = None) -> ListAt:
    """
    The list of structs that the pointer at *at* leads to; an empty one when it is null.

    It may come in any encoding that an older schema's list can have: one of
    pointers, of numbers or of nothing, whose elements are then the first field
    of each struct.  Elements may have no size, so the caller checks `count`
    against a limit, or spends it, before it walks them.  Of a list of more than
    *most* the elements cannot be walked at all.
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
            # Before each number is given a word of its own: there may be millions.
            return ListAt(frame, 0, count, 0, 0, 0, 0)
        return _widened(frame, body, count, _NARROW[size])
    step = 0 if size == _SIZE_VOID else 1
    if body < start or body + count * step > end:
        raise RemoteProtocolError("a list pointer leads out of its segment")
    frame.spend(count * step)
    return ListAt(frame, body, count, step, 1 if size == _SIZE_8 else 0, start, end)


def pointer_list_at(frame: Frame, at: int, start: int, end: int) -> ListAt:
    """
    The list of pointers that the pointer at *at* leads to; an empty one when it is null.

    Element *i*'s pointer is the word ``first + i * step``.  The elements of a
    list of structs stand for their first pointers.
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


def _composite(frame: Frame, body: int, words: int, start: int, end: int) -> ListAt:
    """The list of structs whose tag is at *body*, *words* long without the tag."""
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
    """A list of numbers of *size* bytes each, copied so that every number has a word: the data of a struct."""
    frame.spend(count)
    first = body * WORD
    raw = frame.data[first : first + count * size]
    wide = single_segment(b"".join(raw[at : at + size].ljust(WORD, b"\0") for at in range(0, len(raw), size)))
    return ListAt(wide, 0, count, 1, 1, 0, count)
