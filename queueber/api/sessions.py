"""Sessions, and polls of several queues: values, parameters and results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from queueber.api.fields import Fields, fields_of, request_of, values_of
from queueber.api.queue_types import PollRequest, PollResponse
from queueber.api.requests import poll_at, poll_body
from queueber.api.responses import lease_at, poll_response_at, poll_response_body
from queueber.capnp.layout import layout
from queueber.capnp.reader import StructAt, slot_at
from queueber.errors import InvalidRequest
from queueber.fixed_limits import POLL_ANY_QUEUES_MAX, QUEUE_NAME_BYTES_MAX, WEIGHT_MAX
from queueber.rpc.messages import Params, Results
from queueber.units import SpanMs

if TYPE_CHECKING:
    from queueber.limits import Limits


class AttachRequest(NamedTuple):
    """Bind a session to this connection."""

    session: bytes
    """16 bytes."""

    grace: SpanMs = SpanMs(0)
    """The time by which the session's leases outlive its connection; 0: the server's default."""

    more: bool = False
    """Whether to return the next leases of an attach whose response had `more`."""


class SessionLease(NamedTuple):
    """A lease that a session still has."""

    lease: bytes
    queue: str
    ids: Sequence[bytes]


class AttachResponse(NamedTuple):
    """The leases of an attached session, and how it is kept."""

    leases: Sequence[SessionLease]
    grace: SpanMs
    silence: SpanMs
    """The silence after which the server takes the peer for lost."""

    more: bool = False
    """Whether the session has further leases."""


class QueueWeight(NamedTuple):
    """A queue in a poll of several."""

    queue: str
    weight: int = 1
    """1 to 1,000."""


class PollAnyRequest(NamedTuple):
    """Take items of one of several queues."""

    queues: Sequence[QueueWeight]
    """1 to 64 queues."""

    strict: bool
    """Whether the first queue with an item is served; otherwise the queues take turns by weight."""

    poll: PollRequest


class PollAnyResponse(NamedTuple):
    """The items of one queue."""

    queue: str
    """Empty without items."""

    poll: PollResponse


def read_attach_request(params: Params) -> AttachRequest:
    """
    Read the parameters of `attach`; the bounds of the grace are not checked here.

    Raises:
        InvalidRequest: the session is not 16 bytes.
        RemoteProtocolError: the parameters are malformed.
    """
    fields = fields_of(params, "Broker.attach$Params")
    return AttachRequest(fields.id("session"), SpanMs(fields.number("graceMs")), fields.flag("more"))


def write_attach_request(request: AttachRequest) -> bytes:
    """Write the parameters of `attach`."""
    return layout("Broker.attach$Params").build(session=request.session, graceMs=request.grace, more=request.more)


def write_attach_response(response: AttachResponse) -> bytes:
    """Write the results of `attach`."""
    leases = [{"lease": each.lease, "queue": each.queue, "ids": each.ids} for each in response.leases]
    fields = {"leases": leases, "graceMs": response.grace, "silenceMs": response.silence, "more": response.more}
    return layout("Broker.attach$Results").build(resp=fields)


def read_attach_response(results: Results) -> AttachResponse:
    """Read the results of `attach`."""
    found = values_of(results.content, "Broker.attach$Results")["resp"] or {}
    return AttachResponse(
        leases=[SessionLease(each["lease"], each["queue"], each["ids"]) for each in found.get("leases", ())],
        grace=SpanMs(found.get("graceMs", 0)),
        silence=SpanMs(found.get("silenceMs", 0)),
        more=found.get("more", False),
    )


def write_ping_request() -> bytes:
    """Write the empty parameters of `ping`."""
    return layout("Broker.ping$Params").build()


def write_ping_response(ended: Sequence[bytes]) -> bytes:
    """Write the results of `ping`: the leases that have ended."""
    return layout("Broker.ping$Results").build(ended=ended)


def read_ping_response(results: Results) -> list[bytes]:
    """Read the results of `ping`: the leases that have ended."""
    ended: list[bytes] = values_of(results.content, "Broker.ping$Results")["ended"]
    return ended


def read_poll_any_request(params: Params, limits: Limits) -> PollAnyRequest:
    """
    Read the parameters of `pollAny`; a lease span of 0 is not refused here.

    Raises:
        InvalidRequest: there are no queues or too many, a weight is out of its range, or the lease is too long.
        RemoteProtocolError: the parameters are malformed.
    """
    request = request_of(params, "Broker.pollAny", "PollAnyRequest")
    queues = [_weighted(each) for each in request.structs("queues", "QueueWeight", POLL_ANY_QUEUES_MAX)]
    if not queues:
        raise InvalidRequest(f"queues is empty; it must be 1 to {POLL_ANY_QUEUES_MAX} queues")
    poll = slot_at(request.frame, request.struct, request.layout.slots["poll"])
    return PollAnyRequest(queues, request.flag("strict"), poll_at(request.frame, poll, limits))


def _weighted(fields: Fields) -> QueueWeight:
    weight = fields.number("weight")
    if not 1 <= weight <= WEIGHT_MAX:
        raise InvalidRequest(f"{fields.path}weight is {weight:,}; it must be 1 to {WEIGHT_MAX:,}")
    return QueueWeight(fields.text("queue", QUEUE_NAME_BYTES_MAX), weight)


def write_poll_any_request(request: PollAnyRequest) -> bytes:
    """Write the parameters of `pollAny`."""
    queues = [{"queue": queue, "weight": weight} for queue, weight in request.queues]
    fields = {"queues": queues, "strict": request.strict, "poll": poll_body(request.poll)}
    return layout("Broker.pollAny$Params").build(req=fields)


def write_poll_any_response(response: PollAnyResponse) -> bytes:
    """Write the results of `pollAny`."""
    fields = {"queue": response.queue, "poll": poll_response_body(response.poll)}
    return layout("Broker.pollAny$Results").build(resp=fields)


def read_poll_any_response(results: Results) -> PollAnyResponse:
    """Read the results of `pollAny`."""
    response, poll = _poll_any(results)
    return PollAnyResponse(response.text("queue", QUEUE_NAME_BYTES_MAX), poll_response_at(response.frame, poll))


def read_poll_any_lease(results: Results) -> bytes:
    """Read only the lease of the results of `pollAny`; empty without items."""
    response, poll = _poll_any(results)
    return lease_at(response.frame, poll)


def _poll_any(results: Results) -> tuple[Fields, StructAt]:
    """Return the response, and the place of the poll's response in it."""
    response = fields_of(results.content, "Broker.pollAny$Results").request("PollAnyResponse")
    return response, slot_at(response.frame, response.struct, response.layout.slots["poll"])
