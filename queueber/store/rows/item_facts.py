"""
Structs of items with facts: those that came back, were added with options, or died.

Most of these items have only come back, so their facts are numbers, and after
a failure an error; or they were added with headers, most often the same as
others.  These forms are packed and unpacked with `struct`; all others go through
the layouts.
"""

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from queueber.broker.model import Facts, new_tuple
from queueber.capnp.builder import BYTE_LIST, LIST_COUNT_SHIFT, PADDING, STRUCT_LIST, Body, segment, struct_pointer
from queueber.capnp.layout import layout
from queueber.capnp.reader import WORD, single_segment, struct_list_at
from queueber.errors import RemoteProtocolError
from queueber.units import WallMs
from queueber.values import Death, DeathReason, Header

_ITEM: Final = layout("StoredItem")
_FACTS: Final = layout("ItemFacts")

_FACTS_WORDS: Final = 4
assert (_ITEM.data_words, _ITEM.slots) == (2, {"contents": 0, "facts": 1})
assert [_ITEM.numbers[name].word for name in ("addedAtMs", "attempts")] == [0, 1]
assert _FACTS.data_words == _FACTS_WORDS
assert {name: (place.word, place.shift) for name, place in _FACTS.numbers.items()} == {
    "failures": (0, 0),
    "deathReason": (0, 32),
    "firstLeasedAtMs": (1, 0),
    "expiresAtMs": (2, 0),
    "diedAtMs": (3, 0),
}
assert _FACTS.slots == {"lastError": 0, "headers": 1, "reserved5": 2, "diedIn": 3}

_HEADER: Final = layout("StoredHeader")

_HEADERS_KEPT: Final = 128
"""The most lists of headers that stay encoded, and that stay decoded: about 2 MiB of each."""

_HEAD: Final = Struct("<Q2Q2Q")
"""The root pointer, the integers, and the pointers to the contents and to the facts."""

_NUMBERS: Final = Struct("<I4x3Q")
"""The facts of an item that never died: failures, first lease, end; and no time of death."""

_ROOT: Final = struct_pointer(2, 2)
_CONTENTS: Final = BYTE_LIST | 1 << 2
"""The pointer to the contents, which follow the pointer to the facts."""

_WITH_ERROR: Final = Struct("<I4x4Q")
"""The facts of `_NUMBERS`, and the pointer to the error, which follows."""

_WITH_HEADERS: Final = Struct("<I4x3Q4Q")
"""The facts of `_NUMBERS`, and all pointers.  Only the pointer to the headers is not null; they follow."""

_NUMBERS_POINTER: Final = struct_pointer(_FACTS_WORDS, 0)
_WITH_ERROR_POINTER: Final = struct_pointer(_FACTS_WORDS, 1)
_WITH_HEADERS_POINTER: Final = _FACTS.pointer
_LOW_HALF: Final = 0xFFFFFFFF
_HIGH_HALF: Final = _LOW_HALF << 32
"""The bits of a struct pointer that say how large the struct is."""

_TO_HEADERS: Final = _FACTS.pointers - 1 - _FACTS.slots["headers"] << 2
"""The words from the pointer to the headers to the end of the facts, as a part of the pointer."""

_HEADERS: Final = STRUCT_LIST + _TO_HEADERS
_LIST_MASK: Final = (1 << LIST_COUNT_SHIFT) - 1
_DISTANCE_SHIFT: Final = 2


def build_item(contents: bytes, added_at: int, attempts: int, facts: Facts) -> bytes:
    """Return the struct of an item with *facts*."""
    failures, first_leased_at, last_error, headers, expires_at, death = facts
    if death is not None or (headers and last_error):
        fields = {"contents": contents, "addedAtMs": added_at, "attempts": attempts, "facts": _fields(facts)}
        return _ITEM.build(**fields)
    size = len(contents)
    distance = -(-size // WORD) << _DISTANCE_SHIFT
    pointer = _CONTENTS | size << LIST_COUNT_SHIFT
    padding = PADDING[size % WORD]
    if headers:
        head = _HEAD.pack(_ROOT, added_at, attempts, pointer, _WITH_HEADERS_POINTER | distance)
        body, written = _build_headers(headers)
        numbers = _WITH_HEADERS.pack(failures, first_leased_at, expires_at, 0, 0, body, 0, 0)
        return b"".join((head, contents, padding, numbers, written))
    if not last_error:
        head = _HEAD.pack(_ROOT, added_at, attempts, pointer, _NUMBERS_POINTER | distance)
        return b"".join((head, contents, padding, _NUMBERS.pack(failures, first_leased_at, expires_at, 0)))
    error = last_error.encode()
    head = _HEAD.pack(_ROOT, added_at, attempts, pointer, _WITH_ERROR_POINTER | distance)
    numbers = _WITH_ERROR.pack(failures, first_leased_at, expires_at, 0, BYTE_LIST | len(error) << LIST_COUNT_SHIFT)
    return b"".join((head, contents, padding, numbers, error, PADDING[len(error) % WORD]))


@lru_cache(maxsize=_HEADERS_KEPT)
def _build_headers(headers: tuple[Header, ...]) -> tuple[int, bytes]:
    """Return the pointer to the list of *headers*, which follows the pointers of the facts, and the list."""
    body = _HEADER.list_body(_header_fields(headers))
    return body.pointer + _TO_HEADERS, b"".join(body.pieces)


@lru_cache(maxsize=_HEADERS_KEPT)
def _read_headers(pointer: int, written: bytes) -> tuple[Header, ...]:
    """Return the headers in the list *written*, to which *pointer* leads."""
    frame = single_segment(segment(Body(pointer - _TO_HEADERS, [written], 0)))
    found = struct_list_at(frame, 0, 0, frame.end)
    found.frame.spend(found.count)
    headers = [_HEADER.values(found.frame, found.element(index)) for index in range(found.count)]
    return tuple((_text(each["name"]), each["value"]) for each in headers)


class ItemReader:
    """The reader of items' structs, with facts or without."""

    def read(self, struct: bytes, /) -> tuple[bytes, WallMs, int, Facts | None]:
        """
        Return contents, time of the add, attempts and facts.

        Raises:
            RemoteProtocolError: *struct* is not a valid segment, or has facts that this version does not know.
        """
        if len(struct) >= _HEAD.size + _NUMBERS.size:
            root, added_at, attempts, contents, pointer = _HEAD.unpack_from(struct)
            size = contents >> LIST_COUNT_SHIFT
            words = -(-size // WORD)
            start = _HEAD.size
            if (
                root == _ROOT
                and contents & _LIST_MASK == _CONTENTS
                and pointer & _LOW_HALF == words << _DISTANCE_SHIFT
                and (found := _read_usual(struct, start + words * WORD, pointer & _HIGH_HALF)) is not None
            ):
                return struct[start : start + size], added_at, attempts, found
        fields = _ITEM.read(struct)
        facts = None if fields["facts"] is None else _facts(fields["facts"])
        return fields["contents"], fields["addedAtMs"], fields["attempts"], facts


def _read_usual(struct: bytes, at: int, kind: int) -> Facts | None:
    """Return the facts at *at* if they have a usual form; *kind* is the pointer to them without its distance."""
    if kind == _NUMBERS_POINTER and len(struct) == at + _NUMBERS.size:
        failures, first_leased_at, expires_at, died_at = _NUMBERS.unpack_from(struct, at)
        if not died_at:
            return new_tuple(Facts, (failures, first_leased_at, "", (), expires_at, None))
    elif kind == _WITH_ERROR_POINTER and len(struct) >= at + _WITH_ERROR.size:
        failures, first_leased_at, expires_at, died_at, error = _WITH_ERROR.unpack_from(struct, at)
        at += _WITH_ERROR.size
        size = error >> LIST_COUNT_SHIFT
        if not died_at and error & _LIST_MASK == BYTE_LIST and at + size <= len(struct):
            text = _text(struct[at : at + size])
            return new_tuple(Facts, (failures, first_leased_at, text, (), expires_at, None))
    elif kind == _WITH_HEADERS_POINTER and len(struct) > at + _WITH_HEADERS.size:
        failures, first_leased_at, expires_at, died_at, error, pointer, *others = _WITH_HEADERS.unpack_from(struct, at)
        if not (died_at or error or any(others)) and pointer & _LIST_MASK == _HEADERS:
            headers = _read_headers(pointer, struct[at + _WITH_HEADERS.size :])
            return new_tuple(Facts, (failures, first_leased_at, "", headers, expires_at, None))
    return None


def _fields(facts: Facts) -> dict[str, Any]:
    death = facts.death or Death(DeathReason.NONE, WallMs(0), "")
    found = {
        "failures": facts.failures,
        "firstLeasedAtMs": facts.first_leased_at,
        "lastError": facts.last_error.encode(),
        "headers": _header_fields(facts.headers),
        "expiresAtMs": facts.expires_at,
        "deathReason": death.reason,
        "diedAtMs": death.died_at,
        "diedIn": death.queue.encode(),
    }
    # An absent pointer takes no room, an empty list does.
    return {name: value for name, value in found.items() if value}


def _header_fields(headers: Sequence[Header]) -> list[dict[str, bytes]]:
    return [{"name": name.encode(), "value": value} for name, value in headers]


def _facts(fields: dict[str, Any]) -> Facts:
    reason = fields["deathReason"]
    if reason not in DeathReason.__members__.values():
        raise RemoteProtocolError(f"it died of {reason}, a reason that this Queueber does not know")
    death = Death(DeathReason(reason), fields["diedAtMs"], _text(fields["diedIn"])) if reason else None
    return Facts(
        failures=fields["failures"],
        first_leased_at=fields["firstLeasedAtMs"],
        last_error=_text(fields["lastError"]),
        headers=tuple((_text(header["name"]), header["value"]) for header in fields["headers"]),
        expires_at=fields["expiresAtMs"],
        death=death,
    )


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
