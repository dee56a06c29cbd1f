"""The parameters and results of `settle`."""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack
from typing import TYPE_CHECKING, Any, Final

from queueber.api.fields import Fields, answered, fields_of, request_of
from queueber.api.options import options_body, with_options
from queueber.api.queue_types import AddResponse, SettleRequest, SettleResponse
from queueber.api.requests import items_at, items_body
from queueber.capnp.builder import BYTE_LIST, CAPABILITY, LIST_COUNT_SHIFT, STRUCT_LIST, Body, structs_body
from queueber.capnp.layout import layout
from queueber.capnp.reader import WORD
from queueber.errors import InvalidRequest, too_large
from queueber.fixed_limits import ERROR_BYTES_MAX, ID_BYTES, QUEUE_NAME_BYTES_MAX, SETTLEMENTS_MAX
from queueber.rpc.messages import Params, Results
from queueber.units import SpanMs, WallMs
from queueber.values import Action, AddTo, NewItem, Outcome, Settled, Settlement

if TYPE_CHECKING:
    from queueber.limits import Limits

_ITEMS = layout("AddTo").slots["items"]

# `read_entries` and `_entries_body` take fields at these places.
_SETTLEMENT = layout("Settlement")
_ACTIONS: Final = {int(action): action for action in Action}
_BITS_16, _BITS_32 = (1 << 16) - 1, (1 << 32) - 1
_HAS_DELAY: Final = 1 << _SETTLEMENT.numbers["hasDelay"].shift
_ID_WORDS: Final = 2 * ID_BYTES // WORD
"""The words of a lease and an id."""

_SETTLEMENT_WORDS: Final = _SETTLEMENT.data_words + _SETTLEMENT.pointers
_NEXT_POINTER: Final = 1 << 2
"""One word, as a part of a pointer's offset."""

_ID_POINTER: Final = BYTE_LIST | ID_BYTES << LIST_COUNT_SHIFT
_NOT_OFFSET: Final = ~((1 << 31) - 4)
"""All bits of a pointer but those of an offset that leads forward."""

assert [_SETTLEMENT.numbers[name].word for name in ("action", "hasDelay", "delayMs")] == [0, 0, 1]
assert (_SETTLEMENT.numbers["action"].shift, _SETTLEMENT.slots) == (0, {"lease": 0, "id": 1, "error": 2})

_new: Final = tuple.__new__
"""Makes a named tuple of a plain one, in a third of the time that its class takes."""

# `_settled_body` and `_read_settled` take fields in this order.
_SETTLED = layout("Settled")
_OUTCOMES: Final = {int(outcome): outcome for outcome in Outcome}
_DIED = 1 << _SETTLED.numbers["died"].shift
assert (_SETTLED.data_words, _SETTLED.pointers, _SETTLED.numbers["dueMs"].word) == (2, 0, 1)
assert (_SETTLED.numbers["outcome"].word, _SETTLED.numbers["outcome"].shift, _SETTLED.numbers["died"].word) == (0, 0, 0)


def read_settle_request(params: Params, limits: Limits) -> SettleRequest:
    """
    Read the parameters of `settle`.

    Raises:
        InvalidRequest: there are too many entries, items or bytes, an id or a lease is not 16 bytes, or a span is too
            long.  Contents and errors beyond a limit are not copied.
        RemoteProtocolError: the parameters are malformed.
    """
    request = request_of(params, "Queue.settle", "SettleRequest")
    return SettleRequest(
        entries=read_entries(request, limits),
        adds=_adds(request, limits),
        all_or_nothing=request.flag("allOrNothing"),
    )


def read_entries(request: Fields, limits: Limits) -> list[Settlement]:
    """
    Read the entries of *request*; it raises what `read_settle_request` raises.

    A worker settles by the hundred, so those with near pointers and without an error are read here, in a third of the
    time.  `read_settlement` reads the others, and refuses those that are not sound.
    """
    entries = request.elements("entries", SETTLEMENTS_MAX)
    frame, step, to_pointers = entries.frame, entries.step, entries.data_words

    def read_any(index: int) -> Settlement:
        path = f"{request.path}entries[{index}]."
        return read_settlement(Fields(frame, entries.element(index), _SETTLEMENT, path), limits)

    if to_pointers < _SETTLEMENT.data_words or step - to_pointers < _SETTLEMENT.pointers:
        return [read_any(index) for index in range(entries.count)]
    words, data, end = frame.words, frame.data, entries.end * WORD
    found: list[Settlement] = []
    for index, at in enumerate(entries.words()):
        to_lease = at + to_pointers
        flags, lease, item, error = words[at], words[to_lease], words[to_lease + 1], words[to_lease + 2]
        action = _ACTIONS.get(flags & _BITS_16)
        lease_at = (to_lease + 1 + ((lease & _BITS_32) >> 2)) * WORD
        item_at = (to_lease + 2 + ((item & _BITS_32) >> 2)) * WORD if item else 0
        is_plain = (
            action is not None
            and not error
            and not flags & _HAS_DELAY
            and lease & _NOT_OFFSET == _ID_POINTER
            and (not item or item & _NOT_OFFSET == _ID_POINTER)
            and max(lease_at, item_at) + ID_BYTES <= end
            and frame.budget >= _ID_WORDS
        )
        if not is_plain:
            found.append(read_any(index))
            continue
        frame.budget -= _ID_WORDS if item else _ID_WORDS // 2
        item_id = data[item_at : item_at + ID_BYTES] if item else b""
        found.append(_new(Settlement, (data[lease_at : lease_at + ID_BYTES], item_id, action, None, "")))
    return found


def read_settlement(entry: Fields, limits: Limits) -> Settlement:
    """Read one entry of any form.  Raises what `read_settle_request` raises."""
    action = entry.choice("action", Action)
    delay = SpanMs(entry.number("delayMs")) if entry.flag("hasDelay") else None
    if delay is not None:
        name = "lease_ms" if action is Action.EXTEND else "delay_ms"
        limit = getattr(limits, name)
        if delay > limit:
            raise too_large(f"{entry.path}delayMs", value=delay, limit=limit, unit="ms", name=name)
    return Settlement(
        lease=entry.id("lease"),
        id=entry.id("id", optional=True),
        action=action,
        delay=delay,
        error=entry.text("error", ERROR_BYTES_MAX),
    )


def _adds(request: Fields, limits: Limits) -> list[AddTo]:
    adds: list[AddTo] = []
    count = size = 0
    for each in request.structs("adds", "AddTo", limits.items_per_add):
        at = each.struct[1] + _ITEMS
        items = items_at(each.frame, at, *each.struct[3:], limits, each.path) if at < each.struct[2] else []
        found = with_options(items, each)
        for index, item in enumerate(found):
            if item.options is not None and item.options.dedup_key:
                raise InvalidRequest(f"{each.path}options[{index}].dedupKey is set; a settle takes none")
        count += len(found)
        size += sum(len(item.contents) for item in found)
        for value, name, unit in ((count, "items_per_add", "items"), (size, "add_bytes", "bytes")):
            if value > getattr(limits, name):
                raise too_large(
                    f"items up to {each.path[:-1]}", value=value, limit=getattr(limits, name), unit=unit, name=name
                )
        adds.append(AddTo(each.text("queue", QUEUE_NAME_BYTES_MAX), found))
    return adds


def write_settle_request(request: SettleRequest) -> bytes:
    """Write the parameters of `settle`."""
    adds = [_add_fields(queue, items) for queue, items in request.adds]
    return layout("Queue.settle$Params").build(
        req={"entries": _entries_body(request.entries), "adds": adds, "allOrNothing": request.all_or_nothing}
    )


def _add_fields(queue: str, items: Sequence[NewItem]) -> dict[str, Any]:
    options = options_body(items)
    fields: dict[str, Any] = {"queue": queue, "items": items_body(items)}
    return fields if options is None else {**fields, "options": options}


def _entries_body(entries: Sequence[Settlement]) -> Body:
    """
    Build the list of *entries*.

    Those of single items without an error, which a worker sends by the hundred, are laid out by hand: after all structs
    the lease and the id of each.
    """
    words = [len(entries) << 2 | _SETTLEMENT.pointer]
    ids: list[bytes] = []
    # The pointer to a lease, and the word after it to an id.  Each entry is five words, and its ids are four.
    pointer = _ID_POINTER + (_SETTLEMENT_WORDS * len(entries) - _SETTLEMENT.data_words - 1 << 2)
    for lease, item_id, action, delay, error in entries:
        if error or len(lease) != ID_BYTES or len(item_id) != ID_BYTES:
            return layout("Settlement").list_body([_entry_fields(each) for each in entries])
        words += (
            (action, 0, pointer, pointer + _NEXT_POINTER, 0)
            if delay is None
            else (action | _HAS_DELAY, delay, pointer, pointer + _NEXT_POINTER, 0)
        )
        ids += lease, item_id
        pointer -= _NEXT_POINTER
    structs = _SETTLEMENT_WORDS * len(entries)
    return Body(
        STRUCT_LIST | structs << LIST_COUNT_SHIFT,
        [pack(f"<{1 + structs}Q", *words), b"".join(ids)],
        1 + structs + _ID_WORDS * len(entries),
    )


def _entry_fields(entry: Settlement) -> dict[str, Any]:
    """Return the fields of *entry*, as `Layout.build` takes them."""
    fields: dict[str, Any] = {"lease": entry.lease, "action": entry.action}
    if entry.id:
        fields["id"] = entry.id
    if entry.delay is not None:
        fields |= {"hasDelay": True, "delayMs": entry.delay}
    if entry.error:
        fields["error"] = entry.error
    return fields


def write_settle_response(response: SettleResponse) -> bytes:
    """Write the results of `settle`."""
    fields: dict[str, Any] = {"settled": _settled_body(response), "changed": response.changed}
    if response.added:
        fields["added"] = [{"ids": each.ids, "duplicates": each.duplicates} for each in response.added]
    return layout("Queue.settle$Results").build(resp=fields)


def _settled_body(response: SettleResponse) -> Body:
    # By hand, because there may be a thousand.
    return structs_body(
        2, 0, [((outcome | _DIED if died else outcome, due), ()) for outcome, died, due in response.settled]
    )


def read_settle_response(results: Results) -> SettleResponse:
    """
    Read the results of `settle`.

    Raises:
        RemoteProtocolError: the results are malformed.
    """
    found = fields_of(results.content, "Queue.settle$Results").request("SettleResponse")
    return SettleResponse(_read_settled(found), _read_added(found), found.flag("changed"))


def _read_settled(response: Fields) -> list[Settled]:
    """Read the outcomes, by hand because there may be a thousand."""
    settled = response.elements("settled")
    frame = settled.frame
    frame.spend(settled.count)
    if settled.data_words < _SETTLED.data_words:
        found = [_SETTLED.values(frame, settled.element(index)) for index in range(settled.count)]
        return [Settled(answered(each["outcome"], Outcome), each["died"], WallMs(each["dueMs"])) for each in found]
    words = frame.words
    results: list[Settled] = []
    for at in settled.words():
        number = words[at] & _BITS_16
        outcome = _OUTCOMES.get(number)
        if outcome is None:
            outcome = answered(number, Outcome)
        results.append(_new(Settled, (outcome, bool(words[at] & _DIED), words[at + 1])))
    return results


def _read_added(response: Fields) -> list[AddResponse]:
    added = response.elements("added")
    added.frame.spend(added.count)
    found = [layout("AddResponse").values(added.frame, added.element(index)) for index in range(added.count)]
    return [AddResponse(each["ids"], tuple(each["duplicates"])) for each in found]


DEAD_LETTERS_RESPONSE = layout("Queue.deadLetters$Results").build(queue=Body(CAPABILITY, [], 0))
"""The results of `deadLetters`: a pointer to the first capability."""


def write_dead_letters_request() -> bytes:
    """Write the empty parameters of `deadLetters`."""
    return layout("Queue.deadLetters$Params").build()
