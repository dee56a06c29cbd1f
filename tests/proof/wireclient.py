"""
A connection that logs every call made through it, on asyncio.

Not `queueber.client`: a history needs the time of each call and reply, and calls that are cut off on purpose.
"""

import asyncio
import time

from history import Add, Break, Delivered, Extend, Outcome, Poll, Remove

from queueber import api, rpc
from queueber.client_core.routes import Routes
from queueber.limits import Limits
from queueber.units import SpanMs

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
        self.connection = rpc.Connection(limits=LIMITS)
        self.routes = Routes(self.connection)
        self.transport = None
        self.gone = False
        self.flushing = False
        self.calls = {}

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

    # What asyncio calls

    def connection_made(self, transport):
        self.transport = transport

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
            self.history.breaks.append(Break(time.monotonic(), why))
            self.end()

    def end(self):
        """Fail everything that is under way."""
        self.gone = True
        now = time.monotonic()
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

    def ask(self, call, method, content, read):
        """Make a call that is logged; return a future with its result."""
        if self.gone:
            raise Gone
        future = asyncio.get_running_loop().create_future()
        target = self.routes.to(None if self.queue == "default" else self.queue).target
        question = self.connection.call(target, api.QUEUE_INTERFACE_ID, method, content)
        self.calls[question] = future, call, read
        self.history.calls.append(call)
        if not self.flushing:
            self.flushing = True
            asyncio.get_running_loop().call_soon(self.flush)
        return future

    def add(self, contents, delays):
        """Add items with these contents, each with its delay."""
        call = Add(queue=self.queue, invoked=time.monotonic(), contents=contents, delays=delays)
        items = [api.NewItem(each, _ms(delay)) for each, delay in zip(contents, delays, strict=True)]
        return self.ask(call, api.ADD, api.write_add_request(api.AddRequest(items)), _added)

    def poll(self, count, span, wait):
        """Poll.  *wait* 0 does not wait."""
        call = Poll(queue=self.queue, invoked=time.monotonic(), span=span, no_wait=not wait)
        request = api.PollRequest(_ms(span), count, _ms(wait) if wait else None, no_wait=not wait)
        return self.ask(call, api.POLL, api.write_poll_request(request), _polled)

    def remove(self, number, lease):
        """Remove one item."""
        call = Remove(queue=self.queue, invoked=time.monotonic(), id=number, lease=lease)
        return self.ask(call, api.REMOVE, api.write_remove_request(api.RemoveRequest(number, lease)), _removed)

    def extend(self, lease, span):
        """Extend a lease."""
        call = Extend(queue=self.queue, invoked=time.monotonic(), lease=lease, span=span)
        return self.ask(call, api.EXTEND, api.write_extend_request(api.ExtendRequest(lease, _ms(span))), _extended)

    def abort(self):
        """Disconnect without a word: sent calls may still be carried out."""
        self.end()
        self.transport.abort()


def _ms(seconds):
    return SpanMs(round(seconds * 1_000))


def _added(call, results):
    call.ids = [bytes(each) for each in api.read_add_response(results).ids]


def _polled(call, results):
    response = api.read_poll_response(results)
    call.lease = bytes(response.lease)
    call.items = [
        Delivered(id=bytes(each.id), contents=bytes(each.contents), attempt=each.attempt) for each in response.items
    ]


def _removed(call, results):
    call.done = api.read_remove_response(results)


def _extended(call, results):
    call.done = api.read_extend_response(results)
