"""The parameters and results of `settle`."""

from typing import Any, Final

from queueber.api.fields import Fields, answered, request_of, values_of
from queueber.api.options import options_fields, with_options
from queueber.api.queue_types import AddResponse, SettleRequest, SettleResponse
from queueber.api.requests import item_fields, items_at
from queueber.capnp.builder import BYTE_LIST, CAPABILITY, LIST_COUNT_SHIFT, Body, structs_body
from queueber.capnp.layout import layout
from queueber.capnp.reader import WORD
from queueber.errors import InvalidRequest, too_large
from queueber.limits import ERROR_BYTES_MAX, ID_BYTES, QUEUE_NAME_BYTES_MAX, SETTLEMENTS_MAX, Limits
from queueber.rpc.messages import Params, Results
from queueber.units import SpanMs, WallMs
from queueber.values import Action, AddTo, Outcome, Settled, Settlement

_ITEMS = layout("AddTo").slots["items"]

# `read_entries` reads fields at these places.
_SETTLEMENT = layout("Settlement")
_ACTIONS: Final = {int(action): action for action in Action}
_BITS_16, _BITS_32 = (1 << 16) - 1, (1 << 32) - 1
_HAS_DELAY: Final = 1 << _SETTLEMENT.numbers["hasDelay"].shift
_ID_WORDS: Final = 2 * ID_BYTES // WORD
_ID_POINTER: Final = BYTE_LIST | ID_BYTES << LIST_COUNT_SHIFT
_NOT_OFFSET: Final = ~((1 << 31) - 4)
"""All bits of a pointer but those of an offset that leads forward."""

assert [_SETTLEMENT.numbers[name].word for name in ("action", "hasDelay")] == [0, 0]
assert (_SETTLEMENT.numbers["action"].shift, _SETTLEMENT.slots) == (0, {"lease": 0, "id": 1, "error": 2})

_new: Final = tuple.__new__
"""Makes a named tuple of a plain one, in a third of the time that its class takes."""

# `_settled_body` lays fields out in this order.
_SETTLED = layout("Settled")
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
    entries = []
    for lease, item_id, action, delay, error in request.entries:
        fields: dict[str, Any] = {"lease": lease, "action": action}
        if item_id:
            fields["id"] = item_id
        if delay is not None:
            fields |= {"hasDelay": True, "delayMs": delay}
        if error:
            fields["error"] = error
        entries.append(fields)
    adds = [
        {"queue": queue, "items": item_fields(items), "options": options_fields(items)} for queue, items in request.adds
    ]
    return layout("Queue.settle$Params").build(
        req={"entries": entries, "adds": adds, "allOrNothing": request.all_or_nothing}
    )


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
    found = values_of(results.content, "Queue.settle$Results")["resp"] or {}
    return SettleResponse(
        settled=[
            Settled(answered(each["outcome"], Outcome), each["died"], WallMs(each["dueMs"]))
            for each in found.get("settled", ())
        ],
        added=[AddResponse(each["ids"], tuple(each["duplicates"])) for each in found.get("added", ())],
        changed=found.get("changed", False),
    )


DEAD_LETTERS_RESPONSE = layout("Queue.deadLetters$Results").build(queue=Body(CAPABILITY, [], 0))
"""The results of `deadLetters`: a pointer to the first capability."""


def write_dead_letters_request() -> bytes:
    """Write the empty parameters of `deadLetters`."""
    return layout("Queue.deadLetters$Params").build()
