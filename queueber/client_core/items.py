"""Items to add with options, and settlements: checked arguments of the calls that take many of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from queueber import api
from queueber.api import AddTo, ItemOptions, NewItem, Settlement
from queueber.client_core.arguments import SPAN_MS_MAX, buffer, elements, flag, identifier, instance, integer, utf_8
from queueber.errors import InvalidRequest, too_large
from queueber.fixed_limits import (
    DEDUP_KEY_BYTES_MAX,
    ERROR_BYTES_MAX,
    HEADER_BYTES_MAX,
    HEADER_NAME_BYTES_MAX,
    HEADERS_MAX,
    ID_BYTES,
    SETTLEMENTS_MAX,
)
from queueber.units import SpanMs, WallMs

if TYPE_CHECKING:
    from typing_extensions import Buffer

_POINT_MS_MAX = SPAN_MS_MAX


def new_item(
    contents: Buffer,
    *,
    delay_ms: int = 0,
    due_ms: int = 0,
    expires_ms: int = 0,
    headers: Mapping[str, Buffer] | None = None,
    dedup_key: Buffer = b"",
    until_removed: bool = False,
) -> NewItem:
    """
    Return an item for `Queue.add_items`, or for the adds of `Queue.settle`.

    Args:
        contents: its bytes.
        delay_ms: the time from the add until it becomes due.
        due_ms: when it becomes due, in milliseconds since the Unix epoch by the server's clock; 0: after the delay.
        expires_ms: when it expires if it has not been delivered, likewise; 0: never.  The server refuses a time that
            has passed, or that is not after the time at which the item becomes due.
        headers: at most 64, with at most 4 KiB of names and values together; delivered with the item.
        dedup_key: at most 255 bytes.  A second item with this key is not added within the queue's window.
        until_removed: the key is remembered as long as the item exists, instead of for the window.

    Raises:
        InvalidRequest: an argument is of the wrong type or exceeds a limit.
    """
    options = ItemOptions(
        headers=_headers({} if headers is None else instance("headers", headers, Mapping, "a mapping")),
        dedup_key=_at_most("dedup_key", buffer("dedup_key", dedup_key), DEDUP_KEY_BYTES_MAX),
        until_removed=flag("until_removed", until_removed),
        expires_at=WallMs(integer("expires_ms", expires_ms, 0, _POINT_MS_MAX, "ms")),
        due=WallMs(integer("due_ms", due_ms, 0, _POINT_MS_MAX, "ms")),
    )
    return NewItem(
        buffer("contents", contents),
        SpanMs(integer("delay_ms", delay_ms, 0, SPAN_MS_MAX, "ms")),
        None if options == ItemOptions() else options,
    )


def with_headers(item: NewItem, headers: Mapping[str, Buffer]) -> NewItem:
    """
    Return *item* with more headers; its own of the same names are kept.

    Raises:
        InvalidRequest: they exceed a limit together.
    """
    options = item.options or ItemOptions()
    return item._replace(options=options._replace(headers=_headers({**headers, **dict(options.headers)})))


def checked_items(name: str, items: Iterable[NewItem]) -> list[NewItem]:
    """
    Return *items* as a list.

    Raises:
        InvalidRequest: one is not a `NewItem`.
    """
    found = elements(name, items, "items made with new_item")
    return [instance(f"{name}[{at}]", item, NewItem, "made with new_item") for at, item in enumerate(found)]


def checked_settlements(entries: Iterable[Settlement]) -> list[Settlement]:
    """
    Return *entries* as a list, with bytes for buffers.

    Raises:
        InvalidRequest: there are too many, or one is of the wrong type or exceeds a limit.
    """
    # The usual case first: formatting the argument's name costs more than the check.
    checked = [each if _is_plain(each) else _settlement(f"entries[{at}]", each) for at, each in enumerate(entries)]
    if len(checked) > SETTLEMENTS_MAX:
        raise too_large("entries", value=len(checked), limit=SETTLEMENTS_MAX, unit="entries")
    return checked


def _is_plain(entry: Settlement) -> bool:
    """Return whether *entry* needs no conversion: it has neither delay nor error, and its ids are bytes."""
    return (
        type(entry) is Settlement
        and type(entry.lease) is type(entry.id) is bytes
        and len(entry.lease) == len(entry.id) == ID_BYTES
        and type(entry.action) is api.Action
        and entry.delay is None
        and entry.error == ""
    )


def settle_content(checked: list[Settlement], adds: Iterable[AddTo], *, all_or_nothing: bool) -> bytes:
    """
    Write the parameters of `settle`, with *checked* entries.

    Raises:
        InvalidRequest: an argument is of the wrong type or exceeds a limit.
    """
    additions = [
        AddTo(
            utf_8(f"adds[{at}].queue", instance(f"adds[{at}]", each, AddTo, "an AddTo").queue),
            checked_items(f"adds[{at}].items", each.items),
        )
        for at, each in enumerate(elements("adds", adds, "a list of AddTo"))
    ]
    return api.write_settle_request(
        api.SettleRequest(checked, additions, all_or_nothing=flag("all_or_nothing", all_or_nothing))
    )


def _settlement(name: str, entry: Settlement) -> Settlement:
    lease, item_id, action, delay, error = instance(name, entry, Settlement, "a Settlement")
    return Settlement(
        identifier(f"{name}.lease", lease),
        identifier(f"{name}.id", item_id) if item_id else b"",
        instance(f"{name}.action", action, api.Action, "an Action"),
        None if delay is None else SpanMs(integer(f"{name}.delay", delay, 0, SPAN_MS_MAX, "ms")),
        checked_error(f"{name}.error", error),
    )


def checked_error(name: str, value: str) -> str:
    """
    Return *value*, the error of a settlement.

    Raises:
        InvalidRequest: *value* is not text, or longer than 4 KiB of UTF-8.
    """
    found = utf_8(name, value)
    _at_most(name, found.encode(), ERROR_BYTES_MAX)
    return found


def _headers(headers: Mapping[str, Any]) -> tuple[tuple[str, bytes], ...]:
    if len(headers) > HEADERS_MAX:
        raise too_large("headers", value=len(headers), limit=HEADERS_MAX, unit="headers")
    found = tuple(
        (utf_8("the name of one of headers", name), buffer(f"headers[{name[:20]!r}]", value))
        for name, value in headers.items()
    )
    for name, _ in found:
        if not name:
            raise InvalidRequest("the name of one of headers is empty")
        _at_most(f"the name in headers[{name[:20]!r}]", name.encode(), HEADER_NAME_BYTES_MAX)
    total = sum(len(name.encode()) + len(value) for name, value in found)
    if total > HEADER_BYTES_MAX:
        raise too_large("headers", value=total, limit=HEADER_BYTES_MAX, unit="bytes")
    return found


def _at_most(name: str, value: bytes, most: int) -> bytes:
    if len(value) > most:
        raise too_large(name, value=len(value), limit=most, unit="bytes")
    return value
