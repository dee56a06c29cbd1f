"""
The parameters of the queue's methods: read by a server, written by a client.

All reading functions take the `Params` of a call and raise `RemoteProtocolError`
when those are malformed: then nothing from that peer can be trusted, and the
connection is to be aborted.  `InvalidRequest` is for sound requests that no
server could carry out.

Spans come in whole seconds and, replacing those unless it is 0, milliseconds.
Writers fill both, so that older servers understand them.
"""

from typing import Final

from queueber.api.queue_types import AddRequest, ExtendRequest, NewItem, PollRequest, RemoveRequest
from queueber.capnp.builder import BYTE_LIST, LIST_COUNT_SHIFT
from queueber.capnp.layout import Layout, layout
from queueber.capnp.reader import WORD, Frame, ListAt, StructAt, bytes_at, slot_at, struct_at, struct_list_at, text_at
from queueber.errors import InvalidRequest, too_large
from queueber.limits import Limits
from queueber.rpc.messages import Params
from queueber.units import SpanMs, seconds_rounded_up, span_from

_ADD = layout("AddRequest")
_ITEM = layout("Item")
_REMOVE = layout("RemoveRequest")
_POLL = layout("PollRequest")
_EXTEND = layout("ExtendRequest")
_QUEUE_PARAMS = layout("Broker.queue$Params")

_ITEMS = _ADD.slots["items"]
_CONTENTS = _ITEM.slots["contents"]
_SECS = _ITEM.numbers["visibilityTimeoutSecs"].word
_MS = _ITEM.numbers["visibilityTimeoutMs"].word

_AT_ONCE = SpanMs(0)

_MANY = 4
"""From so many items on it pays to look at all of them together."""

_BITS_32 = (1 << 32) - 1
_KIND = BYTE_LIST | 7 << 32 | 3
"""What of a pointer tells that it leads to bytes."""

_new: Final = tuple.__new__
"""Makes a named tuple out of a plain one, in a third of the time that its class takes."""

_REQ = 0
"""The one parameter of each method of a queue."""

assert all(layout(f"Queue.{method}$Params").slots == {"req": _REQ} for method in ("add", "remove", "poll", "extend"))


def read_add_request(params: Params, limits: Limits) -> AddRequest:
    """
    The parameters of `add`.

    Raises:
        InvalidRequest: too many items, or too many bytes in one or in all; found
            before they are copied.
        RemoteProtocolError: they are malformed.
    """
    frame, request = _request(params)
    at = request[1] + _ITEMS
    if at >= request[2]:
        return AddRequest([])
    items = struct_list_at(frame, at, request[3], request[4], limits.items_per_add)
    if items.count > limits.items_per_add:
        limit = limits.items_per_add
        raise too_large("items", value=items.count, limit=limit, unit="items", name="items_per_add")
    return AddRequest(_items(items, limits))


def _items(items: ListAt, limits: Limits) -> list[NewItem]:
    same = _same_items(items, limits) if items.count >= _MANY else None
    return _each_item(items, limits) if same is None else same


def _same_items(items: ListAt, limits: Limits) -> list[NewItem] | None:
    """
    Items without delay whose contents are of one length and lie one after the other; None if they are not like that.

    Such are most lists, and here no code of Python's runs for a pointer: all of them are compared with what they would
    be, in one step.
    """
    frame, words, count, step = items.frame, items.frame.words, items.count, items.step
    body, pointer = items.first, items.first + items.data_words + _CONTENTS
    stop = body + count * step
    if not step > items.data_words > max(_SECS, _MS):
        return None
    first = words[pointer]
    size = first >> LIST_COUNT_SHIFT
    length = (size + WORD - 1) // WORD
    data = pointer + 1 + ((first & _BITS_32) >> 2)
    if not size or first & _KIND != BYTE_LIST or data < stop or data + count * length > items.end:
        return None
    # From one item to the next the contents lie further on by their length, and the pointer to them by a step.
    nearer = step - length << 2
    expected = list(range(first, first - count * nearer, -nearer)) if nearer else [first] * count
    if list(words[pointer:stop:step]) != expected or size > limits.contents_bytes or count * size > limits.add_bytes:
        return None
    if any(words[body + _SECS : stop : step]) or any(words[body + _MS : stop : step]):
        return None
    frame.spend(count * length)
    whole = frame.data
    contents = [whole[at : at + size] for at in range(data * WORD, (data + count * length) * WORD, length * WORD)]
    return [_new(NewItem, (each, _AT_ONCE)) for each in contents]


def _each_item(items: ListAt, limits: Limits) -> list[NewItem]:
    frame, words, data = items.frame, items.frame.words, items.frame.data
    step, data_words, start, end = items.step, items.data_words, items.start, items.end
    has_contents = step - data_words > _CONTENTS
    found, total, body = [], 0, items.first
    for index in range(items.count):
        seconds = words[body + _SECS] if data_words > _SECS else 0
        ms = words[body + _MS] if data_words > _MS else 0
        contents = b""
        if has_contents:
            first, last = bytes_at(frame, body + data_words + _CONTENTS, start, end)
            length = last - first
            total += length
            if length > limits.contents_bytes:
                raise _too_long(f"items[{index}].contents", length, limits, "contents_bytes")
            if total > limits.add_bytes:
                raise _too_long(f"contents up to items[{index}]", total, limits, "add_bytes")
            contents = data[first:last]
        delay = _AT_ONCE
        if seconds or ms:
            delay = span_from(seconds, ms)
            if delay > limits.delay_ms:
                raise _too_late(f"items[{index}].visibilityTimeout", ms, delay, limits, "delay_ms")
        found.append(NewItem(contents, delay))
        body += step
    return found


def _too_long(what: str, value: int, limits: Limits, name: str) -> InvalidRequest:
    return too_large(what, value=value, limit=getattr(limits, name), unit="bytes", name=name)


def _too_late(what: str, ms: int, span: SpanMs, limits: Limits, name: str) -> InvalidRequest:
    """By the field that was sent: milliseconds, which come before seconds if there are any."""
    return too_large(what + ("Ms" if ms else "Secs"), value=span, limit=getattr(limits, name), unit="ms", name=name)


def read_remove_request(params: Params) -> RemoveRequest:
    """The parameters of `remove`; neither id nor lease is checked for its length."""
    frame, request = _request(params)
    return RemoveRequest(_data(frame, request, _REMOVE, "id"), _data(frame, request, _REMOVE, "lease"))


def read_poll_request(params: Params, limits: Limits | None = None) -> PollRequest:
    """
    The parameters of `poll`; a lease of no length is not refused here.

    Raises:
        InvalidRequest: the lease is longer than *limits* allow.
        RemoteProtocolError: they are malformed.
    """
    frame, request = _request(params)
    no_wait = bool(_POLL.numbers["noWait"].of(frame, request))
    wait = _span(frame, request, _POLL, "timeout")
    return PollRequest(
        lease=_lease(frame, request, _POLL, limits),
        num_items=_POLL.numbers["numItems"].of(frame, request) or 1,
        wait=wait if wait and not no_wait else None,
        no_wait=no_wait,
    )


def read_extend_request(params: Params, limits: Limits | None = None) -> ExtendRequest:
    """
    The parameters of `extend`; neither the lease's length nor a span of none is refused here.

    Raises:
        InvalidRequest: the span is longer than *limits* allow.
        RemoteProtocolError: they are malformed.
    """
    frame, request = _request(params)
    return ExtendRequest(_data(frame, request, _EXTEND, "lease"), _lease(frame, request, _EXTEND, limits))


def read_queue_request(params: Params) -> str:
    """
    The parameter of `Broker.queue`: a queue's name.

    Raises:
        InvalidRequest: it is not UTF-8.
        RemoteProtocolError: it is malformed.
    """
    frame = params.frame
    struct = struct_at(frame, params.at, params.start, params.end)
    at = struct[1] + _QUEUE_PARAMS.slots["name"]
    name = text_at(frame, at, struct[3], struct[4]) if at < struct[2] else b""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("name is not UTF-8") from None


def write_add_request(request: AddRequest) -> bytes:
    """The parameters of `add`, ready for `Connection.call`."""
    items = [
        {
            "contents": item.contents,
            "visibilityTimeoutSecs": seconds_rounded_up(item.delay),
            "visibilityTimeoutMs": item.delay,
        }
        for item in request.items
    ]
    return layout("Queue.add$Params").build(req={"items": items})


def write_remove_request(request: RemoveRequest) -> bytes:
    """The parameters of `remove`."""
    return layout("Queue.remove$Params").build(req={"id": request.id, "lease": request.lease})


def write_poll_request(request: PollRequest) -> bytes:
    """
    The parameters of `poll`.

    A wait of 0 is `no_wait`, not the endless wait that zeros on the wire mean.
    A server that does not know `noWait` waits for a second instead.
    """
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
    return layout("Queue.poll$Params").build(req=fields)


def write_extend_request(request: ExtendRequest) -> bytes:
    """The parameters of `extend`."""
    fields = {
        "lease": request.lease,
        "leaseValiditySecs": seconds_rounded_up(request.span),
        "leaseValidityMs": request.span,
    }
    return layout("Queue.extend$Params").build(req=fields)


def write_queue_request(name: str) -> bytes:
    """The parameter of `Broker.queue`."""
    return _QUEUE_PARAMS.build(name=name)


def write_limits_request() -> bytes:
    """The parameters of `Broker.limits`, which has none."""
    return layout("Broker.limits$Params").build()


def structs_of(params: Params) -> tuple[StructAt, StructAt]:
    """The struct of a method's parameters, and the request in it: the only parameter of a method of a queue."""
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
