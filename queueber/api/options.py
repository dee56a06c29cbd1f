"""Options of items to add, headers, and the facts of delivered items: read and written."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from queueber.api.fields import Fields, answered
from queueber.api.queue_types import DeliveryFacts
from queueber.capnp.builder import Body
from queueber.capnp.layout import layout
from queueber.capnp.reader import Frame, StructAt, struct_list_at
from queueber.errors import InvalidRequest, too_large
from queueber.limits import DEDUP_KEY_BYTES_MAX, HEADER_BYTES_MAX, HEADER_NAME_BYTES_MAX, HEADERS_MAX
from queueber.units import WallMs
from queueber.values import Death, DeathReason, Header, ItemOptions, NewItem

_NONE: Final = ItemOptions()


def with_options(items: list[NewItem], request: Fields) -> list[NewItem]:
    """
    Return *items* with the options in the list of *request*: those in the same places.

    Raises:
        InvalidRequest: there are more options than items, or an option exceeds a limit.
        RemoteProtocolError: the options are malformed.
    """
    found = [_read_options(each) for each in request.structs("options", "ItemOptions", len(items))]
    return [
        item if options == _NONE else item._replace(options=options)
        for item, options in zip(items, found, strict=False)
    ] + items[len(found) :]


def _read_options(fields: Fields) -> ItemOptions:
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


def options_fields(items: Sequence[NewItem]) -> list[dict[str, Any]]:
    """Return the fields of the options of *items*, as `Layout.build` takes them; none if no item has any."""
    last = max((index for index, item in enumerate(items, 1) if item.options is not None), default=0)
    return [{} if item.options is None else _option_fields(item.options) for item in items[:last]]


def _option_fields(options: ItemOptions) -> dict[str, Any]:
    return {
        "headers": headers_fields(options.headers),
        "dedupKey": options.dedup_key,
        "untilRemoved": options.until_removed,
        "expiresAtMs": options.expires_at,
        "dueMs": options.due,
    }


def headers_fields(headers: Sequence[Header]) -> list[dict[str, Any]]:
    """Return the fields of *headers*, as `Layout.build` takes them."""
    return [{"name": name, "value": value} for name, value in headers]


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
        fields["headers"] = headers_fields(facts.headers)
    if facts.death is not None:
        reason, died_at, queue = facts.death
        fields["death"] = {"reason": reason, "diedAtMs": died_at, "queue": queue}
    return fields


def facts_body(facts: Sequence[DeliveryFacts]) -> Body:
    """Build the list of *facts*."""
    return layout("DeliveryFacts").list_body([facts_fields(each) for each in facts])


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
    facts = layout("DeliveryFacts")
    return tuple(facts_from(facts.values(found.frame, found.element(index))) for index in range(found.count))


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
