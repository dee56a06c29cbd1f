"""
The parameters of calls that are like the one before.

Of an add of one item, and of a remove, all but the item's contents, or the id
and the lease, are the same from call to call.  So they are compared with what
came last, and only the rest is read.  A template is made of parameters that
were read in full; it stands for them only if everything that was looked at is
in its bytes, reached by near pointers.

What does not fit is no error: it is to be read in full then.
"""

from attrs import define

from queueber.limits import Limits
from queueber.units import SpanMs
from queueber.wire.builder import BYTE_LIST, LIST_COUNT_SHIFT
from queueber.wire.messages import Params
from queueber.wire.queue_types import NewItem
from queueber.wire.reader import WORD, ListAt, StructAt

ID_BYTES = 16
_FIXED_MAX = 512
"""Bytes of a template, of which each connection may keep several; honest ones are a tenth of that."""

_RIGHT_BEHIND = (1 << LIST_COUNT_SHIFT) - 1
"""All of a pointer but a list's length: that of a list of bytes right behind its pointer is `BYTE_LIST`."""


@define(eq=False)
class AddTemplate:
    """An add of one item, up to the pointer to its contents."""

    fixed: bytes
    words: int
    delay: SpanMs


@define(eq=False)
class RemoveTemplate:
    """A remove; the places of its id and its lease are bytes behind the parameters' pointer."""

    fixed: bytes
    id: int
    lease: int
    words: int
    """How far id and lease reach."""


def add_template(params: Params, structs: tuple[StructAt, StructAt], items: ListAt, delay: SpanMs) -> object:
    """
    What the next add may be compared with; None if there is nothing.

    Args:
        params: those of an add of one item.
        structs: that of the parameters, and the request in it.
        items: the request's, with the pointer to the contents as the last word.
        delay: of the one item.
    """
    frame, at = params.frame, params.at
    pointer = items.first + items.step - 1
    to_items = frame.words[structs[1][1]]
    if (
        not _all_near(params, structs, pointer)
        or to_items & 3 != 1
        or to_items >> LIST_COUNT_SHIFT != items.step
        or items.step != items.data_words + 1
        or items.first - 1 <= at
        or (pointer - at) * WORD > _FIXED_MAX
    ):
        return None
    return AddTemplate(frame.data[at * WORD : pointer * WORD], pointer - at, delay)


def _all_near(params: Params, structs: tuple[StructAt, StructAt], stop: int) -> bool:
    """Whether *structs*, and what leads to them, lie between the parameters' pointer and *stop*."""
    frame, at = params.frame, params.at
    outer, inner = structs
    return (
        frame.segments is None
        and all(at < struct[0] <= struct[2] <= stop for struct in structs)
        and outer[1] < outer[2]
        and inner[1] < inner[2]
        and not frame.words[at] & 3
        and not frame.words[outer[1]] & 3
    )


def read_alike_add(params: Params, limits: Limits) -> NewItem | None:
    """The one item of an add that is like the one before."""
    template = params.shape.template if params.shape is not None else None
    if type(template) is not AddTemplate:
        return None
    frame = params.frame
    pointer = params.at + template.words
    if pointer >= frame.end or not frame.data.startswith(template.fixed, params.at * WORD):
        return None
    word = frame.words[pointer]
    size = word >> LIST_COUNT_SHIFT
    first = (pointer + 1) * WORD
    if word & _RIGHT_BEHIND != BYTE_LIST or first + size > frame.end * WORD or size > limits.contents_bytes:
        return None
    return _new(NewItem, (frame.data[first : first + size], template.delay))


def remove_template(params: Params, structs: tuple[StructAt, StructAt], places: tuple[int, int]) -> object:
    """
    What the next remove may be compared with; None if there is nothing.

    Args:
        params: those of a remove.
        structs: that of the parameters, and the request in it.
        places: where id and lease begin, bytes into the frame's; each is 16 bytes long.
    """
    frame, at = params.frame, params.at
    stop = max(struct[2] for struct in structs)
    pointers = frame.words[structs[1][1] : structs[1][2]]
    if (
        (stop - at) * WORD > _FIXED_MAX
        or not _all_near(params, structs, stop)
        or any(each & 3 != 1 for each in pointers)
    ):
        return None
    first = at * WORD
    words = (max(places) + ID_BYTES + WORD - 1) // WORD - at
    return RemoveTemplate(frame.data[first : stop * WORD], places[0] - first, places[1] - first, max(words, stop - at))


def read_alike_remove(params: Params) -> tuple[bytes, bytes] | None:
    """Id and lease of a remove that is like the one before."""
    template = params.shape.template if params.shape is not None else None
    if type(template) is not RemoveTemplate:
        return None
    data, first = params.frame.data, params.at * WORD
    if params.at + template.words > params.frame.end or not data.startswith(template.fixed, first):
        return None
    item, lease = first + template.id, first + template.lease
    return data[item : item + ID_BYTES], data[lease : lease + ID_BYTES]


_new = tuple.__new__
