"""
The results of the queue's methods: written by a server, read by a client.

The `write_…` functions return content for `Connection.return_results`.  The
`read_…` functions take the results of a call and raise `RemoteProtocolError` if
they are malformed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import pack
from typing import TYPE_CHECKING, Final

from queueber.api.options import facts_at, facts_body
from queueber.api.queue_types import AddResponse, PolledItem, PollResponse, ServerLimits
from queueber.capnp.builder import (
    BYTE_LIST,
    CAPABILITY,
    LIST_COUNT_SHIFT,
    PADDING,
    STRUCT_LIST,
    Body,
    data_body,
    pointer_to,
    pointers_body,
    segment,
    struct_body,
    struct_pointer,
)
from queueber.capnp.layout import field_name, layout
from queueber.capnp.reader import (
    WORD,
    Frame,
    ListAt,
    StructAt,
    bytes_at,
    capability_at,
    numbers_in,
    pointer_list_at,
    slot_at,
    struct_at,
    struct_list_at,
)
from queueber.errors import RemoteProtocolError
from queueber.fixed_limits import ID_BYTES
from queueber.rpc.messages import ImportId, Results
from queueber.units import WallMs

if TYPE_CHECKING:
    from queueber.limits import Limits

_ADD = layout("AddResponse")
_POLL = layout("PollResponse")
_ITEM = layout("PolledItem")
_POLL_RESULTS = layout("Queue.poll$Results")
_QUEUE_RESULTS = layout("Broker.queue$Results")

_RESP = 0
"""The pointer field of the only result of each method of a queue."""

assert all(layout(f"Queue.{method}$Results").slots == {"resp": _RESP} for method in ("add", "remove", "poll", "extend"))

_PLACE_BITS = 32
_BITS_32: Final = (1 << 32) - 1

_new: Final = tuple.__new__
"""Makes a named tuple of a plain one, in a third of the time that its class takes."""

_ITEM_WORDS = _ITEM.data_words + _ITEM.pointers

# `write_poll_responses` and `_items` take fields in this order.
assert (_ITEM.data_words, _ITEM.slots) == (2, {"contents": 0, "id": 1})
assert (_ITEM.numbers["attempt"].word, _ITEM.numbers["attempt"].shift, _ITEM.numbers["addedAtMs"].word) == (0, 0, 1)
assert (_POLL.numbers["leaseDeadlineMs"].word, _POLL.slots["items"], _POLL.slots["lease"]) == (0, 0, 1)
assert (_POLL.numbers["session"].word, _POLL.numbers["session"].shift, _POLL.slots["facts"]) == (1, 0, 2)
assert (_POLL_RESULTS.data_words, _POLL_RESULTS.slots) == (0, {"resp": _RESP})

# The response of the original schema: it is smaller than today's.
_POLL_POINTERS: Final = (_POLL_RESULTS.pointer, struct_pointer(1, 2))
_FULL_POLL_POINTERS: Final = (_POLL_RESULTS.pointer, struct_pointer(2, 3))
_ITEM_POINTER: Final = _ITEM.pointer

_NEXT_POINTER: Final = 1 << 2
_NEXT_ITEM: Final = _ITEM.data_words + 1 << 2
"""One word from the pointer to contents to that to an id, and from there to the next item's, as parts of an offset."""

_LIMITS = {name: field_name(name) for name in ServerLimits._fields}
"""The schema's names of the fields of `ServerLimits`."""

_REMOVED = {flag: layout("Queue.remove$Results").build(resp={"removed": flag}) for flag in (False, True)}
_EXTENDED = {flag: layout("Queue.extend$Results").build(resp={"extended": flag}) for flag in (False, True)}

QUEUE_RESPONSE = _QUEUE_RESULTS.build(queue=Body(CAPABILITY, [], 0))
"""The results of `Broker.queue`, `Broker.control` and `Queue.deadLetters`: the first capability of the message."""


def write_add_response(response: AddResponse) -> bytes:
    """Write the results of a call of `add` that may have found duplicates."""
    if not response.duplicates:
        return write_add_responses([response.ids])[0]
    fields = {"ids": response.ids, "duplicates": response.duplicates}
    return layout("Queue.add$Results").build(resp=fields)


def write_add_responses(replies: Sequence[Sequence[bytes]]) -> list[bytes]:
    """Write the results of calls of `add`: the ids of the items of each, of 16 bytes."""
    one = _before_ids(1)
    if len(replies) == 1 and len(replies[0]) == 1:
        # A lone call is the most frequent case, and a comprehension would cost a Python call.
        return [one + replies[0][0]]
    return [one + ids[0] if len(ids) == 1 else _before_ids(len(ids)) + b"".join(ids) for ids in replies]


@lru_cache(maxsize=128)
def _before_ids(count: int) -> bytes:
    """Return the bytes of the results of `add` before the ids."""
    ids = pointers_body([data_body(bytes(ID_BYTES))] * count)
    whole = segment(struct_body([], [struct_body([], [ids])]))
    return whole[: len(whole) - count * ID_BYTES]


def write_remove_responses(replies: Sequence[bool]) -> list[bytes]:
    """Write the results of several calls of `remove`: whether each item was removed."""
    return [_REMOVED[reply] for reply in replies]


def write_extend_responses(replies: Sequence[bool]) -> list[bytes]:
    """Write the results of several calls of `extend`: whether each lease was extended."""
    return [_EXTENDED[reply] for reply in replies]


def write_limits_response(limits: Limits) -> bytes:
    """Write the results of `Broker.limits`."""
    fields = {field: getattr(limits, name) for name, field in _LIMITS.items()}
    return layout("Broker.limits$Results").build(limits=fields)


def write_poll_responses(responses: Sequence[PollResponse]) -> list[bytes]:
    """
    Write the results of calls of `poll`.

    They are laid out by hand in one pass, which takes a fifth of the time of the layouts: the structs, the list of
    items, then the contents and id of each item, the lease, and the facts if there are any.
    """
    results: list[bytes] = []
    for response in responses:
        items, lease, deadline, session, facts = response
        size = len(items) * _ITEM_WORDS
        is_plain = not facts and not session
        words = [*_POLL_POINTERS, deadline] if is_plain else [*_FULL_POLL_POINTERS, deadline, session]
        to_items = len(words)
        words += (
            [STRUCT_LIST | size << LIST_COUNT_SHIFT | 1 << 2, 0]
            if is_plain
            else [STRUCT_LIST | size << LIST_COUNT_SHIFT | 2 << 2, 0, 0]
        )
        words.append(len(items) << 2 | _ITEM_POINTER)
        pieces = [b""]
        # The pointer to the contents, without their length.  Its offset grows with the words that it leads over,
        # shrinking by each word from one pointer to the next.
        pointer = BYTE_LIST + (size - _ITEM.data_words - 1 << 2)
        for contents, item_id, attempt, added_at in items:
            length, id_length = len(contents), len(item_id)
            to_id = pointer + (length + 7 >> 3 << 2) - _NEXT_POINTER
            words += attempt, added_at, pointer + (length << LIST_COUNT_SHIFT), to_id + (id_length << LIST_COUNT_SHIFT)
            pointer = to_id + (id_length + 7 >> 3 << 2) - _NEXT_ITEM
            pieces += contents, PADDING[length % WORD], item_id, PADDING[id_length % WORD]
        end = (pointer - BYTE_LIST >> 2) + len(words) + _ITEM.data_words + 1
        words[to_items + 1] = BYTE_LIST | len(lease) << LIST_COUNT_SHIFT | end - to_items - 2 << 2
        pieces += lease, PADDING[len(lease) % WORD]
        if facts:
            body = facts_body(facts)
            words[to_items + 2] = pointer_to(body, end + (len(lease) + 7 >> 3) - to_items - 3)
            pieces += body.pieces
        pieces[0] = pack(f"<{len(words)}Q", *words)
        results.append(b"".join(pieces))
    return results


def poll_response_body(response: PollResponse) -> Body:
    """Build the struct of the results of a poll, for a message that has others around it."""
    items = [
        {"contents": contents, "id": item_id, "attempt": attempt, "addedAtMs": added_at}
        for contents, item_id, attempt, added_at in response.items
    ]
    return _POLL.body(
        {
            "items": items,
            "lease": response.lease,
            "leaseDeadlineMs": response.deadline,
            "session": response.session,
            "facts": facts_body(response.facts),
        }
    )


def read_add_response(results: Results) -> AddResponse:
    """Read the results of `add`."""
    frame, response = _response(results)
    at = response[1] + _ADD.slots["ids"]
    if at >= response[2]:
        return AddResponse([])
    ids = pointer_list_at(frame, at, response[3], response[4])
    found = [_data(ids.frame, (at, ids.start, ids.end)) for at in ids.words()]
    at = response[1] + _ADD.slots["duplicates"]
    if at >= response[2]:
        return AddResponse(found)
    return AddResponse(found, tuple(numbers_in(struct_list_at(frame, at, response[3], response[4]), _PLACE_BITS)))


def read_remove_response(results: Results) -> bool:
    """Read the results of `remove`."""
    return bool(layout("RemoveResponse").numbers["removed"].of(*_response(results)))


def read_extend_response(results: Results) -> bool:
    """Read the results of `extend`."""
    return bool(layout("ExtendResponse").numbers["extended"].of(*_response(results)))


def read_poll_response(results: Results) -> PollResponse:
    """Read the results of `poll`."""
    return poll_response_at(*_response(results))


def poll_response_at(frame: Frame, response: StructAt) -> PollResponse:
    """Read the struct *response* of a poll."""
    items: list[PolledItem] = []
    at = response[1] + _POLL.slots["items"]
    if at < response[2]:
        found = struct_list_at(frame, at, response[3], response[4])
        found.frame.spend(found.count)
        items = _items(found)
    deadline = _POLL.numbers["leaseDeadlineMs"].of(frame, response)
    session = bool(_POLL.numbers["session"].of(frame, response))
    return PollResponse(
        items, lease_at(frame, response), WallMs(deadline), session, facts_at(frame, response, _POLL.slots["facts"])
    )


def read_poll_lease(results: Results) -> bytes:
    """Read only the lease of the results of `poll`; empty without items."""
    return lease_at(*_response(results))


def lease_at(frame: Frame, response: StructAt) -> bytes:
    """Read the lease of the struct *response* of a poll; empty without items."""
    return _slot_data(frame, response, _POLL.slots["lease"])


def read_limits_response(results: Results) -> ServerLimits:
    """Read the results of `Broker.limits`."""
    content = results.content
    struct = struct_at(content.frame, content.at, content.start, content.end)
    found = layout("Broker.limits$Results").values(content.frame, struct)["limits"] or {}
    return ServerLimits(**{name: found[field] for name, field in _LIMITS.items() if field in found})


def read_queue_response(results: Results) -> ImportId:
    """
    Read the results of `Broker.queue`: a reference to a queue.

    Raises:
        RemoteProtocolError: there is no capability, or one of an unsupported kind.
    """
    return _capability(results, (_QUEUE_RESULTS.slots["queue"],))


def read_bootstrap(results: Results) -> ImportId:
    """
    Read the results of a Bootstrap: a reference to the bootstrap object.

    Raises:
        RemoteProtocolError: there is no capability, or one of an unsupported kind.
    """
    return _capability(results, ())


def _capability(results: Results, path: Sequence[int]) -> ImportId:
    """Return the capability in the pointer field *path*, or in place of the content if that is empty."""
    content = results.content
    pointer = content.at, content.start, content.end
    if path:
        struct = struct_at(content.frame, *pointer)
        pointer = struct[1] + path[0], *struct[3:]
        if pointer[0] >= struct[2]:
            raise RemoteProtocolError("the results lack a capability")
    index = capability_at(content.frame, *pointer)
    if index is None or index >= len(results.capabilities):
        raise RemoteProtocolError("the results lack a capability")
    found = results.capabilities[index]
    if found is None:
        raise RemoteProtocolError("the results hold a capability of a kind that cannot be used here")
    return found


def _response(results: Results) -> tuple[Frame, StructAt]:
    """Return the struct that is the only result of a queue's method."""
    content = results.content
    return content.frame, slot_at(
        content.frame, struct_at(content.frame, content.at, content.start, content.end), _RESP
    )


def _items(found: ListAt) -> list[PolledItem]:
    """
    Read the items of a response.

    A worker polls by the hundred, so those of the usual form are read here, in a third of the time.
    """
    frame, step, start, end = found.frame, found.step, found.start, found.end
    if found.data_words < _ITEM.data_words or step - found.data_words < _ITEM.pointers:
        return [_item(frame, found.element(index)) for index in range(found.count)]
    words, data = frame.words, frame.data
    items: list[PolledItem] = []
    for at in found.words():
        to_contents = at + found.data_words
        first, last = bytes_at(frame, to_contents, start, end)
        id_first, id_last = bytes_at(frame, to_contents + 1, start, end)
        items.append(_new(PolledItem, (data[first:last], data[id_first:id_last], words[at] & _BITS_32, words[at + 1])))
    return items


def _item(frame: Frame, struct: StructAt) -> PolledItem:
    """Read an item of any form."""
    return PolledItem(
        contents=_slot_data(frame, struct, _ITEM.slots["contents"]),
        id=_slot_data(frame, struct, _ITEM.slots["id"]),
        attempt=_ITEM.numbers["attempt"].of(frame, struct),
        added_at=WallMs(_ITEM.numbers["addedAtMs"].of(frame, struct)),
    )


def _slot_data(frame: Frame, struct: StructAt, slot: int) -> bytes:
    at = struct[1] + slot
    return _data(frame, (at, *struct[3:])) if at < struct[2] else b""


def _data(frame: Frame, pointer: tuple[int, int, int]) -> bytes:
    first, last = bytes_at(frame, *pointer)
    return frame.data[first:last]
