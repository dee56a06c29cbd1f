"""
The connections over which tasks are added: one client of each face, made when it is first used.

The blocking client is shared by all threads, and is safe over forks.  Each
asyncio loop has a client of its own.  Twisted's needs the reactor, which the
program gives to `Tasks.connect_twisted`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from queueber.client_core.address import TcpAddress
from queueber.client_core.url import target_of
from queueber.errors import InvalidRequest
from queueber.tasks.serializer import Serializer
from queueber.tasks.task import Added, Producer, ToAdd
from queueber.values import NewItem
from queueber.worker import telemetry

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred, DeferredSemaphore

    from queueber import aio, client, sync
    from queueber.api import AddResponse
    from queueber.tasks.on_asyncio import LoopClients

AT_ONCE: Final = 500
"""Adds of a connection that are under way; more wait.  A server refuses more than `outstanding_calls`, 1,024."""

_UNTRACED: Final[AbstractContextManager[Mapping[str, bytes]]] = nullcontext({})


@cache
def is_traced() -> bool:
    """Return whether OpenTelemetry is installed.  Python does not remember a package that is missing."""
    return telemetry.installed()


@cache
def _server_of(url: str) -> tuple[str, int] | None:
    """Return the host and port of *url*; None for a Unix socket."""
    address = target_of(url).address
    return (address.host, address.port) if isinstance(address, TcpAddress) else None


class AppConnections:
    """The clients of one app."""

    def __init__(self, url: str, serializer: Serializer, options: Mapping[str, Any]) -> None:
        """Connect to *url* with *options* of `connect` when a client is first used."""
        self.url = url
        self.serializer = serializer
        self._options = options
        self.instead: Producer | None = None
        """Takes all adds instead of the server, for tests."""

        self._sync: dict[None, sync.Client] = {}
        """The blocking client, if there is one."""

        self._loops: dict[None, LoopClients] = {}
        """The clients of asyncio's loops, if one was used."""

        self._reactor: Any = None
        """The reactor of `connect_twisted`, for the clients that follow a closed one."""

        self._twisted: client.Client | None = None
        self._twisted_slots: DeferredSemaphore | None = None

    def context(self) -> Mapping[str, bytes]:
        """Return the headers that carry the context of the present trace; none without OpenTelemetry."""
        return telemetry.context_headers() if is_traced() else {}

    def publishing(self, queue: str, messages: int = 1) -> AbstractContextManager[Mapping[str, bytes]]:
        """
        Trace the adding of *messages* items to *queue*, if OpenTelemetry is installed.

        The headers that carry the context are entered.
        """
        return telemetry.publishing(queue, messages, server=_server_of(self.url)) if is_traced() else _UNTRACED

    def sync(self) -> sync.Client:
        """Return the blocking client."""
        found = self._sync.get(None)
        if found is None:
            # Imported here, because a program uses one of the faces.
            from queueber import sync  # noqa: PLC0415

            # A lock could be held by another thread at a fork, and then for ever in the child.
            made = sync.connect(self.url, **self._options)
            found = self._sync.setdefault(None, made)
            if found is not made:
                made.close()
        return found

    async def aio(self) -> aio.Client:
        """Return the client of the running loop, which is closed when `asyncio.run` ends."""
        return await self._of_loops().client()

    def _of_loops(self) -> LoopClients:
        found = self._loops.get(None)
        if found is None:
            from queueber import aio  # noqa: PLC0415
            from queueber.tasks.on_asyncio import LoopClients  # noqa: PLC0415

            made = LoopClients(lambda: aio.connect(self.url, **self._options))
            found = self._loops.setdefault(None, made)
        return found

    def twisted(self) -> client.Client:
        """
        Return the client of Twisted, made if there is none.

        Raises:
            InvalidRequest: `connect_twisted` was not called.
        """
        if self._twisted is None:
            if self._reactor is None:
                raise InvalidRequest("tx needs a reactor: call connect_twisted(reactor) of the Tasks first")
            from queueber import client  # noqa: PLC0415

            self._twisted = client.connect(self._reactor, self.url, **self._options)
        return self._twisted

    def connect_twisted(self, reactor: Any) -> client.Client:  # noqa: ANN401
        """Return the client of Twisted, made with *reactor* if there is none."""
        self._reactor = reactor
        return self.twisted()

    def use(self, *, sync: Any = None, aio: Any = None, twisted: Any = None) -> None:  # noqa: ANN401
        """Use these clients from now on; that of asyncio in the running loop."""
        if sync is not None:
            self._sync[None] = sync
        if aio is not None:
            self._of_loops().use(aio)
        if twisted is not None:
            self._twisted = twisted

    def redirect(self, url: str) -> str:
        """Add to the server at *url* from now on, for tests.  Return the URL so far, whose clients are closed."""
        self.close()
        for each in list(self._loops.values()):
            each.forget()
        if self._twisted is not None:
            self.close_twisted()
        before, self.url = self.url, url
        return before

    def add(self, call: ToAdd, *, timeout_ms: int | None = None) -> Added:
        """Add, blocking."""
        return self.add_many([call], timeout_ms=timeout_ms)[0]

    def add_many(self, calls: Sequence[ToAdd], *, timeout_ms: int | None = None) -> list[Added]:
        """Add calls, at least one and all for one queue, blocking."""
        if self.instead is not None:
            return [self.instead.add(call) for call in calls]
        queue = self.sync().queue(calls[0].queue)
        return added(calls, queue.add_items(*items_of(calls), request_id=calls[0].request_id, timeout_ms=timeout_ms))

    async def add_aio(self, call: ToAdd, *, timeout_ms: int | None = None) -> Added:
        """Add on asyncio."""
        return (await self.add_many_aio([call], timeout_ms=timeout_ms))[0]

    async def add_many_aio(self, calls: Sequence[ToAdd], *, timeout_ms: int | None = None) -> list[Added]:
        """Add calls, at least one and all for one queue, on asyncio."""
        if self.instead is not None:
            return [await self.instead.add_aio(call) for call in calls]
        return await self._of_loops().add(calls, timeout_ms)

    def add_tx(self, call: ToAdd, *, timeout_ms: int | None = None) -> Deferred[Added]:
        """Add on Twisted."""
        return self.add_many_tx([call], timeout_ms=timeout_ms).addCallback(lambda found: found[0])

    def add_many_tx(self, calls: Sequence[ToAdd], *, timeout_ms: int | None = None) -> Deferred[list[Added]]:
        """Add calls, at least one and all for one queue, on Twisted."""
        from twisted.internet.defer import Deferred, DeferredSemaphore  # noqa: PLC0415

        if self.instead is not None:
            return Deferred.fromCoroutine(_added_tx(self.instead, calls))
        queue = self.twisted().queue(calls[0].queue)
        if self._twisted_slots is None:
            self._twisted_slots = DeferredSemaphore(AT_ONCE)
        done: Deferred[AddResponse] = self._twisted_slots.run(
            queue.add_items, *items_of(calls), request_id=calls[0].request_id, timeout_ms=timeout_ms
        )
        return done.addCallback(lambda response: added(calls, response))

    def close(self) -> None:
        """Close the blocking client."""
        found = self._sync.pop(None, None)
        if found is not None:
            found.close()

    async def aclose(self) -> None:
        """Close the client of the running loop."""
        for each in list(self._loops.values()):
            await each.close()

    def close_twisted(self) -> Deferred[None]:
        """Close the client of Twisted."""
        from twisted.internet.defer import succeed  # noqa: PLC0415

        found, self._twisted = self._twisted, None
        return succeed(None) if found is None else found.close()


async def _added_tx(producer: Producer, calls: Sequence[ToAdd]) -> list[Added]:
    return [await producer.add_tx(call) for call in calls]


def items_of(calls: Sequence[ToAdd]) -> list[NewItem]:
    """Return the items of *calls*, in their order."""
    return [call.item for call in calls]


def added(calls: Sequence[ToAdd], response: AddResponse) -> list[Added]:
    """Return the results of an add of *calls*, in their order."""
    duplicates = set(response.duplicates)
    return [
        Added(item_id, call.queue, place in duplicates)
        for place, (call, item_id) in enumerate(zip(calls, response.ids, strict=True))
    ]
