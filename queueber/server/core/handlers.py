"""
The methods of the objects that a peer can call.

Calls come in batches.  A handler reads the requests of a batch, lets the broker
decide them into one plan, submits the plan, and returns the replies once it is
durable.  A call that is refused is refused alone.  The handlers decide only
whether there is room for a call.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeAlias

from attrs import define, field, frozen

from queueber import api, rpc
from queueber.broker import DEFAULT_QUEUE, Broker, Delivery, Peer, Plan, Queue, Waiter
from queueber.errors import Kind, Overloaded, QueueberError, RemoteProtocolError, Stopping, Unimplemented
from queueber.limits import Limits
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.dispatcher import Dispatcher
from queueber.server.core.stats import LIMITS, METHODS, OTHER, QUEUE, CallStats
from queueber.units import SpanMs, WallMs, counted

_new: Final = tuple.__new__
"""Makes a named tuple out of a plain one, in a third of the time that its class takes."""

_ITEM_BYTES: Final = 256
"""The least that an item counts in `request_bytes`: a thousand empty items fit in 32 bytes of a message."""

_NO_WAIT: Final = SpanMs(0)


class ReplySink(Protocol):
    """The connection that takes the replies of its calls."""

    peer: Peer
    """The connection's number, never reused."""

    request_bytes: int
    """Bytes of its adds and extends that wait for a commit; updated by the handlers."""

    def results(self, answers: Sequence[rpc.AnswerId], contents: Sequence[bytes]) -> None:
        """Return one of *contents* for each of *answers*."""

    def capabilities(self, answer: rpc.AnswerId, content: bytes, objects: Sequence[object]) -> None:
        """Return *content*, whose capability pointers are indices into *objects*."""

    def error(self, answer: rpc.AnswerId, kind: Kind, reason: str) -> None:
        """Return an exception."""

    def canceled(self, answer: rpc.AnswerId) -> None:
        """Return that the call was cancelled."""

    def waits(self, answer: rpc.AnswerId, waiter: Waiter) -> None:
        """Note that the call is a waiting poll, until it is returned."""


class Root:
    """The object that a connection bootstraps: the default queue, with methods that return other queues."""


Handler: TypeAlias = Callable[[ReplySink, Any, rpc.Calls], None]


@frozen(eq=False)
class _Method:
    """How to return the replies of a method whose calls the broker decides into one plan."""

    name: str
    reply_types: frozenset[type]
    """Types of the replies to calls that are not refused."""

    encode: Callable[[Sequence[Any]], list[bytes]]
    """Returns the encoded results for replies of those types."""


_ADD: Final = _Method("add", frozenset({list}), api.write_add_responses)
_REMOVE: Final = _Method("remove", frozenset({bool}), api.write_remove_responses)
_EXTEND: Final = _Method("extend", frozenset({bool}), api.write_extend_responses)


@define(eq=False)
class QueueHandlers:
    """Carries calls to the broker and replies back."""

    _broker: Broker
    _committer: Committer
    _dispatcher: Dispatcher
    _clock: QueueClock
    _limits: Limits
    _refuse_adds: Callable[[int], None]
    """Called with the length of adds; raises `Overloaded` if the disk has no room for them."""

    root: Root = field(factory=Root)
    draining: bool = field(default=False, init=False)
    """The server is stopping."""

    outstanding: int = 0
    """Calls that have not been answered."""

    stats: CallStats = field(factory=CallStats)
    _handlers: dict[tuple[int, int], tuple[str, Handler]] = field(init=False)
    _default_queue: Queue | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Bind the methods to their numbers."""
        handlers: dict[int, Handler] = {
            api.ADD: self._add,
            api.REMOVE: self._remove,
            api.POLL: self._poll,
            api.EXTEND: self._extend,
        }
        self._handlers = {
            (api.QUEUE_INTERFACE_ID, method): (METHODS[method], handler) for method, handler in handlers.items()
        }
        self._handlers[api.BROKER_INTERFACE_ID, api.QUEUE] = QUEUE, self._queue
        self._handlers[api.BROKER_INTERFACE_ID, api.LIMITS] = LIMITS, self._return_limits

    def drain(self) -> None:
        """Refuse new adds and polls, because the server is stopping; calls under way are carried out."""
        self.draining = True

    def call(self, sink: ReplySink, calls: rpc.Calls) -> None:
        """
        Carry out *calls*; *sink* takes each reply, now or later.

        Raises:
            RemoteProtocolError: the parameters cannot be read.
        """
        found = self._handlers.get((calls.interface_id, calls.method_id))
        target = calls.target
        if calls.interface_id == api.BROKER_INTERFACE_ID:
            if target is not self.root:
                found = None
        elif target is self.root:
            target = self._default_queue or self._get_default_queue()
        name, handler = found or (OTHER, self._unknown)
        count = len(calls.answers)
        self.outstanding += count
        self.stats.begun[name] += count
        try:
            handler(sink, target, calls)
        except RemoteProtocolError:
            self.outstanding -= count
            raise
        except QueueberError as why:
            # Refused before anything was changed.
            for answer in calls.answers:
                self._refuse(sink, answer, why, name)

    def _get_default_queue(self) -> Queue:
        # On the first call and not before: a broker must be restored before it is asked for a queue.
        self._default_queue = self._broker.queue(DEFAULT_QUEUE)
        return self._default_queue

    def _unknown(self, sink: ReplySink, target: object, calls: rpc.Calls) -> None:  # noqa: ARG002
        raise Unimplemented(f"the object has no method {calls.method_id} of interface {calls.interface_id:#018x}")

    def _queue(self, sink: ReplySink, root: Root, calls: rpc.Calls) -> None:  # noqa: ARG002
        queue = self._broker.queue(api.read_queue_request(calls.params))
        sink.capabilities(calls.answer, api.QUEUE_RESPONSE, (queue,))

    def _return_limits(self, sink: ReplySink, root: Root, calls: rpc.Calls) -> None:  # noqa: ARG002
        sink.results([calls.answer], [api.write_limits_response(self._limits)])

    def _add(self, sink: ReplySink, queue: Queue, calls: rpc.Calls) -> None:
        began = self._clock.monotonic()
        if self.draining:
            raise Stopping("the server is stopping")
        self._refuse_adds(sum(calls.sizes))
        if self._committer.stalled:
            raise Overloaded("the storage engine has to catch up first; try again later")
        if self._committer.pending_bytes > self._limits.pending_bytes:
            raise self._too_much_pending()
        requests = calls.requests
        if isinstance(requests, rpc.Params):
            # Before the items are read: a refusal has to be cheap.
            least = max(calls.sizes[0], _ITEM_BYTES)
            if sink.request_bytes and sink.request_bytes + least > self._limits.request_bytes:
                raise self._too_much_of_one(sink.request_bytes + least)
            requests = [api.read_add_request(requests, self._limits).items]
        # Each add counts its message, or its items if these are many and small.
        sizes: list[int] = []
        for size, items in zip(calls.sizes, requests, strict=True):
            least = _ITEM_BYTES * (len(items) or 1)
            sizes.append(max(least, size))
        answers, size = calls.answers, sum(sizes)
        if sink.request_bytes + size > self._limits.request_bytes:
            refused = self._too_much(sink, sizes)
            answers, requests, sizes = self._refuse_some(sink, refused, "add", answers, requests, sizes)
            size = sum(sizes)
        if queue.timed_out:
            # Polls that wait no longer get none of the items that are added after them.
            self._dispatcher.serve_no_wait(queue)
        self._decide(sink, _ADD, self._broker.add, queue, answers, requests, began, size)

    def _remove(self, sink: ReplySink, queue: Queue, calls: rpc.Calls) -> None:
        began = self._clock.monotonic()
        if self._committer.pending_bytes > self._limits.pending_bytes:
            raise self._too_much_pending()
        requests: list[Any] = calls.read(api.read_remove_request)
        self._decide(sink, _REMOVE, self._broker.remove, queue, calls.answers, requests, began, 0)

    def _extend(self, sink: ReplySink, queue: Queue, calls: rpc.Calls) -> None:
        began = self._clock.monotonic()
        if self._committer.pending_bytes > self._limits.pending_bytes:
            raise self._too_much_pending()
        requests: list[Any] = calls.read(partial(api.read_extend_request, limits=self._limits))
        answers, sizes = calls.answers, calls.sizes
        if sink.request_bytes + sum(sizes) > self._limits.request_bytes:
            refused = self._too_much(sink, sizes)
            answers, requests, sizes = self._refuse_some(sink, refused, "extend", answers, requests, sizes)
        self._decide(sink, _EXTEND, self._broker.extend, queue, answers, requests, began, sum(sizes))

    def _decide(
        self,
        sink: ReplySink,
        method: _Method,
        decide: Callable[[Queue, Sequence[Any], WallMs], Plan[list[Any]]],
        queue: Queue,
        answers: list[rpc.AnswerId],
        requests: Sequence[Any],
        began: float,
        size: int,
    ) -> None:
        """Let the broker decide *requests*, which count *size* in `request_bytes`, and submit the plan."""
        if not answers:
            return
        try:
            plan = decide(queue, requests, self._clock.now())
        except Exception as why:
            self._committer.bug(why)
            raise
        # A hundred bytes may rewrite a lease of many items: what that takes is charged to the connection, too.
        size = max(size, plan.size)
        sink.request_bytes += size
        take_replies = partial(self._reply, sink, method, answers, began, size)
        self._committer.submit(plan, take_replies, calls=len(answers))

    def _reply(
        self,
        sink: ReplySink,
        method: _Method,
        answers: list[rpc.AnswerId],
        began: float,
        size: int,
        replies: list[Any],
    ) -> None:
        """Return *replies*, which are durable; the calls counted *size* in `request_bytes`."""
        sink.request_bytes -= size
        if not method.reply_types.issuperset(map(type, replies)):
            refused = {place: reply for place, reply in enumerate(replies) if isinstance(reply, QueueberError)}
            answers, replies = self._refuse_some(sink, refused, method.name, answers, replies)
        if answers:
            self.stats.seconds[method.name].observe(self._clock.monotonic() - began, len(answers))
            sink.results(answers, method.encode(replies))

    def _poll(self, sink: ReplySink, queue: Queue, calls: rpc.Calls) -> None:
        began = self._clock.monotonic()
        requests = calls.read(partial(api.read_poll_request, limits=self._limits))
        if self.draining:
            raise Stopping("the server is stopping")
        now = self._clock.now()
        for answer, request in zip(calls.answers, requests, strict=True):
            try:
                waiter = self._broker.poll(
                    queue,
                    wanted=request.num_items,
                    lease_duration=request.lease,
                    wait=_NO_WAIT if request.no_wait else request.wait,
                    peer=sink.peer,
                    now=now,
                )
            except QueueberError as why:
                self._refuse(sink, answer, why, "poll")
                continue
            except Exception as why:
                self._committer.bug(why)
                raise
            sink.waits(answer, waiter)
            self._dispatcher.wait(waiter, began, partial(self._return_delivery, sink, answer, began))

    def _return_delivery(self, sink: ReplySink, answer: rpc.AnswerId, began: float, delivery: Delivery | None) -> None:
        if delivery is None:
            sink.canceled(answer)
        elif delivery.error is not None:
            self._refuse(sink, answer, delivery.error, "poll")
        else:
            self.stats.seconds["poll"].observe(self._clock.monotonic() - began)
            items: list[api.PolledItem] = []
            for key, contents, added_at, attempts in delivery.items:
                items.append(_new(api.PolledItem, (contents, key.id, attempts + 1, added_at)))
            lease = delivery.lease
            lease_id, deadline = (b"", WallMs(0)) if lease is None else (lease.id, lease.deadline)
            sink.results([answer], [api.write_poll_response(api.PollResponse(items, lease_id, deadline))])

    # Refusals

    def _refuse(self, sink: ReplySink, answer: rpc.AnswerId, why: QueueberError, method: str) -> None:
        self.stats.refused[method, why.kind] += 1
        if why.limit is not None:
            self._broker.limit_hits[why.limit] += 1
        sink.error(answer, why.kind, str(why))

    def _refuse_some(
        self,
        sink: ReplySink,
        refused: Mapping[int, QueueberError],
        method: str,
        answers: list[rpc.AnswerId],
        *lists: list[Any],
    ) -> tuple[list[Any], ...]:
        """Refuse the calls at some places; return *answers* and *lists* without those places."""
        for place, why in refused.items():
            self._refuse(sink, answers[place], why, method)
        rest = [place for place in range(len(answers)) if place not in refused]
        return tuple([each[place] for place in rest] for each in (answers, *lists))

    def _too_much_pending(self) -> Overloaded:
        """
        Return the error for a batch that arrives while the plans that wait for a commit are over their limit.

        A batch that is let in may pass the limit by the calls of one read.  Calls that write nothing are refused, too:
        their replies wait for the commits before them.
        """
        return Overloaded(
            f"what waits for the disk is {counted(self._committer.pending_bytes, 'byte')};"
            f" the limit is {self._limits.pending_bytes:,} (pending_bytes)",
            limit="pending_bytes",
        )

    def _too_much_of_one(self, size: int) -> Overloaded:
        """Return the error for an add or extend with which those of its connection would be *size* bytes."""
        return Overloaded(
            f"adds and extends of this connection that wait for the disk would be {counted(size, 'byte')};"
            f" the limit is {self._limits.request_bytes:,} (request_bytes)",
            limit="request_bytes",
        )

    def _too_much(self, sink: ReplySink, sizes: Sequence[int]) -> dict[int, Overloaded]:
        """Return why adds or extends of these sizes are refused, by their places; those before are carried out."""
        waiting, limit = sink.request_bytes, self._limits.request_bytes
        refused: dict[int, Overloaded] = {}
        for place, size in enumerate(sizes):
            if waiting and waiting + size > limit:
                refused[place] = self._too_much_of_one(waiting + size)
            else:
                waiting += size
        return refused
