"""
The methods of the objects that a peer can call.

Calls come in batches: each handler reads the requests of one, lets the broker
decide them into one plan, submits the plan, and returns the replies once it is
durable.  A call that is refused is refused alone.  Nothing is decided here but
what there is room for.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, ParamSpec, Protocol, TypeAlias, TypeVar

from attrs import define, field

from queueber import api, rpc
from queueber.broker import DEFAULT_QUEUE, Broker, Delivery, Peer, Queue, Waiter
from queueber.errors import Kind, Overloaded, QueueberError, RemoteProtocolError, Stopping, Unimplemented
from queueber.limits import Limits
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.dispatcher import Dispatcher
from queueber.server.monitoring.stats import LIMITS, METHODS, OTHER, QUEUE, Calls
from queueber.units import SpanMs, WallMs, counted

P = ParamSpec("P")
T = TypeVar("T")

_new: Final = tuple.__new__
"""Makes a named tuple out of a plain one, in a third of the time that its class takes."""

_ITEM_BYTES: Final = 256
"""Counted in `request_bytes` for an item of no size: a thousand of those fit in 32 bytes of a message."""


class ReplySink(Protocol):
    """The connection that takes the replies of its calls."""

    peer: Peer
    """Number of the connection, among all that there ever were."""

    request_bytes: int
    """Bytes of its adds and extends that wait for the disk; kept up by the handlers."""

    def results(self, answers: Sequence[rpc.AnswerId], contents: Sequence[bytes]) -> None:
        """Return one of *contents* for each of *answers*."""

    def queue_results(self, answer: rpc.AnswerId, queue: Queue) -> None:
        """Return a capability to *queue*."""

    def error(self, answer: rpc.AnswerId, kind: Kind, reason: str) -> None:
        """Return an exception."""

    def canceled(self, answer: rpc.AnswerId) -> None:
        """Return that the call was given up."""

    def waits(self, answer: rpc.AnswerId, waiter: Waiter) -> None:
        """Note that the call is a poll that waits, until it is returned."""


class Root:
    """The object a connection bootstraps: the default queue, and the way to the others."""


Handler: TypeAlias = Callable[[ReplySink, Any, rpc.Calls], None]


@define(eq=False)
class QueueHandlers:
    """Carries calls to the broker and replies back."""

    _broker: Broker
    _committer: Committer
    _dispatcher: Dispatcher
    _clock: QueueClock
    _limits: Limits
    _refuse_adds: Callable[[int], None]
    """Called with the length of adds; raises `Overloaded` if there is no room for them on the disk."""

    root: Root = field(factory=Root)
    draining: bool = False
    """The server is stopping: new adds and polls are refused, calls under way may end."""

    outstanding: int = 0
    """Calls that have not been answered."""

    calls: Calls = field(factory=Calls)
    _handlers: dict[tuple[int, int], tuple[str, Handler]] = field(init=False)

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

    def call(self, sink: ReplySink, calls: rpc.Calls) -> None:
        """
        Carry out *calls*; *sink* takes each reply, now or later.

        Raises:
            RemoteProtocolError: the parameters cannot be read.
        """
        name, handler = self._handlers.get((calls.interface_id, calls.method_id), (OTHER, self._unknown))
        target = calls.target
        if calls.interface_id == api.BROKER_INTERFACE_ID:
            if target is not self.root:
                name, handler = OTHER, self._unknown
        elif target is self.root:
            target = self._broker.queue(DEFAULT_QUEUE)
        count = len(calls.answers)
        self.outstanding += count
        self.calls.begun[name] += count
        try:
            handler(sink, target, calls)
        except RemoteProtocolError:
            self.outstanding -= count
            raise
        except QueueberError as why:
            # Refused before anything was changed.
            for answer in calls.answers:
                self._refuse(sink, answer, why, name)

    def _unknown(self, sink: ReplySink, target: object, calls: rpc.Calls) -> None:  # noqa: ARG002
        raise Unimplemented(f"the object has no method {calls.method_id} of interface {calls.interface_id:#018x}")

    def _queue(self, sink: ReplySink, root: Root, calls: rpc.Calls) -> None:  # noqa: ARG002
        queue = self._broker.queue(api.read_queue_request(calls.params))
        sink.queue_results(calls.answer, queue)

    def _return_limits(self, sink: ReplySink, root: Root, calls: rpc.Calls) -> None:  # noqa: ARG002
        sink.results([calls.answer], [api.write_limits_response(self._limits)])

    def _add(self, sink: ReplySink, queue: Queue, calls: rpc.Calls) -> None:
        began = self._clock.monotonic()
        if self.draining:
            raise Stopping("the server is stopping")
        self._refuse_while_behind(sum(calls.sizes))
        if calls.encoded:
            # Before the items are read: a refusal has to be cheap.
            for why in self._too_much(sink, _charges(calls, [()])).values():
                raise why
        requests = calls.read(partial(_items_of, limits=self._limits))
        sizes = _charges(calls, requests)
        answers = calls.answers
        refused = self._too_much(sink, sizes)
        if refused:
            answers, requests, sizes = self._refuse_some(sink, refused, METHODS[api.ADD], answers, requests, sizes)
        if not answers:
            return
        size = sum(sizes)
        self._dispatcher.serve_now(queue)
        plan = self._decide(self._broker.add, queue, requests, self._clock.now())
        sink.request_bytes += size
        replied = partial(self._reply, sink, api.ADD, api.write_add_responses, answers, began, size)
        self._committer.submit(plan, replied, calls=len(answers))

    def _remove(self, sink: ReplySink, queue: Queue, calls: rpc.Calls) -> None:
        began = self._clock.monotonic()
        self._refuse_while_full()
        requests: list[Any] = calls.read(api.read_remove_request)
        plan = self._decide(self._broker.remove, queue, requests, self._clock.now())
        replied = partial(self._reply, sink, api.REMOVE, api.write_remove_responses, calls.answers, began, 0)
        self._committer.submit(plan, replied, calls=len(calls.answers))

    def _extend(self, sink: ReplySink, queue: Queue, calls: rpc.Calls) -> None:
        began = self._clock.monotonic()
        self._refuse_while_full()
        # A hundred bytes may rewrite a lease of many items: what that takes is charged to the connection that asks.
        refused = self._too_much(sink, calls.sizes)
        requests: list[Any] = calls.read(partial(api.read_extend_request, limits=self._limits))
        answers = calls.answers
        if refused:
            answers, requests = self._refuse_some(sink, refused, METHODS[api.EXTEND], answers, requests)
        if not answers:
            return
        plan = self._decide(self._broker.extend, queue, requests, self._clock.now())
        size = max(sum(calls.sizes), plan.size)
        sink.request_bytes += size
        replied = partial(self._reply, sink, api.EXTEND, api.write_extend_responses, answers, began, size)
        self._committer.submit(plan, replied, calls=len(answers))

    def _reply(
        self,
        sink: ReplySink,
        method: int,
        write: Callable[[Sequence[Any]], list[bytes]],
        answers: list[rpc.AnswerId],
        began: float,
        size: int,
        replies: list[Any],
    ) -> None:
        """Return *replies*, which are durable; the calls were charged *size* bytes."""
        name = METHODS[method]
        sink.request_bytes -= size
        refused = {place: reply for place, reply in enumerate(replies) if isinstance(reply, QueueberError)}
        if refused:
            answers, replies = self._refuse_some(sink, refused, name, answers, replies)
        if answers:
            self.calls.seconds[name].observe(self._clock.monotonic() - began, len(answers))
            sink.results(answers, write(replies))

    def _poll(self, sink: ReplySink, queue: Queue, calls: rpc.Calls) -> None:
        began = self._clock.monotonic()
        requests = calls.read(partial(api.read_poll_request, limits=self._limits))
        if self.draining:
            raise Stopping("the server is stopping")
        for answer, request in zip(calls.answers, requests, strict=True):
            try:
                waiter = self._decide(
                    self._broker.poll,
                    queue,
                    wanted=request.num_items,
                    lease_duration=request.lease,
                    wait=SpanMs(0) if request.no_wait else request.wait,
                    peer=sink.peer,
                    now=self._clock.now(),
                )
            except QueueberError as why:
                self._refuse(sink, answer, why, METHODS[api.POLL])
                continue
            sink.waits(answer, waiter)
            self._dispatcher.wait(waiter).addCallback(partial(self._polled, sink, answer, began))

    def _polled(self, sink: ReplySink, answer: rpc.AnswerId, began: float, delivery: Delivery | None) -> None:
        if delivery is None:
            sink.canceled(answer)
        elif delivery.error is not None:
            self._refuse(sink, answer, delivery.error, METHODS[api.POLL])
        else:
            self.calls.seconds["poll"].observe(self._clock.monotonic() - began)
            sink.results([answer], [api.write_poll_response(_response(delivery))])

    # Refusals

    def _refuse(self, sink: ReplySink, answer: rpc.AnswerId, why: QueueberError, method: str) -> None:
        self.calls.refused[method, why.kind] += 1
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
        """Refuse the calls at some places; *answers* and *lists* without those places."""
        for place, why in refused.items():
            self._refuse(sink, answers[place], why, method)
        rest = [place for place in range(len(answers)) if place not in refused]
        return tuple([each[place] for place in rest] for each in (answers, *lists))

    def _refuse_while_behind(self, size: int) -> None:
        self._refuse_adds(size)
        if self._committer.stalled:
            raise Overloaded("the storage engine has to catch up first; try again later")
        self._refuse_while_full()

    def _refuse_while_full(self) -> None:
        """
        Refuse a batch while too much waits for the disk; one that is let in may pass the limit by the calls of a read.

        Calls that write nothing count, too: they may not be answered before what they were decided upon is durable.
        """
        pending, limit = self._committer.pending_bytes, self._limits.pending_bytes
        if pending > limit:
            raise Overloaded(
                f"what waits for the disk is {counted(pending, 'byte')}; the limit is {limit:,} (pending_bytes)",
                limit="pending_bytes",
            )

    def _too_much(self, sink: ReplySink, sizes: Sequence[int]) -> dict[int, Overloaded]:
        """Why adds or extends of these sizes are refused, by their places, as if those before were carried out."""
        waiting, limit = sink.request_bytes, self._limits.request_bytes
        refused: dict[int, Overloaded] = {}
        if waiting + sum(sizes) <= limit:
            return refused
        for place, size in enumerate(sizes):
            if waiting and waiting + size > limit:
                refused[place] = Overloaded(
                    f"adds and extends of this connection that wait for the disk would be"
                    f" {counted(waiting + size, 'byte')}; the limit is {limit:,} (request_bytes)",
                    limit="request_bytes",
                )
            else:
                waiting += size
        return refused

    def _decide(self, decision: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the broker decides.  It may refuse; any other exception is a bug that ends the process."""
        try:
            return decision(*args, **kwargs)
        except QueueberError:
            raise
        except Exception as why:
            self._committer.bug(why)
            raise


def _charges(calls: rpc.Calls, requests: Sequence[Sequence[api.NewItem]]) -> list[int]:
    """What each add counts in `request_bytes`: its message, or its items if these are many and small."""
    return [max(size, _ITEM_BYTES * (len(items) or 1)) for size, items in zip(calls.sizes, requests, strict=True)]


def _items_of(params: rpc.Params, limits: Limits) -> Sequence[api.NewItem]:
    return api.read_add_request(params, limits).items


def _response(delivery: Delivery) -> api.PollResponse:
    items = [
        _new(api.PolledItem, (contents, key.id, attempts + 1, added_at))
        for key, contents, added_at, attempts in delivery.items
    ]
    if delivery.lease is None:
        return api.PollResponse(items, b"", WallMs(0))
    return api.PollResponse(items, delivery.lease.id, delivery.lease.deadline)
