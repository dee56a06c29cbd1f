"""
The methods of `QueueControl`, and the two of `Broker` that lead to it: `queues` and `control`.

No reply runs ahead of the disk: each goes through the committer after its
decision, and a read is decided after all plans that were made before it ended.
"""

from collections.abc import Callable, Mapping
from functools import partial
from heapq import nsmallest
from typing import Any, Final, TypeAlias

from attrs import define, field, frozen

from queueber import api, rpc
from queueber.api import control_types as types
from queueber.api.control import (
    read_control_request,
    read_queues_request,
    write_control_response,
    write_queues_response,
)
from queueber.broker import Broker, ItemId, Lease, Peer, Plan, Queue
from queueber.broker.control import handle_of, leases_of
from queueber.broker.inspection import Count, Peek, end_of
from queueber.broker.lookups import LookupRead
from queueber.broker.model import HIGHEST, LOWEST
from queueber.broker.settings import FIELDS
from queueber.broker.stats import Bounds, bounds_of, exact_bounds
from queueber.broker.storage import Found
from queueber.errors import QueueberError, Unimplemented
from queueber.limits import Limits
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.inspections import Inspections
from queueber.server.core.lookups import LookupRunner
from queueber.server.core.pool import Pool
from queueber.server.core.replies import Handler, Methods, Replies, ReplySink
from queueber.server.core.stats import METHODS
from queueber.server.core.views import key_at, view_counts, view_item, view_lease, view_located, view_settings
from queueber.units import WallMs
from queueber.values import ControlOutcome, ItemState

_WIRE_NAMES: Final = {ours: wire for wire, ours in FIELDS.items()}

_SUMMARIES_BYTES: Final = 300
"""Memory for a queue in the list of queues, besides its name and labels."""


@frozen(eq=False)
class Controlled:
    """The object that `Broker.control` returns."""

    queue: Queue


@define(eq=False)
class _Call:
    """A call that was not answered yet."""

    sink: ReplySink
    answer: rpc.AnswerId
    method: int
    size: int
    """The bytes that it counts in `request_bytes`."""

    name: str


_Decide: TypeAlias = Callable[[Queue, Any, WallMs], Plan[Any]]


@define(eq=False)
class ControlHandlers:
    """Carries an operator's calls to the broker and replies back."""

    _broker: Broker
    _committer: Committer
    _pool: Pool
    _clock: QueueClock
    _limits: Limits
    _replies: Replies
    _lookups: LookupRunner
    _inspections: Inspections
    _addresses: Callable[[], Mapping[Peer, str]]
    """Returns the addresses of the open connections."""

    _on_queue: Mapping[int, Handler]
    """Handlers of other methods of `QueueControl`, which other modules have; their target is the queue."""

    methods: Methods = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Bind the methods to their numbers."""
        control, broker = self._broker.control, api.BROKER_INTERFACE_ID
        decided: dict[int, _Decide] = {
            types.SETTINGS: self._settings,
            types.CONFIGURE: self._configure,
            types.PURGE: lambda queue, dead, _: control.purge(queue, dead=dead),
            types.PAUSE: partial(self._pause, paused=True),
            types.RESUME: partial(self._pause, paused=False),
            types.DELETE: lambda queue, force, now: control.delete(queue, now, force=force),
        }
        handlers: dict[int, Callable[[_Call, Queue, Any], None]] = {
            **{method: partial(self._decide, decide) for method, decide in decided.items()},
            types.STATS: self._stats,
            types.PEEK: self._peek,
            types.GET: self._get,
            types.CANCEL: partial(self._change, lambda queue, _, found, now: control.cancel(queue, found, now)),
            types.KICK: partial(self._change, lambda queue, _, found, now: control.kick(queue, found, now)),
            types.RESCHEDULE: partial(
                self._change, lambda queue, request, found, now: control.reschedule(queue, found, request.due_ms, now)
            ),
            types.LEASES: self._list_leases,
            types.END_LEASE: self._end_lease,
        }
        on_queue: dict[int, Handler] = {
            **self._on_queue,
            **{method: partial(self._begin, method, handler) for method, handler in handlers.items()},
        }
        self.methods = {
            (broker, api.QUEUES): self._queues,
            (broker, api.CONTROL): self._control,
            **{(types.CONTROL_INTERFACE_ID, method): self._on_controlled(each) for method, each in on_queue.items()},
        }

    @staticmethod
    def _on_controlled(handler: Handler) -> Handler:
        """Return a handler that calls *handler* with the queue that the target controls."""

        def call(sink: ReplySink, target: object, calls: rpc.Calls) -> None:
            if not isinstance(target, Controlled):
                raise Unimplemented("the object is no QueueControl")
            handler(sink, target.queue, calls)

        return call

    # Of the broker

    def _control(self, sink: ReplySink, root: object, calls: rpc.Calls) -> None:  # noqa: ARG002
        queue = self._broker.queue(api.read_queue_request(calls.params))
        sink.capabilities(calls.answer, api.QUEUE_RESPONSE, (Controlled(queue),))

    def _queues(self, sink: ReplySink, root: object, calls: rpc.Calls) -> None:  # noqa: ARG002
        request = read_queues_request(calls.params)
        call = self._admit(sink, api.BROKER_INTERFACE_ID, api.QUEUES, calls)
        queues, now = self._broker.queues, self._clock.now()
        found: list[types.QueueSummary] = []
        names = queues.names.search(request.prefix, label=request.label, after=request.after)
        more = False
        for name in names:
            if len(found) == request.limit:
                more = True
                break
            queue = queues.named(name)
            counts = view_counts(queue, self._bounds(queue, now))
            found.append(types.QueueSummary(name=name, stats=counts, labels=queue.settings.labels))
        response = write_queues_response(types.Listed(found, more))
        self._submit(call, Plan([], (), response), lambda content: content)

    def _bounds(self, queue: Queue, now: WallMs) -> Bounds:
        """Return the bounds of *queue*, and have the due of its first item read if it is not known."""
        bounds = bounds_of(queue, now)
        if bounds.oldest is None:
            self._broker.first_dues.want(queue)
        return bounds

    # Calls that are decided at once

    def _admit(self, sink: ReplySink, interface: int, method: int, calls: rpc.Calls) -> _Call:
        self._committer.require_room()
        (size,) = calls.sizes
        self._replies.charge(sink.peer, size)
        return _Call(sink, calls.answer, method, size, METHODS[interface, method])

    def _begin(
        self,
        method: int,
        handler: Callable[[_Call, Queue, Any], None],
        sink: ReplySink,
        queue: Queue,
        calls: rpc.Calls,
    ) -> None:
        request = read_control_request(method, calls.params)
        call = self._admit(sink, types.CONTROL_INTERFACE_ID, method, calls)
        try:
            handler(call, queue, request)
        except QueueberError as why:
            self._refuse(call, why)

    def _decide(self, decide: _Decide, call: _Call, queue: Queue, request: Any) -> None:  # noqa: ANN401
        """Let the broker decide *call*; a refusal is its reply."""
        self._committer.decide_now()
        try:
            plan = decide(queue, request, self._clock.now())
        except QueueberError as why:
            plan = Plan([], (), why)
        except Exception as why:
            self._committer.bug(why)
            raise
        self._submit(call, plan, partial(write_control_response, call.method))

    def _settings(self, queue: Queue, request: None, now: WallMs) -> Plan[types.SettingsInForce]:  # noqa: ARG002
        defaults = [ours for wire, ours in FIELDS.items() if wire not in queue.configured]
        return Plan([], (), types.SettingsInForce(settings=view_settings(queue.settings), defaults=defaults))

    def _configure(self, queue: Queue, request: types.ConfigureRequest, now: WallMs) -> Plan[Any]:  # noqa: ARG002
        changes = {_WIRE_NAMES[name]: getattr(request.settings, name) for name in request.names}
        reset = [_WIRE_NAMES[name] for name in request.reset]
        plan = self._broker.lifecycle.configure(queue, changes, reset)
        return plan if isinstance(plan.reply, QueueberError) else plan.with_reply(view_settings(plan.reply))

    def _pause(self, queue: Queue, request: types.PauseRequest, now: WallMs, *, paused: bool) -> Plan[Any]:  # noqa: ARG002
        return self._broker.lifecycle.pause(queue, adds=request.adds, polls=request.polls, paused=paused)

    # Calls that read rows first

    def _stats(self, call: _Call, queue: Queue, exact: bool) -> None:
        now = self._clock.now()
        bounds = self._bounds(queue, now)
        if not exact or queue.number is None or bounds.ready == bounds.ready_max:
            counting = self._inspections.counting(queue)
            self._decide(lambda *_: Plan([], (), view_counts(queue, bounds, counting)), call, queue, None)
            return
        count = Count(queue, queue.number, now)

        def finish() -> None:
            counts = view_counts(queue, exact_bounds(queue, count.ready))
            self._decide(lambda *_: Plan([], (), counts), call, queue, None)

        self._inspections.run(count, 0, finish, partial(self._refuse, call))

    def _peek(self, call: _Call, queue: Queue, request: types.PeekRequest) -> None:
        dead = request.state is ItemState.DEAD
        line = queue.dead if dead else queue
        if line is None or line.number is None:
            self._decide(lambda *_: Plan([], (), types.Listed([], more=False)), call, queue, None)
            return
        now = self._clock.now()
        after, end = (key_at(request.after) if request.after else LOWEST), HIGHEST
        if request.state is ItemState.READY:
            end = end_of(now)
        elif request.state is ItemState.DELAYED:
            after = max(after, end_of(now))
        contents = self._limits.contents_bytes if request.contents_bytes is None else request.contents_bytes
        bytes_max = self._limits.poll_bytes
        peek = Peek(line, line.number, after, end, request.limit, contents, bytes_max)

        def finish() -> None:
            seen, more = peek.result()
            views = []
            for item, size in seen:
                due = ItemState.READY if item.key.due <= now else ItemState.DELAYED
                views.append(view_item(item, ItemState.DEAD if dead else due, size))
            self._decide(lambda *_: Plan([], (), types.Listed(views, more)), call, queue, None)

        size = min(bytes_max, request.limit * (contents + self._limits.item_overhead))
        # Charged to the connection, too: the peeks of one would else fill `pending_bytes`, which all share.
        self._replies.release(call.sink.peer, call.size)
        call.size = 0
        self._replies.charge(call.sink.peer, size)
        call.size = size
        self._inspections.run(peek, size, finish, partial(self._refuse, call))

    def _get(self, call: _Call, queue: Queue, item: bytes) -> None:
        def decide(read: LookupRead) -> None:
            now = self._clock.now()
            located = self._broker.control.locate(queue, read.find(ItemId(item)), now)
            view = None if located is None else view_located(self._broker, queue, located, self._addresses())
            self._decide(lambda *_: Plan([], (), view), call, queue, None)

        self._lookups.look_up(queue, [ItemId(item)], decide, partial(self._refuse, call))

    def _change(
        self,
        change: Callable[[Queue, Any, Found | None, WallMs], Plan[ControlOutcome]],
        call: _Call,
        queue: Queue,
        request: Any,  # noqa: ANN401
    ) -> None:
        """Look up the item of *request*, then let the broker *change* it."""
        item = ItemId(request if isinstance(request, bytes) else request.id)

        def decide(read: LookupRead) -> None:
            self._decide(lambda _, request, now: change(queue, request, read.find(item), now), call, queue, request)

        self._lookups.look_up(queue, [item], decide, partial(self._refuse, call))

    # Leases: their handles are computed in the pool, because a queue may have a million of them

    def _list_leases(self, call: _Call, queue: Queue, request: types.LeasesRequest) -> None:
        listed = self._pool.run(_select, leases_of(queue), request.after, request.limit + 1)

        def finish(leases: list[Lease]) -> None:
            addresses = self._addresses()
            live = [lease for lease in leases[: request.limit] if lease.keys]
            views = [view_lease(lease, addresses) for lease in live]
            listed = types.Listed(views, len(leases) > request.limit)
            self._decide(lambda *_: Plan([], (), listed), call, queue, None)
            self._committer.wake()

        listed.addCallback(finish).addErrback(self._committer.bug)

    def _end_lease(self, call: _Call, queue: Queue, lease: bytes) -> None:
        found = self._pool.run(_find, leases_of(queue), lease)

        def finish(found: Lease | None) -> None:
            control = self._broker.control
            self._decide(lambda queue, _, now: control.end_lease(queue, found, now), call, queue, None)
            self._committer.wake()

        found.addCallback(finish).addErrback(self._committer.bug)

    # Replies

    def _submit(self, call: _Call, plan: Plan[Any], encode: Callable[[Any], bytes]) -> None:
        self._committer.submit(plan, partial(self._reply, call, encode))

    def _reply(self, call: _Call, encode: Callable[[Any], bytes], reply: Any) -> None:  # noqa: ANN401
        """Return *reply*, which is durable."""
        if isinstance(reply, QueueberError):
            self._refuse(call, reply)
            return
        self._replies.release(call.sink.peer, call.size)
        call.sink.results([call.answer], [encode(reply)])

    def _refuse(self, call: _Call, why: QueueberError) -> None:
        self._replies.release(call.sink.peer, call.size)
        self._replies.refuse(call.sink, call.answer, why, call.name)


def _select(leases: list[Lease], after: bytes, count: int) -> list[Lease]:
    """Return the *count* leases with the lowest handles above *after*, in order."""
    handles = ((handle_of(lease.id), lease) for lease in leases)
    return [
        lease for _, lease in nsmallest(count, (each for each in handles if each[0] > after), key=lambda each: each[0])
    ]


def _find(leases: list[Lease], wanted: bytes) -> Lease | None:
    """Return the lease with the id or the handle *wanted*."""
    return next((lease for lease in leases if wanted in {lease.id, handle_of(lease.id)}), None)
