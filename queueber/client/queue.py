"""The queue object that a program uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from attrs import frozen

from queueber import api, rpc
from queueber.api import Action, AddTo, DeliveryFacts, NewItem, PolledItem, Settled, Settlement
from queueber.client.arguments import SPAN_MS_MAX, buffers, identifier, integer, timeout, wrong
from queueber.client.errors import failed
from queueber.client.items import checked_items, error_text, settle_content
from queueber.client.routes import DeadLetters
from queueber.errors import InvalidRequest, RemoteProtocolError, too_large
from queueber.limits import QUEUE_NAME_BYTES_MAX
from queueber.units import SpanMs, WallMs

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from typing_extensions import Buffer

    from queueber.client.service import Connector

LEASE_MS_DEFAULT = 30_000

GIVE_BACK_MS: Final = SpanMs(1)
"""The shortest span.  `extend` by it ends a lease, so that its items go to the next worker."""

_COUNT_MAX = (1 << 32) - 1
_NO_FACTS = DeliveryFacts()


@frozen
class Batch:
    """The result of one poll: items under one lease, or none."""

    items: tuple[PolledItem, ...]
    """Items in the order in which they became due; empty if the wait ended first."""

    lease: bytes
    """The lease's id, 16 bytes, which permits to remove and extend; empty without items.  Keep it secret."""

    deadline: WallMs
    """
    When the lease ends, by the server's clock.

    0 without items, for a session lease, or if an old server does not send it.
    """

    session: bool = False
    """Whether the lease lasts as long as the session of the poll.  False from a server that does not know sessions."""

    facts: tuple[DeliveryFacts, ...] = ()
    """Facts of the items in the same places; fewer if those of the rest are all defaults.  `facts_of` fills them up."""

    def facts_of(self, place: int) -> DeliveryFacts:
        """Return the facts of the item at *place*: failures, losses, last error, headers and the like."""
        return self.facts[place] if place < len(self.facts) else _NO_FACTS


class Queue:
    """
    One queue of a server.

    Every method returns a Deferred, which can be awaited.  It fires once the
    change is on the server's disk, and fails with a
    `queueber.errors.QueueberError`: the error that the server returned,
    `NotConnected` if the call was not sent, `OutcomeUnknown` if the connection
    was lost during the call, `CallTimedOut` if it exceeded its time limit,
    `InvalidRequest` if an argument is invalid.

    *timeout_ms* is the time limit of the call, from the call to its answer,
    including the wait of a poll; None selects that of `connect`.

    Arguments of type `Buffer` may be any object with a buffer: `bytes`,
    `bytearray`, `memoryview`, `array.array`, `mmap`.  The bytes are copied
    before the method returns.
    """

    def __init__(self, connector: Connector, place: str | DeadLetters | None) -> None:
        """Created by `Client`; *place* is None for the default queue."""
        self._connector = connector
        self._place = place

    def __repr__(self) -> str:
        if isinstance(self._place, DeadLetters):
            return f"<Queue of the dead items of {self._place.queue or 'default'}>"
        return f"<Queue {self._place or 'default'}>"

    def add(self, *contents: Buffer, delay_ms: int = 0, timeout_ms: int | None = None) -> Deferred[list[bytes]]:
        """
        Store an item for each of *contents*, all or none, that becomes due after *delay_ms*.

        Returns:
            Fires with the items' ids, 16 bytes each, in the same order.
        """
        try:
            delay = SpanMs(integer("delay_ms", delay_ms, 0, SPAN_MS_MAX, "ms"))
            limit = timeout(timeout_ms)
            request = api.AddRequest([api.NewItem(each, delay) for each in buffers("contents", contents)])
        except InvalidRequest as why:
            return failed(why)
        return self._connector.call(self._place, api.ADD, api.write_add_request(request), _ids, timeout_ms=limit)

    def add_items(
        self, *items: NewItem, request_id: Buffer = b"", timeout_ms: int | None = None
    ) -> Deferred[api.AddResponse]:
        """
        Store all *items*, made with `new_item`, or none.

        *request_id*, 16 random bytes, stands for this call: one that is sent
        again with it within ten minutes adds nothing and returns the first
        call's ids.  Use it to repeat a call whose outcome is unknown.

        A server that is older than the options of items ignores them.

        Returns:
            Fires with the ids, and with the places of the items that were not
            added because their deduplication key was taken.
        """
        try:
            limit = timeout(timeout_ms)
            number = identifier("request_id", request_id) if request_id else b""
            content = api.write_add_request(api.AddRequest(checked_items("items", items), number))
        except InvalidRequest as why:
            return failed(why)
        return self._connector.call(self._place, api.ADD, content, api.read_add_response, timeout_ms=limit)

    def poll(
        self,
        n: int = 1,
        *,
        lease_ms: int = LEASE_MS_DEFAULT,
        wait_ms: int | None = None,
        session: Buffer = b"",
        timeout_ms: int | None = None,
    ) -> Deferred[Batch]:
        """
        Take up to *n* ready items under a new lease of *lease_ms*.

        If no item is ready, wait up to *wait_ms*: None without a limit, 0 not
        at all.

        With *session*, a session that `Client.attach` has bound to this
        connection, the lease lasts as long as the session instead.  A server
        that does not know sessions gives a lease of *lease_ms*: see the
        batch's `session`.

        Returns:
            Fires with a `Batch`, empty if the wait ended first.  Cancelling it
            ends the wait; items that were already sent go back.
        """
        try:
            request = poll_request(n, lease_ms, wait_ms, session)
            limit = timeout(timeout_ms)
        except InvalidRequest as why:
            return failed(why)
        content = api.write_poll_request(request)
        return self._connector.call(self._place, api.POLL, content, _batch, timeout_ms=limit, wait_ms=request.wait)

    def remove(self, item_id: Buffer, lease: Buffer, *, timeout_ms: int | None = None) -> Deferred[bool]:
        """
        Remove the item *item_id*, held under *lease*.

        Returns:
            Fires with True, or with False if nothing was changed: the item or
            the lease is unknown, or the lease is another one or has ended.
        """
        try:
            limit = timeout(timeout_ms)
            request = api.RemoveRequest(identifier("item_id", item_id), identifier("lease", lease))
        except InvalidRequest as why:
            return failed(why)
        return self._connector.call(
            self._place, api.REMOVE, api.write_remove_request(request), api.read_remove_response, timeout_ms=limit
        )

    def extend(self, lease: Buffer, lease_ms: int, *, timeout_ms: int | None = None) -> Deferred[bool]:
        """
        Set the end of *lease* to *lease_ms* from now, later or earlier than before.

        Returns:
            Fires with True, or with False if nothing was changed: the lease is unknown or has ended.
        """
        try:
            span = SpanMs(integer("lease_ms", lease_ms, 1, SPAN_MS_MAX, "ms"))
            limit = timeout(timeout_ms)
            request = api.ExtendRequest(identifier("lease", lease), span)
        except InvalidRequest as why:
            return failed(why)
        return self._connector.call(
            self._place, api.EXTEND, api.write_extend_request(request), api.read_extend_response, timeout_ms=limit
        )

    def settle(
        self,
        *entries: Settlement,
        adds: Iterable[AddTo] = (),
        all_or_nothing: bool = False,
        timeout_ms: int | None = None,
    ) -> Deferred[api.SettleResponse]:
        """
        End leases on items in any way, in the order of *entries*, and add items in the same commit.

        On the default queue this settles items of all queues.  With *adds*, or
        if *all_or_nothing*, an entry that is not `Outcome.DONE` refuses the
        whole call, and `changed` is False.

        Returns:
            Fires with the outcome of each entry, and the ids of the items of
            each of *adds*.  Fails with `Unimplemented` on a server that is
            older than this method.
        """
        try:
            limit = timeout(timeout_ms)
            content = settle_content(entries, adds, all_or_nothing=all_or_nothing)
        except InvalidRequest as why:
            return failed(why)
        return self._connector.call(self._place, api.SETTLE, content, api.read_settle_response, timeout_ms=limit)

    def fail(
        self,
        item_id: Buffer,
        lease: Buffer,
        error: str = "",
        *,
        delay_ms: int | None = None,
        timeout_ms: int | None = None,
    ) -> Deferred[Settled]:
        """
        Return the item *item_id* to the queue and count a failure, with *error*, at most 4 KiB.

        It becomes due after *delay_ms*, or after the queue's backoff.  If that
        was its last attempt, it is among the dead items.

        Returns:
            Fires with the outcome.  Fails as `settle` does.
        """
        return self._settle_one(Action.FAIL, item_id, lease, delay_ms, error, timeout_ms)

    def defer(
        self, item_id: Buffer, lease: Buffer, *, delay_ms: int | None = None, timeout_ms: int | None = None
    ) -> Deferred[Settled]:
        """
        Return the item *item_id* to the queue, after *delay_ms* or to its own place, and count nothing.

        Returns:
            Fires with the outcome.  Fails as `settle` does.
        """
        return self._settle_one(Action.DEFER, item_id, lease, delay_ms, "", timeout_ms)

    def reject(
        self, item_id: Buffer, lease: Buffer, error: str = "", *, timeout_ms: int | None = None
    ) -> Deferred[Settled]:
        """
        Move the item *item_id* to the dead items now, with *error*, at most 4 KiB.

        Returns:
            Fires with the outcome.  Fails as `settle` does.
        """
        return self._settle_one(Action.REJECT, item_id, lease, None, error, timeout_ms)

    def _settle_one(
        self,
        action: Action,
        item_id: Buffer,
        lease: Buffer,
        delay_ms: int | None,
        error: str,
        timeout_ms: int | None,
    ) -> Deferred[Settled]:
        try:
            limit = timeout(timeout_ms)
            delay = None if delay_ms is None else SpanMs(integer("delay_ms", delay_ms, 0, SPAN_MS_MAX, "ms"))
            entry = Settlement(
                identifier("lease", lease), identifier("item_id", item_id), action, delay, error_text("error", error)
            )
        except InvalidRequest as why:
            return failed(why)
        content = api.write_settle_request(api.SettleRequest([entry]))
        return self._connector.call(self._place, api.SETTLE, content, _only_settled, timeout_ms=limit)

    def dead_letters(self) -> Queue:
        """
        Return the queue's dead items as a queue: poll, remove, extend and settle work as on any other.

        Its calls fail with `Unimplemented` on a server that has no dead items.

        Raises:
            InvalidRequest: this is such a queue already.
        """
        if isinstance(self._place, DeadLetters):
            raise InvalidRequest("dead items have no dead items")
        return Queue(self._connector, DeadLetters(self._place))


def poll_request(n: int, lease_ms: int, wait_ms: int | None, session: Buffer) -> api.PollRequest:
    """
    Return the request of a poll with these arguments of `Queue.poll`.

    Raises:
        InvalidRequest: one of them is of the wrong type or out of range.
    """
    return api.PollRequest(
        lease=SpanMs(integer("lease_ms", lease_ms, 1, SPAN_MS_MAX, "ms")),
        num_items=integer("n", n, 1, _COUNT_MAX, "items"),
        wait=None if wait_ms is None else SpanMs(integer("wait_ms", wait_ms, 0, SPAN_MS_MAX, "ms")),
        no_wait=wait_ms == 0,
        session=identifier("session", session) if session else b"",
    )


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
    ids: Sequence[bytes] = api.read_add_response(results).ids
    return list(ids)


def _batch(results: rpc.Results) -> Batch:
    return batch_of(api.read_poll_response(results))


def batch_of(response: api.PollResponse) -> Batch:
    """Return the batch that a poll's *response* has."""
    return Batch(tuple(response.items), response.lease, response.deadline, response.session, tuple(response.facts))


def _only_settled(results: rpc.Results) -> Settled:
    """
    Return the outcome of the only entry.

    Raises:
        RemoteProtocolError: there is another number of outcomes.
    """
    settled = api.read_settle_response(results).settled
    if len(settled) != 1:
        raise RemoteProtocolError(f"a settle of one entry has {len(settled)} outcomes")
    return settled[0]
