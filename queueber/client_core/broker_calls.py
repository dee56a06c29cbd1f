"""The calls that concern a server as a whole, or several of its queues, with the checks of their arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from queueber import api, rpc
from queueber.client_core.arguments import SPAN_MS_MAX, elements, flag, identifier, integer, texts, utf_8
from queueber.client_core.calls import Call, Resend
from queueber.client_core.queue_calls import LEASE_MS_DEFAULT, SessionRef, checked_name, poll_request
from queueber.errors import InvalidRequest
from queueber.fixed_limits import LISTED_MAX, POLL_ANY_QUEUES_MAX, WEIGHT_MAX
from queueber.units import SpanMs

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from queueber.api.control_types import Listed, QueueSummary

B = TypeVar("B")


class BrokerCalls(Generic[B]):
    """The calls of a broker; errors are those of `QueueCalls`."""

    def __init__(self, batch: Callable[[str, api.PollResponse], B]) -> None:
        """Build calls; *batch* makes the result of a poll of several queues, from a queue's name and its response."""
        self._batch = batch

    def limits(self) -> Call[api.ServerLimits]:
        """Ask the server for its limits on clients."""
        content = api.write_limits_request()
        return Call(None, api.BROKER_INTERFACE_ID, api.LIMITS, content, api.read_limits_response, resend=Resend.ALWAYS)

    def queues(
        self, prefix: str = "", *, label: tuple[str, str] | None = None, after: str = "", limit: int = LISTED_MAX
    ) -> Call[Listed[QueueSummary]]:
        """List up to *limit* queues by name, after the name *after*."""
        # Imported here, because few programs make this call.
        from queueber.api import control as wire  # noqa: PLC0415
        from queueber.api.control_types import QueuesRequest  # noqa: PLC0415

        request = QueuesRequest(
            prefix=utf_8("prefix", prefix),
            label=None if label is None else texts("label", label, "a name and a value"),
            after=utf_8("after", after),
            limit=integer("limit", limit, 1, LISTED_MAX, "elements"),
        )
        content = wire.write_queues_request(request)
        return Call(None, api.BROKER_INTERFACE_ID, api.QUEUES, content, wire.read_queues_response, resend=Resend.ALWAYS)

    def poll_any(
        self,
        queues: Mapping[str, int] | Iterable[str],
        n: int = 1,
        *,
        lease_ms: int = LEASE_MS_DEFAULT,
        wait_ms: int | None = None,
        strict: bool = False,
        session: Buffer | SessionRef = b"",
    ) -> Call[tuple[str, B]]:
        """Take up to *n* ready items of one of *queues*, in their order or by weight."""
        poll, resend = poll_request(n, lease_ms, wait_ms, session)
        content = api.write_poll_any_request(api.PollAnyRequest(_weighted(queues), flag("strict", strict), poll))

        def read(results: rpc.Results) -> tuple[str, B]:
            queue, response = api.read_poll_any_response(results)
            if isinstance(session, SessionRef):
                session.hold(response)
            return queue, self._batch(queue, response)

        return Call(None, api.BROKER_INTERFACE_ID, api.POLL_ANY, content, read, poll.wait, resend)

    def attach(self, session: Buffer, *, grace_ms: int = 0, more: bool = False) -> Call[api.AttachResponse]:
        """Bind *session* to the connection over which the call is sent, or with *more* ask for its next leases."""
        grace = SpanMs(integer("grace_ms", grace_ms, 0, SPAN_MS_MAX, "ms"))
        request = api.AttachRequest(identifier("session", session), grace, flag("more", more))
        content = api.write_attach_request(request)
        return Call(None, api.BROKER_INTERFACE_ID, api.ATTACH, content, api.read_attach_response)

    def ping(self) -> Call[list[bytes]]:
        """Show the server that this client is alive; return the session leases that it has ended."""
        content = api.write_ping_request()
        return Call(None, api.BROKER_INTERFACE_ID, api.PING, content, api.read_ping_response)


def _weighted(queues: Mapping[str, int] | Iterable[str]) -> list[api.QueueWeight]:
    """
    Return *queues* with their weights, 1 unless they are given.

    Raises:
        InvalidRequest: there are none or too many, or a name or a weight is invalid.
    """
    names = elements("queues", queues, f"1 to {POLL_ANY_QUEUES_MAX} names of queues")
    if not 1 <= len(names) <= POLL_ANY_QUEUES_MAX:
        raise InvalidRequest(f"queues is {len(names)} queues; it must be 1 to {POLL_ANY_QUEUES_MAX}")
    weights = queues if isinstance(queues, Mapping) else dict.fromkeys(names, 1)
    return [
        api.QueueWeight(checked_name(each), integer(f"queues[{each!r}]", weights[each], 1, WEIGHT_MAX, "turns"))
        for each in names
    ]
