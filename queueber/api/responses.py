"""
The results of the queue's methods: written by a server, read by a client.

What a server writes is content for `Connection.return_results`.  Readers take
the outcome of a call and raise `RemoteProtocolError` when it is malformed.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from struct import Struct, pack, unpack_from
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
_QUEUE_RESULTS = layout("Broker.queue$Results")

_RESP = 0
"""The one result of each method of a queue."""

assert all(layout(f"Queue.{method}$Results").slots == {"resp": _RESP} for method in ("add", "remove", "poll", "extend"))

_ITEM_WORDS = _ITEM.data_words + _ITEM.pointers

# `_items` gives fields in this order.
assert (_ITEM.data_words, _ITEM.slots) == (2, {"contents": 0, "id": 1})
assert (_ITEM.numbers["attempt"].word, _ITEM.numbers["addedAtMs"].word) == (0, 1)
assert (_POLL.data_words, _POLL.slots) == (1, {"items": 0, "lease": 1})

_DEADLINE: Final = 2
"""Which word of a poll's results it is, behind the pointers to the results and to the response."""

_FIRST_ITEM: Final = 6
"""And the first item's, behind the pointers to items and lease and the list's tag."""

_ALIKE_ITEMS, _ALIKE_BYTES = range(4, 129), range(4_097)
"""So many items, all of one such size, are written in one step: it does not pay for fewer, nor for larger ones."""

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
    """The results of `poll`."""
    items, lease = response.items, response.lease
    if len(items) in _ALIKE_ITEMS and len(lease) == ID_BYTES:
        contents, ids, attempts, added_at = zip(*items, strict=True)
        size = len(contents[0])
        if size in _ALIKE_BYTES and set(map(len, contents)) == {size} and set(map(len, ids)) == {ID_BYTES}:
            usual, packed = _alike(len(items), size)
            words = usual.copy()
            words[_DEADLINE] = response.deadline
            words[_FIRST_ITEM::_ITEM_WORDS] = attempts
            words[_FIRST_ITEM + 1 :: _ITEM_WORDS] = added_at
            return packed(*words, *chain.from_iterable(zip(contents, ids, strict=True)), lease)
    return _poll_results(response)


@lru_cache(maxsize=64)
def _alike(count: int, size: int) -> tuple[list[int], Callable[..., bytes]]:
    """
    The results of `poll` with so many items of that size: the words up to the contents, with zeros for what differs.

    And what packs those words, the contents and ids by turns, and the lease.
    """
    item = PolledItem(bytes(size), bytes(ID_BYTES), 0, WallMs(0))
    results = _poll_results(PollResponse([item] * count, bytes(ID_BYTES), WallMs(0)))
    head = f"<{_FIRST_ITEM + count * _ITEM_WORDS}Q"
    each = f"{size}s{-size % WORD}x{ID_BYTES}s"
    return list(unpack_from(head, results)), Struct(f"{head}{each * count}{ID_BYTES}s").pack


def _poll_results(response: PollResponse) -> bytes:
    return segment(
        struct_body([], [struct_body([response.deadline], [_items(response.items), data_body(response.lease)])])
    )


def _items(items: Sequence[PolledItem]) -> Body:
    """
    What a pointer to the list of *items* leads to.

    By hand, in half the time that `structs_body` takes.
    """
    size = len(items) * _ITEM_WORDS
    words = [len(items) << 2 | _ITEM.pointer]
    pieces = [b""]
    end = size + 1
    for item in items:
        slot = len(words) + _ITEM.data_words
        words += (item.attempt, item.added_at)
        for content in (item.contents, item.id):
            length = len(content)
            words.append(BYTE_LIST | length << LIST_COUNT_SHIFT | end - slot - 1 << 2)
            pieces += content, PADDING[length % WORD]
            slot += 1
            end += (length + WORD - 1) // WORD
    pieces[0] = pack(f"<{size + 1}Q", *words)
    return Body(STRUCT_LIST | size << LIST_COUNT_SHIFT, pieces, end)


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
