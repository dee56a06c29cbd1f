"""The parameters and results of `settle`."""

from typing import Any

from queueber.api.fields import Fields, answered, request_of, values_of
from queueber.api.options import options_fields, with_options
from queueber.api.queue_types import AddResponse, SettleRequest, SettleResponse
from queueber.api.requests import item_fields, items_at
from queueber.capnp.builder import CAPABILITY, Body, structs_body
from queueber.capnp.layout import layout
from queueber.errors import InvalidRequest, too_large
from queueber.limits import ERROR_BYTES_MAX, QUEUE_NAME_BYTES_MAX, SETTLEMENTS_MAX, Limits
from queueber.rpc.messages import Params, Results
from queueber.units import SpanMs, WallMs
from queueber.values import Action, AddTo, Outcome, Settled, Settlement

_ITEMS = layout("AddTo").slots["items"]

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
        entries=[_settlement(each, limits) for each in request.structs("entries", "Settlement", SETTLEMENTS_MAX)],
        adds=_adds(request, limits),
        all_or_nothing=request.flag("allOrNothing"),
    )


def _settlement(entry: Fields, limits: Limits) -> Settlement:
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
        RemoteProtocolError: the results are malformed, or an outcome is unknown.
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
