"""
Templates of the queue's requests, for `rpc.fastpath`.

Each reader reads parameters in full, and describes what a call with other
contents, another id or another lease has in common with them.  It returns a
template only if all words that were looked at lie before the fields and are
reached by near pointers: then equal bytes mean an equal reading.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise, repeat
from struct import Struct
from typing import Any, Final

from queueber.api.queue_types import ADD, EXTEND, POLL, QUEUE_INTERFACE_ID, REMOVE
from queueber.api.requests import (
    new_item,
    read_add_request,
    read_extend_request,
    read_poll_request,
    read_remove_request,
    structs_of,
)
from queueber.capnp.builder import BYTE_LIST, LIST_COUNT_SHIFT
from queueber.capnp.layout import layout
from queueber.capnp.reader import WORD, bytes_at, struct_list_at
from queueber.fixed_limits import ID_BYTES
from queueber.limits import Limits
from queueber.rpc.messages import Params
from queueber.rpc.patterns import Template, TemplateReaders

_ITEMS: Final = layout("AddRequest").slots["items"]
_FORWARD: Final = (1 << 31) - 4
"""The bits of a list pointer with its offset, if it leads forward."""


def template_readers(limits: Limits) -> TemplateReaders:
    """Return the template reader of each method of a queue."""
    return {
        (QUEUE_INTERFACE_ID, ADD): partial(_add, limits),
        (QUEUE_INTERFACE_ID, REMOVE): _remove,
        (QUEUE_INTERFACE_ID, POLL): partial(_poll, limits),
        (QUEUE_INTERFACE_ID, EXTEND): partial(_extend, limits),
    }


def _add(limits: Limits, params: Params) -> Template | None:
    """
    Make a template of an add of one item, whose contents are the tail.

    Requests with an id or options are not repeated word for word.
    """
    added = read_add_request(params, limits).items
    stop = _end_of_structs(params)
    if len(added) != 1 or stop is None:
        return None
    frame = params.frame
    _, request = structs_of(params)
    to_items = request[1] + _ITEMS
    items = struct_list_at(frame, to_items, request[3], request[4], 1)
    pointer = items.first + items.step - 1
    tail = frame.words[pointer] & (1 << LIST_COUNT_SHIFT) - 1
    is_near = frame.words[to_items] & 3 == 1 and stop <= items.first
    # The list is composite, and its only item ends with its only pointer, the one to the contents.
    is_composite = frame.words[to_items] >> LIST_COUNT_SHIFT == items.step == items.data_words + 1
    has_more = any(frame.words[to_items + 1 : request[2]])
    if has_more or not is_near or not is_composite or tail & ~_FORWARD != BYTE_LIST:
        return None
    delay = added[0].delay

    def requests(contents: list[bytes]) -> list[Any]:
        # Each request is a tuple of one item.  No function is called per item but those written in C.
        return list(zip(map(new_item, zip(contents, repeat(delay), repeat(None)))))

    fixed = pointer - params.at
    begin = fixed + 1 + ((tail & _FORWARD) >> 2)
    # Longer contents are read in full, which refuses them.
    most = min(limits.contents_bytes, limits.add_bytes)
    return Template(fixed, begin, begin, requests, tail=most, tail_pointer=tail)


def _remove(params: Params) -> Template | None:
    read_remove_request(params)
    places = _places(params, layout("RemoveRequest").slots["id"], layout("RemoveRequest").slots["lease"])
    if places is None:
        return None
    item, lease = places
    if lease > item:
        return _with_fields(params, places, list)
    return _with_fields(params, places, lambda taken: [(item, lease) for lease, item in taken])


def _extend(limits: Limits, params: Params) -> Template | None:
    span = read_extend_request(params, limits).span
    places = _places(params, layout("ExtendRequest").slots["lease"])
    return _with_fields(params, places, lambda taken: [(lease, span) for (lease,) in taken]) if places else None


def _poll(limits: Limits, params: Params) -> Template | None:
    request = read_poll_request(params, limits)
    if request.session:
        # Its bytes lie after the struct, and are not among those that are compared.
        return None
    return _with_fields(params, (), lambda taken: [request] * len(taken))


def _places(params: Params, *slots: int) -> tuple[int, ...] | None:
    """Return the byte offset of each Data in *slots*, from the parameters' pointer; None unless all are 16 bytes."""
    _, request = structs_of(params)
    places = []
    for slot in slots:
        pointer = request[1] + slot
        if pointer >= request[2] or params.frame.words[pointer] & 3 != 1:
            return None
        first, last = bytes_at(params.frame, pointer, request[3], request[4])
        if last - first != ID_BYTES:
            return None
        places.append(first - params.at * WORD)
    return tuple(places)


def _with_fields(
    params: Params, places: tuple[int, ...], requests: Callable[[list[Any]], list[Any]]
) -> Template | None:
    """Make a template with a field of 16 bytes at each of *places*; `requests` gets them in ascending order."""
    stop = _end_of_structs(params)
    if stop is None:
        return None
    fixed = stop - params.at
    if not places:
        return Template(fixed, fixed, fixed, requests)
    lie = sorted(places)
    gaps = [after - before - ID_BYTES for before, after in pairwise(lie)]
    if lie[0] < fixed * WORD or any(gap < 0 for gap in gaps):
        return None
    fields = Struct(f"{ID_BYTES}s" + "".join(f"{gap}x{ID_BYTES}s" for gap in gaps))
    return Template(fixed, lie[0] // WORD, (lie[-1] + ID_BYTES) // WORD, requests, fields)


def _end_of_structs(params: Params) -> int | None:
    """Return the end of the structs of parameters and request; None unless near pointers lead forward to both."""
    frame, at = params.frame, params.at
    outer, request = structs_of(params)
    is_near = (
        frame.segments is None
        and outer[1] < outer[2]
        and min(outer[0], request[0]) > at
        and not frame.words[at] & 3
        and not frame.words[outer[1]] & 3
    )
    return max(outer[2], request[2]) if is_near else None
