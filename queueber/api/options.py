"""Options of items to add, headers, and the facts of delivered items: read and written."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from queueber.api.fields import Fields, answered
from queueber.api.queue_types import DeliveryFacts
from queueber.capnp.builder import Body, data_body, structs_body
from queueber.capnp.layout import layout
from queueber.capnp.reader import Frame, ListAt, StructAt, bytes_at, struct_list_at
from queueber.errors import InvalidRequest, too_large
from queueber.fixed_limits import DEDUP_KEY_BYTES_MAX, HEADER_BYTES_MAX, HEADER_NAME_BYTES_MAX, HEADERS_MAX
from queueber.units import WallMs
from queueber.values import Death, DeathReason, Header, ItemOptions, NewItem

_NONE: Final = ItemOptions()

_HEADERS_KEPT: Final = 128
"""The most lists of headers that stay encoded: about 2 MiB."""

# Options, and the facts of items that never failed, are read and written in this order.
_FACTS = layout("DeliveryFacts")
_HEADER = layout("Header")
_OPTIONS = layout("ItemOptions")
_LOSSES_SHIFT: Final = _FACTS.numbers["losses"].shift
_BITS_32: Final = (1 << 32) - 1

_new: Final = tuple.__new__
"""Makes a named tuple of a plain one, in a third of the time that its class takes."""

assert (_FACTS.data_words, _FACTS.pointers, _FACTS.numbers["firstLeasedAtMs"].word) == (2, 3, 1)
assert (_FACTS.numbers["failures"].word, _FACTS.numbers["failures"].shift, _FACTS.numbers["losses"].word) == (0, 0, 0)
assert _FACTS.slots == {"lastError": 0, "headers": 1, "death": 2}
assert (_HEADER.data_words, _HEADER.slots) == (0, {"name": 0, "value": 1})
assert [_OPTIONS.numbers[name].word for name in ("untilRemoved", "expiresAtMs", "dueMs")] == [0, 1, 2]
assert (_OPTIONS.numbers["untilRemoved"].shift, _OPTIONS.slots) == (0, {"headers": 0, "dedupKey": 1})


def with_options(items: list[NewItem], request: Fields) -> list[NewItem]:
    """
    Return *items* with the options in the list of *request*: those in the same places.

    Raises:
        InvalidRequest: there are more options than items, or an option exceeds a limit.
        RemoteProtocolError: the options are malformed.
    """
    found = request.elements("options", len(items))
    read = [_options_at(request, found, index) for index in range(found.count)]
    return [
        item if options == _NONE else item._replace(options=options) for item, options in zip(items, read, strict=False)
    ] + items[found.count :]


def _options_at(request: Fields, found: ListAt, index: int) -> ItemOptions:
    """Return the options of the item *index*.  Headers alone, as of a task, take a third of the time of `Fields`."""
    frame, struct = found.frame, found.element(index)
    data, pointers, stop, start, end = struct
    words = frame.words
    if pointers < stop and not any(words[data:pointers]) and not any(words[pointers + 1 : stop]):
        budget = frame.budget
        headers = struct_list_at(frame, pointers, start, end, HEADERS_MAX)
        if headers.count <= HEADERS_MAX and (usual := _usual_headers(headers)) is not None:
            return _new(ItemOptions, (usual, b"", False, 0, 0))
        frame.budget = budget
    fields = Fields(frame, struct, _OPTIONS, f"{request.path}options[{index}].")
    return ItemOptions(
        headers=_read_headers(fields),
        dedup_key=fields.data("dedupKey", DEDUP_KEY_BYTES_MAX),
        until_removed=fields.flag("untilRemoved"),
        expires_at=WallMs(fields.number("expiresAtMs")),
        due=WallMs(fields.number("dueMs")),
    )


def _read_headers(fields: Fields) -> tuple[Header, ...]:
    total = 0
    headers: list[Header] = []
    for each in fields.structs("headers", "Header", HEADERS_MAX):
        name = each.text("name", HEADER_NAME_BYTES_MAX)
        if not name:
            raise InvalidRequest(f"{each.path}name is empty; it must be 1 to {HEADER_NAME_BYTES_MAX} bytes")
        value = each.data("value", HEADER_BYTES_MAX)
        total += len(name.encode()) + len(value)
        if total > HEADER_BYTES_MAX:
            raise too_large(f"headers up to {each.path[:-1]}", value=total, limit=HEADER_BYTES_MAX, unit="bytes")
        headers.append((name, value))
    return tuple(headers)


def _usual_headers(found: ListAt) -> tuple[Header, ...] | None:
    """
    Return the headers in the list *found*, whose count the caller has checked.

    Returns None if they have the form of another schema, are not UTF-8, or exceed a limit.  Nothing beyond a limit is
    copied.  The caller then reads them one by one.
    """
    frame, start, end = found.frame, found.start, found.end
    if found.step - found.data_words < _HEADER.pointers:
        return None if found.count else ()
    data, room = frame.data, HEADER_BYTES_MAX
    headers: list[Header] = []
    for body in found.words():
        at = body + found.data_words
        first, last = bytes_at(frame, at, start, end)
        value_first, value_last = bytes_at(frame, at + 1, start, end)
        size = last - first - 1
        room -= size + value_last - value_first
        if not 0 < size <= HEADER_NAME_BYTES_MAX or room < 0 or data[last - 1]:
            return None
        try:
            headers.append((data[first : last - 1].decode(), data[value_first:value_last]))
        except UnicodeDecodeError:
            return None
    return tuple(headers)


def options_body(items: Sequence[NewItem]) -> Body | None:
    """Build the list of the options of *items*, as far as the last item that has any; None if no item has."""
    last = max((index for index, item in enumerate(items, 1) if item.options is not None), default=0)
    if not last:
        return None
    return structs_body(_OPTIONS.data_words, _OPTIONS.pointers, [_option_sections(item) for item in items[:last]])


def _option_sections(item: NewItem) -> tuple[Sequence[int], Sequence[Body | None]]:
    headers, dedup_key, until_removed, expires_at, due = item.options or _NONE
    return (until_removed, expires_at, due), (
        _headers_body(headers) if headers else None,
        data_body(dedup_key) if dedup_key else None,
    )


def facts_fields(facts: DeliveryFacts) -> dict[str, Any]:
    """Return the fields of *facts*, as `Layout.build` takes them."""
    fields: dict[str, Any] = {
        "failures": facts.failures,
        "losses": facts.losses,
        "firstLeasedAtMs": facts.first_leased_at,
    }
    if facts.last_error:
        fields["lastError"] = facts.last_error
    if facts.headers:
        fields["headers"] = _headers_body(facts.headers)
    if facts.death is not None:
        reason, died_at, queue = facts.death
        fields["death"] = {"reason": reason, "diedAtMs": died_at, "queue": queue}
    return fields


def facts_body(facts: Sequence[DeliveryFacts]) -> Body:
    """Build the list of *facts*."""
    return structs_body(_FACTS.data_words, _FACTS.pointers, [_facts_sections(each) for each in facts])


def _facts_sections(facts: DeliveryFacts) -> tuple[Sequence[int], Sequence[Body | None]]:
    """
    Return the data and the pointers of *facts*.

    Those of an item that never failed, which a poll may return by the hundred, are laid out by hand.
    """
    failures, losses, first_leased_at, last_error, headers, death = facts
    if last_error or death is not None:
        return _FACTS.sections(facts_fields(facts))
    pointers = (None, _headers_body(headers) if headers else None, None)
    return (failures | losses << _LOSSES_SHIFT, first_leased_at), pointers


@lru_cache(maxsize=_HEADERS_KEPT)
def _headers_body(headers: tuple[Header, ...]) -> Body:
    """Build the list of *headers*, which most items of a queue share."""
    body = _HEADER.list_body([{"name": name, "value": value} for name, value in headers])
    return Body(body.pointer, [b"".join(body.pieces)], body.words)


def facts_at(frame: Frame, struct: StructAt, slot: int) -> tuple[DeliveryFacts, ...]:
    """
    Read the list of facts at the pointer *slot* of *struct*; none if it is absent.

    Raises:
        RemoteProtocolError: the list is malformed.
    """
    at = struct[1] + slot
    if at >= struct[2] or not frame.words[at]:
        return ()
    found = struct_list_at(frame, at, struct[3], struct[4])
    found.frame.spend(found.count)
    return tuple([_facts_of(found.frame, found.element(index)) for index in range(found.count)])


def _facts_of(frame: Frame, struct: StructAt) -> DeliveryFacts:
    """Read one element.  That of an item that never failed, as most are, takes a fifth of the time of the layouts."""
    data, pointers, stop, start, end = struct
    words = frame.words
    is_whole = pointers - data >= _FACTS.data_words and stop - pointers >= _FACTS.pointers
    if is_whole and not words[pointers] and not words[pointers + 2]:
        budget = frame.budget
        found = struct_list_at(frame, pointers + 1, start, end)
        found.frame.spend(found.count)
        headers = _usual_headers(found)
        if headers is not None:
            counts = words[data]
            return _new(DeliveryFacts, (counts & _BITS_32, counts >> _LOSSES_SHIFT, words[data + 1], "", headers, None))
        frame.budget = budget
    return facts_from(_FACTS.values(frame, struct))


def facts_from(found: Mapping[str, Any] | None) -> DeliveryFacts:
    """Return the facts in the values that `Layout.values` has read."""
    if found is None:
        return DeliveryFacts()
    death = found["death"]
    return DeliveryFacts(
        failures=found["failures"],
        losses=found["losses"],
        first_leased_at=WallMs(found["firstLeasedAtMs"]),
        last_error=found["lastError"],
        headers=tuple((each["name"], each["value"]) for each in found["headers"]),
        death=None
        if death is None
        else Death(answered(death["reason"], DeathReason), WallMs(death["diedAtMs"]), death["queue"]),
    )
