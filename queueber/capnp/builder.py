"""
Writing single-segment messages.

What a pointer leads to is a `Body`.  Pointers within it are relative, so it
can be placed anywhere; only the pointer to it needs to know how far away it
begins.  Whoever places it writes that pointer with `pointer_to`.
"""

from collections.abc import Iterable, Sequence
from struct import pack
from typing import TYPE_CHECKING

from attrs import define

from queueber.capnp.reader import WORD
from queueber.errors import too_large

if TYPE_CHECKING:
    from typing_extensions import Buffer

PADDING = tuple(bytes(-length % WORD) for length in range(WORD))
"""The zeros that complete the last word of so many bytes, by their number modulo 8."""

POINTER_LIST = 1 | 6 << 32
"""The pointer to an empty list of pointers that begins in the next word."""

BYTE_LIST = 1 | 2 << 32
"""The same for bytes: a Data."""

STRUCT_LIST = 1 | 7 << 32
"""The same for structs; the count is that of the words behind the tag."""

CAPABILITY = 3
"""The kind of a pointer to a capability: it has an index and leads nowhere."""

LIST_COUNT_SHIFT = 35
"""Where a list pointer has its count."""


DATA_BYTES_MAX = (1 << 29) - 1
"""The longest Data: a list pointer counts its elements with 29 bits."""

_BITS_32 = 0xFFFFFFFF


@define(eq=False)
class Body:
    """What a pointer leads to."""

    pointer: int
    """The pointer to it, if it begins in the word after the pointer; or a null or capability pointer."""

    pieces: list[bytes]
    """Its bytes, a whole number of words; to be joined."""

    words: int
    """How long they are together."""


def struct_pointer(data_words: int, pointers: int) -> int:
    """The pointer to a struct of that size that begins in the next word."""
    return data_words << 32 | pointers << 48


def pointer_to(body: Body, distance: int) -> int:
    """The pointer to *body*, which begins *distance* words behind the word after the pointer."""
    if body.pointer & 3 == CAPABILITY or not body.pointer:
        return body.pointer
    return body.pointer & ~_BITS_32 | body.pointer + (distance << 2) & _BITS_32


def segment(body: Body) -> bytes:
    """The segment whose root is *body*."""
    return b"".join([body.pointer.to_bytes(WORD, "little"), *body.pieces])


def data_body(content: "Buffer") -> Body:
    """
    A Data that holds all bytes of *content*.

    Raises:
        TypeError: *content* has no buffer.
        InvalidRequest: it is longer than a Data can be.
    """
    # `len` counts the items of a buffer, which may be wider than a byte or nested.
    length = len(content) if type(content) is bytes else memoryview(content).nbytes
    if length > DATA_BYTES_MAX:
        raise too_large("a Data", value=length, limit=DATA_BYTES_MAX, unit="bytes")
    whole = content if type(content) is bytes else bytes(memoryview(content))
    padding = PADDING[length % WORD]
    return Body(BYTE_LIST | length << LIST_COUNT_SHIFT, [whole, padding], (length + 7) // WORD)


def text_body(text: str) -> Body:
    """A Text."""
    return data_body(text.encode() + b"\0")


def struct_body(data: Sequence[int], pointers: Sequence[Body | None]) -> Body:
    """A struct whose data are the words *data* and whose pointers lead to *pointers*."""
    return _body(struct_pointer(len(data), len(pointers)), [], [(data, pointers)], len(data) + len(pointers))


def pointers_body(elements: Sequence[Body | None]) -> Body:
    """A list of pointers."""
    return _body(POINTER_LIST | len(elements) << LIST_COUNT_SHIFT, [], [((), elements)], len(elements))


def structs_body(
    data_words: int, pointers: int, elements: Sequence[tuple[Sequence[int], Sequence[Body | None]]]
) -> Body:
    """A list of structs of that size, each given as for `struct_body`."""
    words = len(elements) * (data_words + pointers)
    tag = len(elements) << 2 | struct_pointer(data_words, pointers)
    return _body(STRUCT_LIST | words << LIST_COUNT_SHIFT, [tag], elements, 1 + words)


def _body(
    pointer: int, words: list[int], structs: Iterable[tuple[Sequence[int], Sequence[Body | None]]], end: int
) -> Body:
    """*words*, then the structs' data and pointers end to end, *end* words in all; then what they point to."""
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
