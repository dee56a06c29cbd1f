"""The calls of a queue's methods, with the checks of their arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from queueber import api, rpc
from queueber.api import Action, AddTo, NewItem, Settled, Settlement
from queueber.client_core.arguments import SPAN_MS_MAX, buffers, identifier, integer, wrong
from queueber.client_core.calls import Call, Resend
from queueber.client_core.delivery import DeliveredBatch
from queueber.client_core.held_leases import HeldLeases
from queueber.client_core.items import checked_error, checked_items, checked_settlements, settle_content
from queueber.client_core.routes import DeadLettersOf, Place
from queueber.errors import InvalidRequest, RemoteProtocolError, too_large
from queueber.fixed_limits import QUEUE_NAME_BYTES_MAX
from queueber.units import SpanMs

if TYPE_CHECKING:
    from typing_extensions import Buffer

B = TypeVar("B")
T = TypeVar("T")

LEASE_MS_DEFAULT: Final = 30_000
GRACE_MS_DEFAULT: Final = 30_000

GIVE_BACK_MS: Final = SpanMs(1)
"""The shortest span.  `extend` by it ends a lease, so that its items go to the next worker."""

_COUNT_MAX = (1 << 32) - 1


class SessionRef:
    """A session that attaches itself to each new connection, so that a poll that names it may be sent again."""

    @property
    def session_id(self) -> bytes:
        """
        The session's 16 bytes.

        Raises:
            InvalidRequest: the session is closed.
        """
        raise NotImplementedError

    def hold(self, response: api.PollResponse) -> None:
        """Count the lease in a poll's *response* among those that the session keeps."""
        raise NotImplementedError


class QueueCalls(Generic[B]):
    """
    The calls of one queue.

    Every method checks its arguments, copies the bytes of buffers, and returns
    the call.  All raise `InvalidRequest`, which names the argument, what it must
    be and its value.
    """

    def __init__(
        self,
        place: Place,
        batch: Callable[[api.PollResponse], B],
        *,
        held: HeldLeases | None = None,
        request_ids: Callable[[], bytes] | None = None,
    ) -> None:
        """
        Build calls of the queue at *place*.

        *batch* makes the result of a poll.  *held* are the client's session leases.  *request_ids* returns 16 random
        bytes for each add, so that it can be sent again; without it only an add with a request id of its own can.
        """
        self._place = place
        self._batch = batch
        self._held = HeldLeases() if held is None else held
        self._request_ids = request_ids

    def add(self, *contents: Buffer, delay_ms: int = 0) -> Call[list[bytes]]:
        """Store an item for each of *contents*, all or none, that becomes due after *delay_ms*; return their ids."""
        delay = SpanMs(integer("delay_ms", delay_ms, 0, SPAN_MS_MAX, "ms"))
        items = [NewItem(each, delay) for each in buffers("contents", contents)]
        return self._add(items, b"", _ids)

    def add_items(self, *items: NewItem, request_id: Buffer = b"") -> Call[api.AddResponse]:
        """Store all *items* or none; *request_id* stands for this call for ten minutes."""
        number = identifier("request_id", request_id) if request_id else b""
        return self._add(checked_items("items", items), number, api.read_add_response)

    def _add(self, items: list[NewItem], number: bytes, read: Callable[[rpc.Results], T]) -> Call[T]:
        if not number and self._request_ids is not None:
            number = self._request_ids()
        content = api.write_add_request(api.AddRequest(items, number))
        resend = Resend.WITHIN_WINDOW if number else Resend.NEVER
        return Call(self._place, api.QUEUE_INTERFACE_ID, api.ADD, content, read, resend=resend)

    def poll(
        self,
        n: int = 1,
        *,
        lease_ms: int = LEASE_MS_DEFAULT,
        wait_ms: int | None = None,
        session: Buffer | SessionRef = b"",
    ) -> Call[B]:
        """Take up to *n* ready items under a new lease of *lease_ms*, or of *session*; wait up to *wait_ms*."""
        request, resend = poll_request(n, lease_ms, wait_ms, session)
        content = api.write_poll_request(request)

        def read(results: rpc.Results) -> B:
            response = api.read_poll_response(results)
            if isinstance(session, SessionRef):
                session.hold(response)
            return self._batch(response)

        return Call(self._place, api.QUEUE_INTERFACE_ID, api.POLL, content, read, request.wait, resend)

    def remove(self, item_id: Buffer, lease: Buffer) -> Call[bool]:
        """Remove the item *item_id*, held under *lease*; return whether that was so."""
        request = api.RemoveRequest(identifier("item_id", item_id), identifier("lease", lease))
        content = api.write_remove_request(request)
        read = self._held.after_remove(request.id, request.lease, api.read_remove_response)
        return Call(self._place, api.QUEUE_INTERFACE_ID, api.REMOVE, content, read)

    def extend(self, lease: Buffer, lease_ms: int) -> Call[bool]:
        """Set the end of *lease* to *lease_ms* from now; return whether it lived."""
        span = SpanMs(integer("lease_ms", lease_ms, 1, SPAN_MS_MAX, "ms"))
        request = api.ExtendRequest(identifier("lease", lease), span)
        content = api.write_extend_request(request)
        read = self._held.after_extend(request.lease, api.read_extend_response)
        return Call(self._place, api.QUEUE_INTERFACE_ID, api.EXTEND, content, read)

    def settle(
        self, *entries: Settlement, adds: Iterable[AddTo] = (), all_or_nothing: bool = False
    ) -> Call[api.SettleResponse]:
        """Settle items, in the order of *entries*, and add items in the same commit."""
        checked = checked_settlements(entries)
        content = settle_content(checked, adds, all_or_nothing=all_or_nothing)
        read = self._held.after_settle(checked, api.read_settle_response)
        return Call(self._place, api.QUEUE_INTERFACE_ID, api.SETTLE, content, read)

    def fail(self, item_id: Buffer, lease: Buffer, error: str = "", *, delay_ms: int | None = None) -> Call[Settled]:
        """Return the item to the queue and count a failure."""
        return self._settle_one(Action.FAIL, item_id, lease, delay_ms, error)

    def defer(self, item_id: Buffer, lease: Buffer, *, delay_ms: int | None = None) -> Call[Settled]:
        """Return the item to the queue, after *delay_ms* or to its own place, and count nothing."""
        return self._settle_one(Action.DEFER, item_id, lease, delay_ms, "")

    def reject(self, item_id: Buffer, lease: Buffer, error: str = "") -> Call[Settled]:
        """Move the item to the dead items now."""
        return self._settle_one(Action.REJECT, item_id, lease, None, error)

    def _settle_one(
        self, action: Action, item_id: Buffer, lease: Buffer, delay_ms: int | None, error: str
    ) -> Call[Settled]:
        delay = None if delay_ms is None else SpanMs(integer("delay_ms", delay_ms, 0, SPAN_MS_MAX, "ms"))
        entry = Settlement(
            identifier("lease", lease), identifier("item_id", item_id), action, delay, checked_error("error", error)
        )
        content = api.write_settle_request(api.SettleRequest([entry]))
        read = self._held.after_settle([entry], api.read_settle_response)
        return Call(self._place, api.QUEUE_INTERFACE_ID, api.SETTLE, content, lambda results: _only(read(results)))


def dead_letters(place: str | DeadLettersOf | None) -> DeadLettersOf:
    """
    Return the place of the dead items of the queue at *place*.

    Raises:
        InvalidRequest: *place* is one of dead items already.
    """
    if isinstance(place, DeadLettersOf):
        raise InvalidRequest("the queue of dead items has no dead items of its own")
    return DeadLettersOf(place)


def poll_request(
    n: int, lease_ms: int, wait_ms: int | None, session: Buffer | SessionRef
) -> tuple[api.PollRequest, Resend]:
    """
    Return the request of a poll with these arguments, and whether it may be sent again.

    A session that the program attaches by itself is unknown to the next connection.

    Raises:
        InvalidRequest: one of them is of the wrong type or out of range.
    """
    resend = Resend.ALWAYS
    if isinstance(session, SessionRef):
        named = session.session_id
    else:
        named = identifier("session", session) if session else b""
        resend = Resend.NEVER if named else resend
    request = api.PollRequest(
        lease=SpanMs(integer("lease_ms", lease_ms, 1, SPAN_MS_MAX, "ms")),
        num_items=integer("n", n, 1, _COUNT_MAX, "items"),
        wait=None if wait_ms is None else SpanMs(integer("wait_ms", wait_ms, 0, SPAN_MS_MAX, "ms")),
        no_wait=wait_ms == 0,
        session=named,
    )
    return request, resend


def checked_name(name: str) -> str:
    """
    Return *name* if it is a valid name of a queue.

    Raises:
        InvalidRequest: *name* is not text, is empty, longer than the limit, or cannot be encoded in UTF-8.
    """
    if not isinstance(name, str):
        raise wrong("the queue's name", name, f"text, 1 to {QUEUE_NAME_BYTES_MAX} bytes of UTF-8")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidRequest(f"the queue's name is not UTF-8: {name!a}") from None
    if not length:
        raise InvalidRequest("the queue's name is empty")
    if length > QUEUE_NAME_BYTES_MAX:
        raise too_large("the queue's name", value=length, limit=QUEUE_NAME_BYTES_MAX, unit="bytes")
    return name


def _ids(results: rpc.Results) -> list[bytes]:
    return list(api.read_add_response(results).ids)


def _only(response: api.SettleResponse) -> Settled:
    """
    Return the outcome of the only entry.

    Raises:
        RemoteProtocolError: there is another number of outcomes.
    """
    settled = response.settled
    if len(settled) != 1:
        raise RemoteProtocolError(f"a settle of one entry has {len(settled)} outcomes")
    return settled[0]


def undelivered(call: Call[Any], outcome: object, held: HeldLeases) -> Call[api.SettleResponse] | None:
    """
    Return the call that gives back the items in *outcome*, with which *call* ended after its program had given it up.

    None if *outcome* has no items.  *held* are the client's session leases.
    """
    batch = outcome[-1] if isinstance(outcome, tuple) and outcome else outcome
    if not isinstance(batch, DeliveredBatch) or not batch.items:
        return None
    calls: QueueCalls[None] = QueueCalls(call.place, lambda _: None, held=held)
    return calls.settle(Settlement(batch.lease, b"", Action.DEFER))
