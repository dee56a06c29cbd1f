"""
The results of the queue's methods: written by a server, read by a client.

What a server writes is content for `Connection.return_results`.  Readers take
the outcome of a call and raise `RemoteProtocolError` when it is malformed.
"""

from collections.abc import Sequence
from functools import lru_cache
from struct import pack
from typing import Final

import attrs

from queueber.api.queue_types import AddResponse, PolledItem, PollResponse, ServerLimits
from queueber.capnp.builder import (
    BYTE_LIST,
    CAPABILITY,
    LIST_COUNT_SHIFT,
    PADDING,
    STRUCT_LIST,
    Body,
    data_body,
    pointers_body,
    segment,
    struct_body,
)
from queueber.capnp.layout import field_name, layout
from queueber.capnp.reader import (
    WORD,
    Frame,
    StructAt,
    bytes_at,
    capability_at,
    pointer_list_at,
    slot_at,
    struct_at,
    struct_list_at,
)
from queueber.errors import RemoteProtocolError
from queueber.limits import Limits
from queueber.rpc.messages import ImportId, Results
from queueber.units import WallMs

ID_BYTES = 16

_ADD = layout("AddResponse")
_POLL = layout("PollResponse")
_ITEM = layout("PolledItem")
_POLL_RESULTS = layout("Queue.poll$Results")
_QUEUE_RESULTS = layout("Broker.queue$Results")

_RESP = 0
"""The one result of each method of a queue."""

assert all(layout(f"Queue.{method}$Results").slots == {"resp": _RESP} for method in ("add", "remove", "poll", "extend"))

_ITEM_WORDS = _ITEM.data_words + _ITEM.pointers

# `write_poll_response` lays fields out in this order.
assert (_ITEM.data_words, _ITEM.slots) == (2, {"contents": 0, "id": 1})
assert (_ITEM.numbers["attempt"].word, _ITEM.numbers["addedAtMs"].word) == (0, 1)
assert (_POLL.data_words, _POLL.slots) == (1, {"items": 0, "lease": 1})
assert (_POLL_RESULTS.data_words, _POLL_RESULTS.slots) == (0, {"resp": _RESP})

_LEASE: Final = 4
"""The word with the pointer to the lease: after the pointers to results and response, the deadline, and the items."""

_FIRST_ITEM: Final = 6
"""The first word of the first item, after that and the tag of the list."""

_LIMITS = {each.name: field_name(each.name) for each in attrs.fields(ServerLimits)}
"""The fields of `Limits`, by their names here."""

_REMOVED = {flag: layout("Queue.remove$Results").build(resp={"removed": flag}) for flag in (False, True)}
_EXTENDED = {flag: layout("Queue.extend$Results").build(resp={"extended": flag}) for flag in (False, True)}

QUEUE_RESPONSE = _QUEUE_RESULTS.build(queue=Body(CAPABILITY, [], 0))
"""The results of `Broker.queue`: the first of the capabilities that go with it."""


def write_add_response(ids: Sequence[bytes]) -> bytes:
    """The results of `add`; each id is 16 bytes."""
    return _before_ids(len(ids)) + b"".join(ids)


def write_add_responses(replies: Sequence[Sequence[bytes]]) -> list[bytes]:
    """Return the results of several calls of `add`."""
    one = _before_ids(1)
    if len(replies) == 1 and len(replies[0]) == 1:
        # The usual lone call, without the call that a comprehension costs.
        return [one + replies[0][0]]
    return [one + ids[0] if len(ids) == 1 else write_add_response(ids) for ids in replies]


@lru_cache(maxsize=128)
def _before_ids(count: int) -> bytes:
    """All of the results of `add` up to the ids themselves."""
    ids = pointers_body([data_body(bytes(ID_BYTES))] * count)
    whole = segment(struct_body([], [struct_body([], [ids])]))
    return whole[: len(whole) - count * ID_BYTES]


def write_remove_responses(replies: Sequence[bool]) -> list[bytes]:
    """The results of several calls of `remove`: whether each item was removed."""
    return [_REMOVED[reply] for reply in replies]


def write_extend_responses(replies: Sequence[bool]) -> list[bytes]:
    """The results of several calls of `extend`: whether each lease was extended."""
    return [_EXTENDED[reply] for reply in replies]


def write_limits_response(limits: Limits) -> bytes:
    """The results of `Broker.limits`."""
    fields = {_LIMITS[each.name]: getattr(limits, each.name) for each in attrs.fields(ServerLimits)}
    return layout("Broker.limits$Results").build(limits=fields)


def write_poll_response(response: PollResponse) -> bytes:
    """
    Return the results of `poll`.

    Laid out by hand in one pass, in a fifth of the time that the layouts take: the structs, the list of items, and
    then each item's contents and id, and the lease.
    """
    items, lease = response.items, response.lease
    words = [_POLL_RESULTS.pointer, _POLL.pointer, response.deadline]
    words += STRUCT_LIST | len(items) * _ITEM_WORDS << LIST_COUNT_SHIFT | 1 << 2, 0, len(items) << 2 | _ITEM.pointer
    pieces = [b""]
    slot = _FIRST_ITEM + _ITEM.data_words
    end = _FIRST_ITEM + len(items) * _ITEM_WORDS
    for contents, item_id, attempt, added_at in items:
        size = len(contents)
        to_contents = BYTE_LIST | size << LIST_COUNT_SHIFT | end - slot - 1 << 2
        end += size + WORD - 1 >> 3
        words += attempt, added_at, to_contents, BYTE_LIST | len(item_id) << LIST_COUNT_SHIFT | end - slot - 2 << 2
        end += len(item_id) + WORD - 1 >> 3
        pieces += contents, PADDING[size % WORD], item_id, PADDING[len(item_id) % WORD]
        slot += _ITEM_WORDS
    words[_LEASE] = BYTE_LIST | len(lease) << LIST_COUNT_SHIFT | end - _LEASE - 1 << 2
    pieces[0] = pack(f"<{len(words)}Q", *words)
    pieces += lease, PADDING[len(lease) % WORD]
    return b"".join(pieces)


def read_add_response(results: Results) -> AddResponse:
    """What `add` returned."""
    frame, response = _response(results)
    at = response[1] + _ADD.slots["ids"]
    if at >= response[2]:
        return AddResponse([])
    ids = pointer_list_at(frame, at, response[3], response[4])
    return AddResponse([_data(ids.frame, (at, ids.start, ids.end)) for at in ids.words()])


def read_remove_response(results: Results) -> bool:
    """What `remove` returned."""
    return bool(layout("RemoveResponse").numbers["removed"].of(*_response(results)))


def read_extend_response(results: Results) -> bool:
    """What `extend` returned."""
    return bool(layout("ExtendResponse").numbers["extended"].of(*_response(results)))


def read_poll_response(results: Results) -> PollResponse:
    """What `poll` returned."""
    frame, response = _response(results)
    items: list[PolledItem] = []
    at = response[1] + _POLL.slots["items"]
    if at < response[2]:
        found = struct_list_at(frame, at, response[3], response[4])
        found.frame.spend(found.count)
        items = [_item(found.frame, found.element(index)) for index in range(found.count)]
    deadline = _POLL.numbers["leaseDeadlineMs"].of(frame, response)
    return PollResponse(items, _slot_data(frame, response, _POLL.slots["lease"]), WallMs(deadline))


def read_poll_lease(results: Results) -> bytes:
    """The lease alone of what `poll` returned; empty without items."""
    return _slot_data(*_response(results), _POLL.slots["lease"])


def read_limits_response(results: Results) -> ServerLimits:
    """What `Broker.limits` returned."""
    content = results.content
    struct = struct_at(content.frame, content.at, content.start, content.end)
    found = layout("Broker.limits$Results").values(content.frame, struct)["limits"] or {}
    return ServerLimits(**{name: found[field] for name, field in _LIMITS.items() if field in found})


def read_queue_response(results: Results) -> ImportId:
    """
    What `Broker.queue` returned: a reference to a queue.

    Raises:
        RemoteProtocolError: there is no capability, or none that can be used.
    """
    return _capability(results, (_QUEUE_RESULTS.slots["queue"],))


def read_bootstrap(results: Results) -> ImportId:
    """
    What a bootstrap returned: a reference to the object that leads to all others.

    Raises:
        RemoteProtocolError: there is no capability, or none that can be used.
    """
    return _capability(results, ())


def _capability(results: Results, path: Sequence[int]) -> ImportId:
    """The capability in the pointer field that *path* names, or in place of the content."""
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
    """The struct that is the one result of a method of a queue."""
    content = results.content
    return content.frame, slot_at(
        content.frame, struct_at(content.frame, content.at, content.start, content.end), _RESP
    )


def _item(frame: Frame, struct: StructAt) -> PolledItem:
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
