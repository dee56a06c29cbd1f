"""
Builders of single-segment messages.

A `Body` is the struct or list that a pointer leads to.  Pointers within a body
are relative, so it can be placed anywhere.  Only the pointer to it depends on
its distance; `pointer_to` makes that pointer.
"""

from collections.abc import Iterable, Sequence
from struct import pack
from typing import TYPE_CHECKING

from queueber.capnp.reader import WORD
from queueber.errors import too_large

if TYPE_CHECKING:
    from typing_extensions import Buffer

PADDING = tuple(bytes(-length % WORD) for length in range(WORD))
"""The zeros that fill the last word of a number of bytes, by that number modulo 8."""

POINTER_LIST = 1 | 6 << 32
"""The pointer to an empty list of pointers that begins in the next word."""

BYTE_LIST = 1 | 2 << 32
"""The pointer to an empty list of bytes, a Data, that begins in the next word."""

STRUCT_LIST = 1 | 7 << 32
"""The pointer to an empty list of structs that begins in the next word; its count is the words after the tag."""

CAPABILITY = 3
"""The kind of a capability pointer, which holds an index and leads to no word."""

LIST_COUNT_SHIFT = 35
"""The lowest bit of the count in a list pointer."""


DATA_BYTES_MAX = (1 << 29) - 1
"""The longest Data: a list pointer has 29 bits for the count."""

_NUMBER_SIZES = {1: 2, 2: 3, 4: 4, 8: 5}
"""The size in a list pointer, by the bytes of an element."""

_BITS_32 = 0xFFFFFFFF


class Body:
    """The target of a pointer."""

    __slots__ = ("pieces", "pointer", "words")

    def __init__(self, pointer: int, pieces: list[bytes], words: int) -> None:
        """Describe a body of *pieces*, together *words* long."""
        self.pointer = pointer
        """The pointer to it, if it begins in the word after the pointer; or a null or capability pointer."""

        self.pieces = pieces
        """The pieces of its bytes, together a whole number of words."""

        self.words = words
        """The length of all pieces."""


def struct_pointer(data_words: int, pointers: int) -> int:
    """Return the pointer to a struct of that size that begins in the next word."""
    return data_words << 32 | pointers << 48


def pointer_to(body: Body, distance: int) -> int:
    """Return the pointer to *body*, which begins *distance* words after the word that follows the pointer."""
    if body.pointer & 3 == CAPABILITY or not body.pointer:
        return body.pointer
    return body.pointer & ~_BITS_32 | body.pointer + (distance << 2) & _BITS_32


def segment(body: Body) -> bytes:
    """Return the segment whose root is *body*."""
    return b"".join([body.pointer.to_bytes(WORD, "little"), *body.pieces])


def data_body(content: "Buffer") -> Body:
    """
    Build a Data of all bytes of *content*.

    Raises:
        TypeError: *content* has no buffer.
        InvalidRequest: *content* is longer than a Data can be.
    """
    # `len` counts the items of a buffer, which may be wider than a byte or nested.
    length = len(content) if type(content) is bytes else memoryview(content).nbytes
    if length > DATA_BYTES_MAX:
        raise too_large("a Data", value=length, limit=DATA_BYTES_MAX, unit="bytes")
    whole = content if type(content) is bytes else bytes(memoryview(content))
    padding = PADDING[length % WORD]
    return Body(BYTE_LIST | length << LIST_COUNT_SHIFT, [whole, padding], (length + 7) // WORD)


def text_body(text: str) -> Body:
    """Build a Text."""
    return data_body(text.encode() + b"\0")


def struct_body(data: Sequence[int], pointers: Sequence[Body | None]) -> Body:
    """Build a struct with the words *data* and with pointers to the bodies *pointers*."""
    return _body(struct_pointer(len(data), len(pointers)), [], [(data, pointers)], len(data) + len(pointers))


def pointers_body(elements: Sequence[Body | None]) -> Body:
    """Build a list of pointers."""
    return _body(POINTER_LIST | len(elements) << LIST_COUNT_SHIFT, [], [((), elements)], len(elements))


def numbers_body(numbers: Sequence[int], bits: int) -> Body:
    """
    Build a list of numbers of 8, 16, 32 or 64 *bits* each.

    Raises:
        OverflowError: a number does not fit.
    """
    size = bits // 8
    whole = b"".join([number.to_bytes(size, "little") for number in numbers])
    pointer = 1 | _NUMBER_SIZES[size] << 32 | len(numbers) << LIST_COUNT_SHIFT
    return Body(pointer, [whole, PADDING[len(whole) % WORD]], (len(whole) + 7) // WORD)


def structs_body(
    data_words: int, pointers: int, elements: Sequence[tuple[Sequence[int], Sequence[Body | None]]]
) -> Body:
    """Build a list of structs of that size, each given as for `struct_body`."""
    words = len(elements) * (data_words + pointers)
    tag = len(elements) << 2 | struct_pointer(data_words, pointers)
    return _body(STRUCT_LIST | words << LIST_COUNT_SHIFT, [tag], elements, 1 + words)


def _body(
    pointer: int, words: list[int], structs: Iterable[tuple[Sequence[int], Sequence[Body | None]]], end: int
) -> Body:
    """Build a body: *words*, the structs' data and pointers, together *end* words, then the pointers' targets."""
    first = end
    pieces: list[bytes] = []
    for data, pointers in structs:
        words.extend(data)
        for body in pointers:
            if body is None:
                words.append(0)
                continue
            words.append(pointer_to(body, end - len(words) - 1))
            pieces += body.pieces
            end += body.words
    return Body(pointer, [pack(f"<{first}Q", *words), *pieces], end)
