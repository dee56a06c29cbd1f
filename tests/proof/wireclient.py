"""
A connection that logs every call made through it, on asyncio.

Not `queueber.client`: a history needs the time of each call and reply, and calls that are cut off on purpose.
"""

import asyncio
import time
from math import inf

from history import (
    Add,
    Attach,
    Break,
    Configure,
    Delivered,
    Extend,
    Kept,
    Operate,
    Outcome,
    Ping,
    Poll,
    Purge,
    Redrive,
    Remove,
    Settle,
)

from queueber import api, rpc
from queueber.api import control
from queueber.api import control_types as types
from queueber.client_core.routes import ControlOf, DeadLettersOf, Routes
from queueber.limits import Limits
from queueber.units import SpanMs, WallMs

LIMITS = Limits()


class Gone(Exception):
    """The connection is over; the outcome of calls under way is unknown."""


class Refused(Exception):
    """The server answered that it did nothing."""


class Client(asyncio.Protocol):
    """Calls to one queue.  Times are those of `time.monotonic`, spans are seconds."""

    def __init__(self, history, queue="default"):
        self.history = history
        self.queue = queue
        history.connections += 1
        self.number = history.connections
        self.connection = rpc.Connection(limits=LIMITS)
        self.routes = Routes(self.connection)
        self.transport = None
        self.gone = False
        self.flushing = False
        self.calls = {}
        self.offset = None
        """The server's time less ours, in ms, between two bounds; None before an add was answered."""

    @classmethod
    async def connect(cls, port, history, queue="default"):
        """A connection to the server on *port*; raises `OSError` if there is none, which is logged as a break."""
        loop = asyncio.get_running_loop()
        try:
            _, client = await loop.create_connection(lambda: cls(history, queue), "127.0.0.1", port)
        except OSError as why:
            history.breaks.append(Break(time.monotonic(), f"not made: {why}"))
            raise
        return client

    @property
    def port(self):
        """Return the server's port."""
        return self.transport.get_extra_info("peername")[1]

    # What asyncio calls

    def connection_made(self, transport):
        self.transport = transport
        # At once: a connection that sends nothing is closed after a while.
        self.flush()

    def data_received(self, data):
        for event in self.connection.receive_data(data):
            if isinstance(event, rpc.Aborted):
                self.broken(f"aborted by the server: {event.reason}")
                self.transport.abort()
                return
            if not self.routes.returned(event):
                future, call, read = self.calls.pop(event.question)
                self.connection.finish(event.question)
                self.returned(future, call, read, event.outcome)
        self.flush()

    def connection_lost(self, exc):
        self.broken("closed by the server" if exc is None else str(exc))

    def broken(self, why):
        """Note that the connection is over, and log a break if the other side ended it."""
        if not self.gone:
            self.history.breaks.append(Break(time.monotonic(), why, self.number))
            self.end()

    def end(self):
        """Fail everything that is under way."""
        self.gone = True
        now = time.monotonic()
        self.history.ends.setdefault(self.number, now)
        calls, self.calls = self.calls, {}
        for future, call, _ in calls.values():
            call.ended = now
            if not future.done():
                future.set_exception(Gone())
                # No client waits for a call whose connection was cut on purpose.
                future.exception()

    # Calls

    def returned(self, future, call, read, outcome):
        """Log how *call* ended."""
        call.ended = time.monotonic()
        if isinstance(outcome, rpc.Results):
            call.outcome = Outcome.OK
            read(call, outcome)
            result = None
        else:
            call.outcome, call.why = Outcome.REFUSED, str(outcome)
            if isinstance(outcome, rpc.RemoteException):
                call.kind, call.why = outcome.kind, outcome.reason
            result = Refused(str(outcome))
        if future.done():
            return
        if result is None:
            future.set_result(call)
        else:
            future.set_exception(result)
            future.exception()

    def flush(self):
        """Send the pending messages."""
        self.flushing = False
        data = self.connection.data_to_send()
        if data and not self.gone:
            self.transport.write(data)

    def ask(self, call, method, content, read, interface=api.QUEUE_INTERFACE_ID):
        """Make a call that is logged; return a future with its result."""
        if self.gone:
            raise Gone
        future = asyncio.get_running_loop().create_future()
        target = self.routes.to(self._place(call, interface)).target
        question = self.connection.call(target, interface, method, content)
        self.calls[question] = future, call, read
        self.history.calls.append(call)
        if not self.flushing:
            self.flushing = True
            asyncio.get_running_loop().call_soon(self.flush)
        return future

    def _place(self, call, interface):
        name = None if self.queue == "default" else self.queue
        if interface == types.CONTROL_INTERFACE_ID:
            return ControlOf(self.queue)
        if interface == api.BROKER_INTERFACE_ID:
            return None
        return DeadLettersOf(name) if call.dead else name

    def _fields(self, **more):
        return {"queue": self.queue, "connection": self.number, "invoked": time.monotonic(), **more}

    def add(self, contents, delays, *, request=b"", keys=(), until_removed=False, lives=()):
        """
        Add items with these contents, each with its delay, and with a request id and keys if there are any.

        *lives* are the seconds after which the items expire, None for never, once an add over this connection was
        answered.
        """
        once = {"request": request, "keys": list(keys), "until_removed": until_removed}
        call = Add(**self._fields(contents=contents, delays=delays, **once))
        items = [api.NewItem(each, _ms(delay)) for each, delay in zip(contents, delays, strict=True)]
        if lives:
            points = [None if life is None else self._point(call.invoked + life) for life in lives]
            call.expiries = [[] if point is None else [*self._bounds(point), point] for point in points]
            options = [None if point is None else api.ItemOptions(expires_at=WallMs(point)) for point in points]
            items = [item._replace(options=each) for item, each in zip(items, options, strict=True)]
        if keys:
            options = [api.ItemOptions(dedup_key=key, until_removed=until_removed) if key else None for key in keys]
            items = [item._replace(options=each) for item, each in zip(items, options, strict=True)]
        return self.ask(call, api.ADD, api.write_add_request(api.AddRequest(items, request)), self._added)

    def poll(self, count, span, wait, *, session=b"", dead=False):
        """Poll.  *wait* 0 does not wait; with a *session* there is no span."""
        fields = self._fields(span=inf if session else span, no_wait=not wait, session=session, dead=dead)
        request = api.PollRequest(
            _ms(0 if session else span), count, _ms(wait) if wait else None, no_wait=not wait, session=session
        )
        return self.ask(Poll(**fields), api.POLL, api.write_poll_request(request), _polled)

    def poll_any(self, queues, count, span, wait, *, strict):
        """Poll several queues."""
        more = {"queues": list(queues), "strict": strict, "no_wait": not wait}
        call = Poll(**self._fields(span=span, **more))
        poll = api.PollRequest(_ms(span), count, _ms(wait) if wait else None, no_wait=not wait)
        request = api.PollAnyRequest([api.QueueWeight(queue) for queue in queues], strict, poll)
        content = api.write_poll_any_request(request)
        return self.ask(call, api.POLL_ANY, content, _polled_any, api.BROKER_INTERFACE_ID)

    def remove(self, number, lease, *, dead=False):
        """Remove one item."""
        call = Remove(**self._fields(id=number, lease=lease, dead=dead))
        return self.ask(call, api.REMOVE, api.write_remove_request(api.RemoveRequest(number, lease)), _removed)

    def extend(self, lease, span):
        """Extend a lease."""
        call = Extend(**self._fields(lease=lease, span=span))
        return self.ask(call, api.EXTEND, api.write_extend_request(api.ExtendRequest(lease, _ms(span))), _extended)

    def settle(self, entries, *, to="", contents=(), delays=(), all_or_nothing=False, dead=False):
        """Settle *entries*, and add items with these contents to the queue *to*."""
        more = {"to": to or self.queue, "contents": list(contents), "delays": list(delays), "dead": dead}
        more |= {"everywhere": self.queue == "default" and not dead, "all_or_nothing": all_or_nothing}
        call = Settle(**self._fields(entries=entries, **more))
        settlements = [
            api.Settlement(
                each.lease,
                each.id,
                api.Action[each.action.upper()],
                None if each.delay is None else _ms(each.delay),
                each.error,
            )
            for each in entries
        ]
        items = [api.NewItem(each, _ms(delay)) for each, delay in zip(contents, delays, strict=True)]
        adds = [api.AddTo(to or self.queue, items)] if items else []
        request = api.SettleRequest(settlements, adds, all_or_nothing)
        return self.ask(call, api.SETTLE, api.write_settle_request(request), _settled)

    # Sessions

    def attach(self, session, grace):
        """Attach a session to this connection."""
        call = Attach(**self._fields(session=session, grace=grace))
        request = api.AttachRequest(session, _ms(grace))
        return self.ask(call, api.ATTACH, api.write_attach_request(request), _attached, api.BROKER_INTERFACE_ID)

    def ping(self):
        """Show that this connection is alive."""
        return self.ask(Ping(**self._fields()), api.PING, api.write_ping_request(), _pinged, api.BROKER_INTERFACE_ID)

    # An operator

    def _control(self, call, method, request, read):
        content = control.write_control_request(method, request)
        return self.ask(
            call,
            method,
            content,
            lambda call, results: read(call, control.read_control_response(method, results)),
            types.CONTROL_INTERFACE_ID,
        )

    def configure(self, **settings):
        """Configure the queue, before anything else; for good."""
        request = types.ConfigureRequest(names=list(settings), settings=types.QueueSettings(**settings))
        self.history.settings[self.queue] = settings
        return self._control(Configure(**self._fields()), types.CONFIGURE, request, lambda call, _: None)

    def cancel(self, number):
        """Cancel an item."""
        return self._control(Operate(**self._fields(id=number, action="cancel")), types.CANCEL, number, _operated)

    def kick(self, number):
        """Make a delayed item ready."""
        return self._control(Operate(**self._fields(id=number, action="kick")), types.KICK, number, _operated)

    def reschedule(self, number, span):
        """Move an item to *span* seconds from now, once an add over this connection was answered."""
        call = Operate(**self._fields(id=number, action="reschedule"))
        due = self._point(call.invoked + span)
        call.low, call.high = self._bounds(due)
        request = types.RescheduleRequest(id=number, due_ms=WallMs(due))
        return self._control(call, types.RESCHEDULE, request, _operated)

    def purge(self, *, dead=False):
        """Remove everything that is not leased."""
        return self._control(Purge(**self._fields(dead=dead)), types.PURGE, dead, _purged)

    def redrive(self, limit):
        """Move dead items back."""
        return self._control(Redrive(**self._fields()), types.REDRIVE, types.RedriveRequest(limit=limit), _redriven)

    def abort(self):
        """Disconnect without a word: sent calls may still be carried out."""
        self.end()
        self.transport.abort()

    def _point(self, moment):
        """Return a point in the server's time, ms, that is no earlier than *moment*."""
        return round(moment * 1_000 + self.offset[1])

    def _bounds(self, point):
        """Return the moments between which the server's time reaches *point*."""
        low, high = self.offset
        return (point - high) / 1_000, (point + 1 - low) / 1_000

    def _added(self, call, results):
        response = api.read_add_response(results)
        call.ids = [bytes(each) for each in response.ids]
        call.duplicates = list(response.duplicates)
        fresh = [each for place, each in enumerate(call.ids) if place not in call.duplicates]
        if fresh and not call.request:
            decided = int.from_bytes(fresh[0][:6], "big")
            low, high = self.offset or (-inf, inf)
            self.offset = max(low, decided - call.ended * 1_000), min(high, decided + 1 - call.invoked * 1_000)


def _ms(seconds):
    return SpanMs(round(seconds * 1_000))


def _polled_any(call, results):
    response = api.read_poll_any_response(results)
    call.queue = response.queue or call.queues[0]
    _take(call, response.poll)


def _polled(call, results):
    _take(call, api.read_poll_response(results))


def _take(call, response):
    call.lease = bytes(response.lease)
    facts = [*response.facts, *[api.DeliveryFacts()] * (len(response.items) - len(response.facts))]
    call.items = [
        Delivered(
            id=bytes(each.id),
            contents=bytes(each.contents),
            attempt=each.attempt,
            failures=more.failures,
            losses=more.losses,
            error=more.last_error,
            death=more.death.reason.name.lower() if more.death else "",
            died_at=more.death.died_at if more.death else 0,
        )
        for each, more in zip(response.items, facts, strict=True)
    ]


def _removed(call, results):
    call.done = api.read_remove_response(results)


def _extended(call, results):
    call.done = api.read_extend_response(results)


def _settled(call, results):
    response = api.read_settle_response(results)
    for entry, settled in zip(call.entries, response.settled, strict=True):
        entry.result, entry.died = settled.outcome.name.lower(), settled.died
    call.changed = response.changed
    call.ids = [bytes(number) for each in response.added for number in each.ids]


def _attached(call, results):
    response = api.read_attach_response(results)
    call.leases = [
        Kept(lease=bytes(each.lease), queue=each.queue, ids=[bytes(number) for number in each.ids])
        for each in response.leases
    ]


def _pinged(call, results):
    call.leases = [bytes(each) for each in api.read_ping_response(results)]


def _operated(call, outcome):
    call.result = outcome.name.lower()


def _purged(call, items):
    call.items = items


def _redriven(call, redriven):
    call.moved = redriven.moved
