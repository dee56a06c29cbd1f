"""
The methods of the objects that a peer can call.

Each reads its parameters, asks the broker, submits the plan and returns the
reply when it is spoken.  Nothing is decided here.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from attrs import define, field

from queueber import wire
from queueber.broker import DEFAULT_QUEUE, Broker, Delivery, ItemId, LeaseId, Peer, Queue, Waiter
from queueber.errors import Kind, Overloaded, QueueberError, RemoteProtocolError, Stopping, Unimplemented
from queueber.limits import Limits
from queueber.server.clock import QueueClock
from queueber.server.committer import PLAN_BYTES, Committer
from queueber.server.dispatcher import Dispatcher
from queueber.server.load import LIMITS, METHODS, OTHER, QUEUE, Calls
from queueber.units import SpanMs, WallMs

P = ParamSpec("P")
T = TypeVar("T")

_new: Final = tuple.__new__
"""Makes a named tuple out of a plain one, in a third of the time that its class takes."""


class Caller(Protocol):
    """Where a method's reply goes."""

    peer: Peer
    """Who it is, among all that there ever were."""

    request_bytes: int
    """What its adds and extends that wait for the disk take; kept up by the methods."""

    def results(self, answer: wire.AnswerId, content: bytes) -> None:
        """Return *content*."""

    def results_each(self, answers: Sequence[wire.AnswerId], contents: Iterable[bytes]) -> None:
        """Return one of *contents* for each of *answers*, none of which is a poll's."""

    def queue_results(self, answer: wire.AnswerId, queue: Queue) -> None:
        """Return a capability to *queue*."""

    def error(self, answer: wire.AnswerId, kind: Kind, reason: str) -> None:
        """Return an exception."""

    def canceled(self, answer: wire.AnswerId) -> None:
        """Return that the call was given up."""

    def waits(self, answer: wire.AnswerId, waiter: Waiter) -> None:
        """The call is a poll that waits, until it is returned."""


class Root:
    """What a connection bootstraps: the default queue, and the way to the others."""


# What an item of no size counts in `request_bytes`.
_ITEM_BYTES = 256

Handler = Callable[[Caller, wire.AnswerId, Queue, wire.Params], None]
Together = Callable[[Caller, wire.CalledAlike, Queue, list[Any]], None]


@define(eq=False)
class Methods:
    """Carries calls to the broker and replies back."""

    _broker: Broker
    _committer: Committer
    _dispatcher: Dispatcher
    _clock: QueueClock
    _limits: Limits
    root: Root = field(factory=Root)
    draining: bool = False
    """The server is stopping: nothing new is taken, what is under way may be ended."""

    outstanding: int = 0
    """Calls that have not been answered."""

    calls: Calls = field(factory=Calls)
    refuse_adds: Callable[[int], None] = lambda _: None
    """Told the length of an add, and raises `Overloaded` if there is no room for it."""

    _handlers: dict[int, Handler] = field(init=False)
    _together: dict[int, tuple[Callable[..., Any], Together]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Bind the methods to their ordinals."""
        self._handlers = {
            wire.ADD: self._add,
            wire.REMOVE: self._remove,
            wire.POLL: self._poll,
            wire.EXTEND: self._extend,
        }
        self._together = {
            wire.ADD: (wire.read_alike_add, self._add_each),
            wire.REMOVE: (lambda params, _: wire.read_alike_remove(params), self._remove_each),
        }

    def call(self, caller: Caller, called: wire.Called) -> None:
        """
        Carry out a call; *caller* is told the reply, now or later.

        Raises:
            RemoteProtocolError: the parameters cannot be read.
        """
        target = called.target
        self.outstanding += 1
        method = OTHER
        try:
            if called.interface_id == wire.QUEUE_INTERFACE_ID and called.method_id in self._handlers:
                method = METHODS[called.method_id]
                self.calls.begun[method] += 1
                queue = target if isinstance(target, Queue) else self._broker.queue(DEFAULT_QUEUE)
                self._handlers[called.method_id](caller, called.answer, queue, called.params)
            elif (called.interface_id, called.method_id, target) == (wire.BROKER_INTERFACE_ID, wire.QUEUE, self.root):
                method = QUEUE
                self.calls.begun[method] += 1
                caller.queue_results(called.answer, self._broker.queue(wire.read_queue_request(called.params)))
            elif (called.interface_id, called.method_id, target) == (wire.BROKER_INTERFACE_ID, wire.LIMITS, self.root):
                method = LIMITS
                self.calls.begun[method] += 1
                caller.results(called.answer, wire.write_limits_response(self._limits))
            else:
                self.calls.begun[method] += 1
                raise Unimplemented(
                    f"the object has no method {called.method_id} of interface {called.interface_id:#018x}"
                )
        except RemoteProtocolError:
            self.outstanding -= 1
            raise
        except QueueberError as why:
            # Refused before anything was changed.
            self._refuse(caller, called.answer, why, method)

    def call_each(self, caller: Caller, called: wire.CalledAlike) -> None:
        """
        Carry out calls that came in a row, each as `call` does.

        Adds of one item, and removes, are decided together and are one plan, which costs a fraction of what they cost
        one by one.  What is not alike enough for that, or would be refused, is carried out by itself.

        Raises:
            RemoteProtocolError: the parameters of one cannot be read; those before it have been carried out.
        """
        together = self._together.get(called.method_id) if called.interface_id == wire.QUEUE_INTERFACE_ID else None
        if together is None:
            self._one_by_one(caller, called)
            return
        read, decide = together
        if called.requests is not None:
            self._decide_each(decide, caller, called, called.requests)
            return
        first = 0
        requests: list[Any] = []
        for at, params in enumerate(called.params):
            request = read(params, self._limits)
            if request is None:
                self._decide_each(decide, caller, called.part(first, at), requests)
                self._one_by_one(caller, called.part(at, at + 1))
                first, requests = at + 1, []
            else:
                requests.append(request)
        self._decide_each(decide, caller, called.part(first, len(called.params)), requests)

    def _one_by_one(self, caller: Caller, called: wire.CalledAlike) -> None:
        for each in called.each():
            self.call(caller, each)

    def _decide_each(self, decide: Together, caller: Caller, called: wire.CalledAlike, requests: list[Any]) -> None:
        if len(requests) > 1:
            target = called.target
            queue = target if isinstance(target, Queue) else self._broker.queue(DEFAULT_QUEUE)
            try:
                decide(caller, called, queue, requests)
            except QueueberError:
                # Nothing was changed; which of them are refused, and why, is found out one by one.
                pass
            else:
                self.outstanding += len(requests)
                self.calls.begun[METHODS[called.method_id]] += len(requests)
                return
        self._one_by_one(caller, called)

    def _refuse(self, caller: Caller, answer: wire.AnswerId, why: QueueberError, method: str) -> None:
        self.calls.refused[method, why.kind] += 1
        if why.limit is not None:
            self._broker.limit_hits[why.limit] += 1
        caller.error(answer, why.kind, str(why))

    def _add(self, caller: Caller, answer: wire.AnswerId, queue: Queue, params: wire.Params) -> None:
        began = self._clock.monotonic()
        # Before anything is read out of it: a refusal has to be cheap.
        self._refuse_new_work()
        size = params.frame_bytes
        self._refuse_while_behind(size)
        self._refuse_too_much(caller.request_bytes, size)
        request = wire.read_add_request(params, self._limits)
        # A thousand items of no size fit in 32 bytes, and cost as much to hold as others do.
        if _ITEM_BYTES * len(request.items) > size:
            size = _ITEM_BYTES * len(request.items)
            self._refuse_too_much(caller.request_bytes, size)
        self._dispatcher.serve_now(queue)
        plan = self._decide(self._broker.add, queue, request.items, self._clock.now())
        caller.request_bytes += size
        self._committer.submit(plan, partial(self._added, caller, answer, began, size))

    def _add_each(self, caller: Caller, called: wire.CalledAlike, queue: Queue, items: list[wire.NewItem]) -> None:
        began = self._clock.monotonic()
        self._refuse_new_work()
        size = called.bytes_at_least(_ITEM_BYTES)
        self._refuse_while_behind(size)
        self._refuse_to_overfill(size, len(items))
        # Of several not even the first may be larger than the bound: then they are found out about one by one.
        self._refuse_too_much(caller.request_bytes or 1, size)
        self._dispatcher.serve_now(queue)
        plan = self._decide(self._broker.add_each, queue, items, self._clock.now())
        caller.request_bytes += size
        speak = partial(self._added_each, caller, called.answers, began, size)
        self._committer.submit(plan, speak, calls=len(items))

    def _added_each(
        self, caller: Caller, answers: list[wire.AnswerId], began: float, size: int, ids: list[ItemId]
    ) -> None:
        self.calls.seconds["add"].observe(self._clock.monotonic() - began, len(ids))
        caller.request_bytes -= size
        caller.results_each(answers, wire.write_add_responses(ids))

    def _refuse_too_much(self, waiting: int, size: int) -> None:
        limit = self._limits.request_bytes
        if waiting and waiting + size > limit:
            raise Overloaded(
                f"adds and extends of this connection that wait for the disk would be {waiting + size:,} bytes;"
                f" the limit is {limit:,} (request_bytes)",
                limit="request_bytes",
            )

    def _refuse_while_behind(self, size: int) -> None:
        self.refuse_adds(size)
        if self._committer.stalled:
            raise Overloaded("the storage engine has to catch up first; try again later")
        self._refuse_while_full()

    def _refuse_while_full(self) -> None:
        # What writes nothing, too: it may not be answered before what it was decided upon is on disk.
        pending = self._committer.pending_bytes
        if pending > self._limits.pending_bytes:
            raise Overloaded(
                f"what waits for the disk is {pending:,} bytes; the limit is {self._limits.pending_bytes:,}"
                " (pending_bytes)",
                limit="pending_bytes",
            )

    def _refuse_to_overfill(self, size: int, calls: int) -> None:
        """Those that come together are found out about one by one if the last of them might be refused then."""
        # A remove may be two rows.
        each = PLAN_BYTES + 2 * self._limits.item_overhead
        if self._committer.pending_bytes + size + calls * each > self._limits.pending_bytes:
            raise Overloaded("what waits for the disk may be too much for one of these calls", limit="pending_bytes")

    def _added(self, caller: Caller, answer: wire.AnswerId, began: float, size: int, ids: list[ItemId]) -> None:
        self.calls.seconds["add"].observe(self._clock.monotonic() - began)
        caller.request_bytes -= size
        caller.results(answer, wire.write_add_response(ids))

    def _remove(self, caller: Caller, answer: wire.AnswerId, queue: Queue, params: wire.Params) -> None:
        began = self._clock.monotonic()
        self._refuse_while_full()
        request = wire.read_remove_request(params)
        plan = self._decide(self._broker.remove, queue, ItemId(request.id), LeaseId(request.lease), self._clock.now())
        self._committer.submit(plan, partial(self._removed, caller, answer, began))

    def _removed(self, caller: Caller, answer: wire.AnswerId, began: float, removed: bool) -> None:
        self.calls.seconds["remove"].observe(self._clock.monotonic() - began)
        caller.results(answer, wire.write_remove_response(removed))

    def _remove_each(
        self, caller: Caller, called: wire.CalledAlike, queue: Queue, pairs: list[tuple[ItemId, LeaseId]]
    ) -> None:
        began = self._clock.monotonic()
        self._refuse_to_overfill(0, len(pairs))
        plan = self._decide(self._broker.remove_each, queue, pairs, self._clock.now())
        speak = partial(self._removed_each, caller, called.answers, began)
        self._committer.submit(plan, speak, calls=len(pairs))

    def _removed_each(self, caller: Caller, answers: list[wire.AnswerId], began: float, removed: list[bool]) -> None:
        self.calls.seconds["remove"].observe(self._clock.monotonic() - began, len(removed))
        caller.results_each(answers, map(wire.write_remove_response, removed))

    def _extend(self, caller: Caller, answer: wire.AnswerId, queue: Queue, params: wire.Params) -> None:
        began = self._clock.monotonic()
        # A hundred bytes may rewrite a lease of many items: what that takes is charged to who asks for it.
        self._refuse_while_full()
        self._refuse_too_much(caller.request_bytes, params.frame_bytes)
        request = wire.read_extend_request(params, self._limits)
        plan = self._decide(self._broker.extend, queue, LeaseId(request.lease), request.span, self._clock.now())
        size = max(params.frame_bytes, plan.size)
        caller.request_bytes += size
        self._committer.submit(plan, partial(self._extended, caller, answer, size, began))

    def _extended(self, caller: Caller, answer: wire.AnswerId, size: int, began: float, extended: bool) -> None:
        caller.request_bytes -= size
        self.calls.seconds["extend"].observe(self._clock.monotonic() - began)
        caller.results(answer, wire.write_extend_response(extended))

    def _poll(self, caller: Caller, answer: wire.AnswerId, queue: Queue, params: wire.Params) -> None:
        began = self._clock.monotonic()
        request = wire.read_poll_request(params, self._limits)
        self._refuse_new_work()
        waiter = self._decide(
            self._broker.poll,
            queue,
            wanted=request.num_items,
            span=request.lease,
            wait=SpanMs(0) if request.no_wait else request.wait,
            peer=caller.peer,
            now=self._clock.now(),
        )
        caller.waits(answer, waiter)
        self._dispatcher.wait(waiter).addCallback(partial(self._polled, caller, answer, began))

    def _polled(self, caller: Caller, answer: wire.AnswerId, began: float, delivery: Delivery | None) -> None:
        if delivery is None:
            caller.canceled(answer)
        elif delivery.error is not None:
            self._refuse(caller, answer, delivery.error, METHODS[wire.POLL])
        else:
            self.calls.seconds["poll"].observe(self._clock.monotonic() - began)
            caller.results(answer, wire.write_poll_response(_response(delivery)))

    def _decide(self, decision: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the broker decides.  It may refuse; any other exception is a bug that ends the process."""
        try:
            return decision(*args, **kwargs)
        except QueueberError:
            raise
        except Exception as why:
            self._committer.bug(why)
            raise

    def _refuse_new_work(self) -> None:
        if self.draining:
            raise Stopping("the server is stopping")


def _response(delivery: Delivery) -> wire.PollResponse:
    items = [
        _new(wire.PolledItem, (contents, key.id, attempts + 1, added_at))
        for key, contents, added_at, attempts in delivery.items
    ]
    if delivery.lease is None:
        return wire.PollResponse(items, b"", WallMs(0))
    return wire.PollResponse(items, delivery.lease.id, delivery.lease.deadline)
