"""
The methods of the objects that a peer can call: the table of all, and adds, removes and extends.

Calls come in batches.  A handler admits the calls of a batch, reads their
requests, lets the broker decide them into one plan, submits the plan, and
returns the replies once it is durable.  A call that is refused is refused alone.
The handlers decide only whether there is room for a call, before they read its
request.

Many connections with one call each would make many plans of one call.  So adds
or removes of one queue that follow one another are decided together, at the end
of the reactor turn that brought them, whichever connections they are from.  Any
other call, a cut and a sweep have those that came before decided first: the
order of decisions is the order of arrival.
"""

from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any, Final, Protocol

from attrs import define, field

from queueber import api, rpc
from queueber.api.control_types import CONTROL_INTERFACE_ID
from queueber.broker import Broker, Peer, Queue
from queueber.errors import QueueberError, RemoteProtocolError, Stopping, Unimplemented
from queueber.limits import Limits
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.control_handlers import Controlled
from queueber.server.core.dispatcher import Dispatcher
from queueber.server.core.keyed_adds import KeyedAdds
from queueber.server.core.replies import Handler, Methods, Replies, ReplySink
from queueber.server.core.stats import METHODS, OTHER_METHOD, CallStats
from queueber.server.core.write_methods import (
    ADDS,
    EXTENDS,
    ITEM_BYTES,
    ITEM_MESSAGE_BYTES,
    REMOVES,
    SHARED_BYTES,
    Collected,
    Share,
    WriteMethod,
    release_unwritten,
    reply_with_refusals,
)
from queueber.values import DEFAULT_QUEUE

_new: Final = tuple.__new__
"""Makes a named tuple out of a plain one, in a third of the time that its class takes."""


class Handlers(Protocol):
    """The methods that a connection can call."""

    @property
    def root(self) -> object:
        """The object that a connection bootstraps."""

    def call(self, sink: ReplySink, calls: rpc.Calls) -> None:
        """
        Carry out *calls*.  *sink* takes each reply, now or later.

        Raises:
            RemoteProtocolError: the parameters cannot be read.
        """


class Root:
    """The object that a connection bootstraps: the default queue, with methods that return other queues."""


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

    _replies: Replies
    _keyed_adds: KeyedAdds
    _more: Methods
    """The methods of other modules."""

    root: Root = field(factory=Root)
    draining: bool = field(default=False, init=False)
    """The server is stopping."""

    stats: CallStats = field(init=False)
    request_bytes: dict[Peer, int] = field(init=False)
    """The `request_bytes` of the replies, to which adds and removes add without a further call."""

    _handlers: dict[tuple[int, int], tuple[str, Handler]] = field(init=False)
    _default_queue: Queue | None = field(default=None, init=False)
    _collected: Collected | None = field(default=None, init=False)
    """Calls that arrived in this reactor turn and are yet to be decided."""

    _collected_bytes: int = field(default=0, init=False)
    """The length of their messages."""

    sharing_max: int = field(default=0, init=False)
    """
    Calls are decided at once while the committer's `pending_bytes` are above this.

    They do not count there before they are decided, and would pass the limit together.
    """

    def __attrs_post_init__(self) -> None:
        """Bind the methods to their numbers, and join the committer's cuts."""
        self._committer.call_to_decide(self.decide)
        limits = self._limits
        self.sharing_max = limits.pending_bytes - SHARED_BYTES * (1 + limits.item_overhead // ITEM_MESSAGE_BYTES)
        self.stats, self.request_bytes = self._replies.stats, self._replies.request_bytes
        queue, broker = api.QUEUE_INTERFACE_ID, api.BROKER_INTERFACE_ID
        handlers: dict[tuple[int, int], Handler] = {
            (queue, api.ADD): partial(self._write, ADDS),
            (queue, api.REMOVE): partial(self._write, REMOVES),
            (queue, api.EXTEND): partial(self._write, EXTENDS),
            (broker, api.QUEUE): self._queue,
            (broker, api.LIMITS): self._return_limits,
            **self._more,
        }
        self._handlers = {method: (METHODS[method], handler) for method, handler in handlers.items()}

    @property
    def outstanding(self) -> int:
        """Return the number of calls on all connections that are not answered."""
        return self.stats.outstanding

    def drain(self) -> None:
        """Refuse new adds and polls, because the server is stopping; calls under way are carried out."""
        self.draining = True
        queue, broker = api.QUEUE_INTERFACE_ID, api.BROKER_INTERFACE_ID
        for method in ((queue, api.ADD), (queue, api.POLL), (broker, api.POLL_ANY)):
            self._handlers[method] = METHODS[method], self._refuse_stopping

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
        elif type(target) is Controlled and calls.interface_id != CONTROL_INTERFACE_ID:
            found = None
        name, handler = found or (OTHER_METHOD, self._unknown)
        if self._collected is not None and self._collected.method.number != (calls.interface_id, calls.method_id):
            self.decide()
        count = len(calls.answers)
        self.stats.outstanding += count
        self.stats.begun[name] += count
        try:
            handler(sink, target, calls)
        except RemoteProtocolError:
            self.stats.outstanding -= count
            raise
        except QueueberError as why:
            # Refused before anything was changed.
            for answer in calls.answers:
                self._replies.refuse(sink, answer, why, name)

    def _get_default_queue(self) -> Queue:
        # On the first call and not before: a broker must be restored before it is asked for a queue.
        self._default_queue = self._broker.queue(DEFAULT_QUEUE)
        return self._default_queue

    def _unknown(self, sink: ReplySink, target: object, calls: rpc.Calls) -> None:  # noqa: ARG002
        raise Unimplemented(f"the object has no method {calls.method_id} of interface {calls.interface_id:#018x}")

    def _refuse_stopping(self, sink: ReplySink, queue: Queue, calls: rpc.Calls) -> None:  # noqa: ARG002
        raise Stopping("the server is stopping")

    def _queue(self, sink: ReplySink, root: Root, calls: rpc.Calls) -> None:  # noqa: ARG002
        queue = self._broker.queue(api.read_queue_request(calls.params))
        sink.capabilities(calls.answer, api.QUEUE_RESPONSE, (queue,))

    def _return_limits(self, sink: ReplySink, root: Root, calls: rpc.Calls) -> None:  # noqa: ARG002
        sink.results([calls.answer], [api.write_limits_response(self._limits)])

    def _write(self, method: WriteMethod, sink: ReplySink, queue: Queue, calls: rpc.Calls) -> None:
        """Admit and read *calls*, and collect them for the next decision."""
        began = self._clock.monotonic()
        sizes = self._admit(sink, method, calls)
        if sizes is None:
            self._write_one_by_one(method, sink, queue, calls)
            return
        requests: Any = calls.requests
        if not isinstance(requests, list):
            requests = method.read(calls, self._limits)
        if type(requests) is api.AddRequest:
            size = max(sizes[0], ITEM_BYTES * len(requests.items))
            self._require_room(sink, size)
            self._replies.charge(sink.peer, size)
            self.decide()
            self._keyed_adds.add(sink, queue, calls.answers[0], requests, size)
            return
        if method is ADDS and len(requests) == 1 and ITEM_BYTES * len(requests[0]) > sizes[0]:
            # An add counts its message, or its items if these are many and small.
            sizes = [ITEM_BYTES * len(requests[0])]
            self._require_room(sink, sizes[0])
        if sizes:
            self.request_bytes[sink.peer] = self.request_bytes.get(sink.peer, 0) + sum(sizes)
        share = _new(Share, (sink, calls.answers, sizes))
        collected = self._collected
        if collected is not None and collected.queue is queue:
            # `call` has had those of other methods decided.
            collected.requests.extend(requests)
            collected.shares.append(share)
            self._collected_bytes += sum(calls.sizes)
        else:
            if collected is not None:
                self.decide()
            self._collected = _new(Collected, (method, queue, [*requests], [share], began))
            self._collected_bytes = sum(calls.sizes)
            self._committer.decide_soon()
        full = self._collected_bytes > SHARED_BYTES or self._committer.pending_bytes > self.sharing_max
        if full or not method.shared:
            self.decide()

    def _write_one_by_one(self, method: WriteMethod, sink: ReplySink, queue: Queue, calls: rpc.Calls) -> None:
        """Admit, read and collect *calls* one after the other, because there is no room for all."""
        for place, answer in enumerate(calls.answers):
            try:
                self._write(method, sink, queue, calls.select([place]))
            except QueueberError as why:
                self._replies.refuse(sink, answer, why, method.name)

    def _require_room(self, sink: ReplySink, size: int) -> None:
        """Raise `Overloaded` if *size* is too much even after the collected calls of *sink* are decided."""
        collected = self._collected
        shares = collected.shares if collected is not None and not self._replies.has_room(sink.peer, size) else ()
        if any(share.sink is sink for share in shares):
            # Those that write nothing no longer count then, as if each had been decided at once.
            self.decide()
        self._replies.require_room(sink.peer, size)

    def decide(self) -> None:
        """Let the broker decide the calls that were collected into one plan, and submit it."""
        if self._collected is None:
            return
        (method, queue, requests, shares, began), self._collected = self._collected, None
        try:
            if queue.timed_out and method is ADDS:
                # Polls that wait no longer get none of the items that are added after them.
                self._dispatcher.serve_no_wait(queue)
            plan = method.decide(self._broker)(queue, requests, self._clock.now())
        except Exception as why:
            self._committer.bug(why)
            raise
        if not method.shared and plan.size > sum(shares[0].sizes):
            # A hundred bytes may rewrite a lease of many items: what that takes is charged to the connection, too.
            ((sink, answers, sizes),) = shares
            self.request_bytes[sink.peer] = self.request_bytes.get(sink.peer, 0) + plan.size - sum(sizes)
            shares = [_new(Share, (sink, answers, [plan.size]))]
        elif method is ADDS and not (all(plan.reply) and ADDS.reply_types.issuperset(map(type, plan.reply))):
            shares = release_unwritten(self._replies, shares, plan.reply)
        self._committer.submit(plan, partial(self._reply, method, shares, began), calls=len(requests))

    def _admit(self, sink: ReplySink, method: WriteMethod, calls: rpc.Calls) -> list[int] | None:
        """
        Return what each of *calls* counts in `request_bytes`; None if they are several without room for all.

        Requests are read after this, so that a refusal is cheap.  Room is judged by the length of messages.  An add of
        many small items is judged again when it has been read.

        Raises:
            Overloaded: the calls of the connection that wait leave no room for the only call, or the state of the
                server refuses all calls of one read.  The disk has no room for adds, the storage engine has to catch up
                before more is added, or the plans that wait for a commit are over their limit.  What one read brings
                may pass that limit.  Calls that write nothing are refused with the others, because their replies wait
                for the commits before them.
        """
        if method is ADDS:
            self._refuse_adds(sum(calls.sizes))
        self._committer.require_room(adding=method is ADDS)
        if method.least_bytes is None:
            return []
        sizes = list(map(max, calls.sizes, repeat(method.least_bytes)))
        size = sum(sizes)
        if self.request_bytes.get(sink.peer, 0) + size > self._limits.request_bytes:
            if len(sizes) > 1:
                return None
            self._require_room(sink, size)
        return sizes

    def _reply(self, method: WriteMethod, shares: list[Share], began: float, replies: list[Any]) -> None:
        """Return *replies*, which are durable, to the connections of *shares*."""
        charged = self.request_bytes
        for sink, _, sizes in shares:
            # As `Replies.release` without a call.
            if sizes and (left := charged.pop(sink.peer) - sum(sizes)):
                charged[sink.peer] = left
        if not method.reply_types.issuperset(map(type, replies)):
            reply_with_refusals(self._replies, method, shares, self._clock.monotonic() - began, replies)
            return
        self.stats.seconds[method.name].observe(self._clock.monotonic() - began, len(replies))
        contents, at = method.encode(replies), 0
        for sink, answers, _ in shares:
            sink.results(answers, contents[at : (at := at + len(answers))])
