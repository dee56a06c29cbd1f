"""
The parameters of the queue's methods: read by a server, written by a client.

The `read_…` functions take the `Params` of a call and raise
`RemoteProtocolError` if they are malformed: the peer cannot be trusted then, and
the connection must be aborted.  `InvalidRequest` is for well-formed requests
that exceed a limit.

Each span has a field in seconds and one in milliseconds, which replaces the
seconds unless it is 0.  Writers fill both, so that older servers understand them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import repeat, zip_longest
from typing import TYPE_CHECKING, Final

from queueber.api.fields import Fields
from queueber.api.options import options_body, with_options
from queueber.api.queue_types import AddRequest, ExtendRequest, PollRequest, RemoveRequest
from queueber.capnp.builder import BYTE_LIST, LIST_COUNT_SHIFT, Body, data_body, struct_body, structs_body
from queueber.capnp.layout import Layout, earlier_layout, layout
from queueber.capnp.reader import WORD, Frame, ListAt, StructAt, bytes_at, slot_at, struct_at, struct_list_at, text_at
from queueber.errors import InvalidRequest, too_large
from queueber.rpc.events import Calls
from queueber.rpc.messages import Params
from queueber.units import SpanMs, seconds_rounded_up, span_from
from queueber.values import NewItem

if TYPE_CHECKING:
    from queueber.limits import Limits

_ADD = layout("AddRequest")
_ITEM = layout("Item")
_REMOVE = layout("RemoveRequest")
_POLL = layout("PollRequest")
_EXTEND = layout("ExtendRequest")
_QUEUE_PARAMS = layout("Broker.queue$Params")

_PLAIN_POLL = earlier_layout("PollRequest", pointers=0)
"""The request before there were sessions."""

_ITEMS = _ADD.slots["items"]
_SESSION = _POLL.slots["session"]
_CONTENTS = _ITEM.slots["contents"]
_SECS = _ITEM.numbers["visibilityTimeoutSecs"].word
_MS = _ITEM.numbers["visibilityTimeoutMs"].word

# `write_add_request` lays fields out in this order.
assert _ADD.slots == {"items": 0, "requestId": 1, "options": 2}
assert (_ITEM.data_words, _SECS, _MS, _ITEM.slots) == (2, 0, 1, {"contents": 0})

_AT_ONCE = SpanMs(0)

_BITS_32 = (1 << 32) - 1
_NEAR_BYTES = 7 << 32 | 1 << 31 | 3
"""The bits of a pointer that are those of `BYTE_LIST` if it leads forward, within its segment, to bytes."""

new_item: Final = partial(tuple.__new__, NewItem)
"""Makes an item of a plain tuple, in a third of the time that its class takes."""

_REQ = 0
"""The pointer field of the only parameter of each method of a queue."""

assert all(layout(f"Queue.{method}$Params").slots == {"req": _REQ} for method in ("add", "remove", "poll", "extend"))


def read_add_request(params: Params, limits: Limits) -> AddRequest:
    """
    Read the parameters of `add`.

    Raises:
        InvalidRequest: there are too many items, or too many bytes in one or in
            all; or an option or the id of the request exceeds a limit.  Contents
            beyond a limit are not copied.
        RemoteProtocolError: the parameters are malformed.
    """
    frame, request = _request(params)
    at = request[1] + _ITEMS
    items = items_at(frame, at, request[3], request[4], limits) if at < request[2] else []
    if not any(frame.words[at + 1 : request[2]]):
        return AddRequest(items)
    fields = Fields(frame, request, _ADD)
    return AddRequest(with_options(items, fields), fields.id("requestId", optional=True))


def items_at(frame: Frame, at: int, start: int, end: int, limits: Limits, path: str = "") -> list[NewItem]:
    """
    Return the items in the list that the pointer at *at* leads to, without their options.

    Raises:
        InvalidRequest: there are too many items, or too many bytes in one or in
            all.  Contents beyond a limit are not copied.  *path* precedes the
            name of the field.
        RemoteProtocolError: the list is malformed.
    """
    items = struct_list_at(frame, at, start, end, limits.items_per_add)
    if items.count > limits.items_per_add:
        limit = limits.items_per_add
        raise too_large(f"{path}items", value=items.count, limit=limit, unit="items", name="items_per_add")
    # Each field of all items is read in one step.
    words, step, first, stop = items.frame.words, items.step, items.first, items.first + items.count * items.step
    seconds = words[first + _SECS : stop : step] if items.data_words > _SECS else ()
    ms = words[first + _MS : stop : step] if items.data_words > _MS else ()
    delays = _delays(seconds, ms, limits, path) if any(seconds) or any(ms) else [_AT_ONCE] * items.count
    contents = _contents(items, limits, path) if step - items.data_words > _CONTENTS else [b""] * items.count
    return list(map(new_item, zip(contents, delays, repeat(None))))


def _delays(seconds: Sequence[int], ms: Sequence[int], limits: Limits, path: str) -> list[SpanMs]:
    delays = [span_from(*each) for each in zip_longest(seconds, ms, fillvalue=0)]
    for index, delay in enumerate(delays):
        if delay > limits.delay_ms:
            by_ms = ms[index] if ms else 0
            raise _too_late(f"{path}items[{index}].visibilityTimeout", by_ms, delay, limits, "delay_ms")
    return delays


def _contents(items: ListAt, limits: Limits, path: str) -> list[bytes]:
    frame, data, start, end = items.frame, items.frame.data, items.start, items.end
    pointers = range(items.first + items.data_words + _CONTENTS, items.first + items.count * items.step, items.step)
    budget, total = frame.budget, 0
    contents: list[bytes] = []
    for at, pointer in zip(pointers, frame.words[pointers.start : pointers.stop : pointers.step], strict=True):
        begin = (at + 1 + ((pointer & _BITS_32) >> 2)) * WORD
        size = pointer >> LIST_COUNT_SHIFT
        length = size + WORD - 1 >> 3
        if pointer & _NEAR_BYTES != BYTE_LIST or begin + size > end * WORD or length > budget:
            # Any other pointer, or an unsound one.
            frame.budget = budget
            begin, last = bytes_at(frame, at, start, end)
            size, budget = last - begin, frame.budget
        else:
            budget -= length
        total += size
        if size > limits.contents_bytes:
            raise _too_long(f"{path}items[{len(contents)}].contents", size, limits, "contents_bytes")
        if total > limits.add_bytes:
            raise _too_long(f"contents up to {path}items[{len(contents)}]", total, limits, "add_bytes")
        contents.append(data[begin : begin + size])
    frame.budget = budget
    return contents


def _too_long(what: str, value: int, limits: Limits, name: str) -> InvalidRequest:
    return too_large(what, value=value, limit=getattr(limits, name), unit="bytes", name=name)


def _too_late(what: str, ms: int, span: SpanMs, limits: Limits, name: str) -> InvalidRequest:
    """Return the error for a span that is too long, with the name of the field that holds it."""
    return too_large(what + ("Ms" if ms else "Secs"), value=span, limit=getattr(limits, name), unit="ms", name=name)


def read_remove_request(params: Params) -> RemoveRequest:
    """Read the parameters of `remove`; the lengths of id and lease are not checked."""
    frame, request = _request(params)
    return RemoveRequest(_data(frame, request, _REMOVE, "id"), _data(frame, request, _REMOVE, "lease"))


def read_poll_request(params: Params, limits: Limits | None = None) -> PollRequest:
    """
    Read the parameters of `poll`; a lease span of 0 is not refused here.

    Raises:
        InvalidRequest: the lease is longer than *limits* allow, or the session is not 16 bytes.
        RemoteProtocolError: the parameters are malformed.
    """
    return poll_at(*_request(params), limits)


def poll_at(frame: Frame, request: StructAt, limits: Limits | None) -> PollRequest:
    """Read the struct *request* of a poll; it raises what `read_poll_request` raises."""
    at = request[1] + _SESSION
    session = Fields(frame, request, _POLL).id("session", optional=True) if at < request[2] else b""
    no_wait = bool(_POLL.numbers["noWait"].of(frame, request))
    wait = _span(frame, request, _POLL, "timeout")
    return PollRequest(
        lease=SpanMs(0) if session else _lease(frame, request, _POLL, limits),
        num_items=_POLL.numbers["numItems"].of(frame, request) or 1,
        wait=wait if wait and not no_wait else None,
        no_wait=no_wait,
        session=session,
    )


def read_extend_request(params: Params, limits: Limits | None = None) -> ExtendRequest:
    """
    Read the parameters of `extend`; the length of the lease id and a span of 0 are not refused here.

    Raises:
        InvalidRequest: the span is longer than *limits* allow.
        RemoteProtocolError: the parameters are malformed.
    """
    frame, request = _request(params)
    return ExtendRequest(_data(frame, request, _EXTEND, "lease"), _lease(frame, request, _EXTEND, limits))


def read_queue_request(params: Params) -> str:
    """
    Read the parameter of `Broker.queue`: the name of the queue.

    Raises:
        InvalidRequest: the name is not UTF-8.
        RemoteProtocolError: the parameter is malformed.
    """
    frame = params.frame
    struct = struct_at(frame, params.at, params.start, params.end)
    at = struct[1] + _QUEUE_PARAMS.slots["name"]
    name = text_at(frame, at, struct[3], struct[4]) if at < struct[2] else b""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("name is not UTF-8") from None


# Readers of batches.  The fast path has read most requests already, with `templates`.


def read_add_requests(calls: Calls, limits: Limits) -> list[Sequence[NewItem]]:
    """Return the items of each of *calls*; it raises what `read_add_request` raises."""
    requests = calls.requests
    return requests if isinstance(requests, list) else [read_add_request(requests, limits).items]


def read_remove_requests(calls: Calls, limits: Limits) -> list[RemoveRequest]:  # noqa: ARG001
    """Return the request of each of *calls*; it raises what `read_remove_request` raises.  No limit applies."""
    requests = calls.requests
    return requests if isinstance(requests, list) else [read_remove_request(requests)]


def read_poll_requests(calls: Calls, limits: Limits) -> list[PollRequest]:
    """Return the request of each of *calls*; it raises what `read_poll_request` raises."""
    requests = calls.requests
    return requests if isinstance(requests, list) else [read_poll_request(requests, limits)]


def read_extend_requests(calls: Calls, limits: Limits) -> list[ExtendRequest]:
    """Return the request of each of *calls*; it raises what `read_extend_request` raises."""
    requests = calls.requests
    return requests if isinstance(requests, list) else [read_extend_request(requests, limits)]


def write_add_request(request: AddRequest) -> bytes:
    """Write the parameters of `add` for `Connection.call`."""
    options = options_body(request.items)
    items = items_body(request.items)
    if options is None and not request.request_id:
        # The request of the original schema, which is smaller than today's.
        return layout("Queue.add$Params").build(req=struct_body([], [items]))
    request_id = data_body(request.request_id) if request.request_id else None
    return layout("Queue.add$Params").build(req=struct_body([], [items, request_id, options]))


def items_body(items: Sequence[NewItem]) -> Body:
    """Build the list of *items* without their options."""
    return structs_body(
        _ITEM.data_words,
        _ITEM.pointers,
        [((seconds_rounded_up(delay), delay), (data_body(contents),)) for contents, delay, _ in items],
    )


def write_remove_request(request: RemoveRequest) -> bytes:
    """Write the parameters of `remove`."""
    return layout("Queue.remove$Params").build(req={"id": request.id, "lease": request.lease})


def write_poll_request(request: PollRequest) -> bytes:
    """
    Write the parameters of `poll`.

    A wait of 0 is sent as `noWait`, because zeros on the wire mean a wait without
    bound.  A server that is older than `noWait` waits for a second instead.
    """
    return layout("Queue.poll$Params").build(req=poll_body(request))


def poll_body(request: PollRequest) -> Body:
    """Build the struct of a poll.  A server that does not know sessions reads the lease's spans."""
    wait = request.wait or SpanMs(0)
    no_wait = request.no_wait or request.wait == 0
    fields = {
        "leaseValiditySecs": seconds_rounded_up(request.lease),
        "leaseValidityMs": request.lease,
        "numItems": request.num_items,
        "timeoutSecs": 1 if no_wait else seconds_rounded_up(wait),
        "timeoutMs": wait,
        "noWait": no_wait,
    }
    if request.session:
        return _POLL.body({**fields, "session": request.session})
    return _PLAIN_POLL.body(fields)


def write_extend_request(request: ExtendRequest) -> bytes:
    """Write the parameters of `extend`."""
    fields = {
        "lease": request.lease,
        "leaseValiditySecs": seconds_rounded_up(request.span),
        "leaseValidityMs": request.span,
    }
    return layout("Queue.extend$Params").build(req=fields)


def write_queue_request(name: str) -> bytes:
    """Write the parameter of `Broker.queue`."""
    return _QUEUE_PARAMS.build(name=name)


def write_limits_request() -> bytes:
    """Write the empty parameters of `Broker.limits`."""
    return layout("Broker.limits$Params").build()


def structs_of(params: Params) -> tuple[StructAt, StructAt]:
    """Return the struct of the parameters, and that of the request in it, the only parameter of a queue's methods."""
    frame = params.frame
    outer = struct_at(frame, params.at, params.start, params.end)
    return outer, slot_at(frame, outer, _REQ)


def _request(params: Params) -> tuple[Frame, StructAt]:
    return params.frame, structs_of(params)[1]


def _data(frame: Frame, struct: StructAt, of: Layout, field: str) -> bytes:
    at = struct[1] + of.slots[field]
    if at >= struct[2]:
        return b""
    first, last = bytes_at(frame, at, struct[3], struct[4])
    return frame.data[first:last]


def _span(frame: Frame, struct: StructAt, of: Layout, field: str) -> SpanMs:
    return span_from(of.numbers[field + "Secs"].of(frame, struct), of.numbers[field + "Ms"].of(frame, struct))


def _lease(frame: Frame, struct: StructAt, of: Layout, limits: Limits | None) -> SpanMs:
    span = _span(frame, struct, of, "leaseValidity")
    if limits is not None and span > limits.lease_ms:
        ms = of.numbers["leaseValidityMs"].of(frame, struct)
        raise _too_late("leaseValidity", ms, span, limits, "lease_ms")
    return span
