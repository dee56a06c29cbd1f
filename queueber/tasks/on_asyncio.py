"""
The parts of tasks for asyncio: a client for each loop, and the scheduler's means to add and to wait.

Imported when one of them is first used, because most programs that only add have no loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from queueber.errors import InvalidRequest
from queueber.tasks.connections import AT_ONCE, added, items_of
from queueber.tasks.scheduler import ADD_TIMEOUT_MS

if TYPE_CHECKING:
    from queueber import aio
    from queueber.api.control_types import SettingsInForce
    from queueber.tasks.connections import AppConnections
    from queueber.tasks.task import Added, ToAdd


class LoopClients:
    """The clients of the asyncio loops of a program, each closed with its loop."""

    def __init__(self, connect: Callable[[], aio.Client]) -> None:
        self._connect = connect
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, aio.Client] = WeakKeyDictionary()
        self._closers: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncIterator[None]] = WeakKeyDictionary()
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def client(self) -> aio.Client:
        """Return the client of the running loop, which is closed when `asyncio.run` ends."""
        loop = asyncio.get_running_loop()
        found = self._clients.get(loop)
        if found is None:
            found = self._clients[loop] = self._connect()
            if loop not in self._closers:
                self._closers[loop] = closer = self._end_of(loop)
                await anext(closer)
        return found

    async def _end_of(self, loop: asyncio.AbstractEventLoop) -> AsyncIterator[None]:
        """
        Close the client of *loop* when it ends: it closes all generators that have begun.

        Nothing is kept of the loop, because a client refers to its own, so that weak keys alone would free neither.
        """
        try:
            yield
        finally:
            del self._closers[loop]
            self._slots.pop(loop, None)
            await self.close()

    def use(self, client: aio.Client) -> None:
        """Use *client* in the running loop from now on."""
        self._clients[asyncio.get_running_loop()] = client

    async def add(self, calls: Sequence[ToAdd], timeout_ms: int | None) -> list[Added]:
        """
        Add calls, at least one and all for one queue, in the running loop.

        Raises:
            InvalidRequest: there is none.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise InvalidRequest("aio needs a running asyncio loop; use tx on Twisted, or add without a loop") from None
        slots = self._slots.get(loop)
        if slots is None:
            slots = self._slots[loop] = asyncio.Semaphore(AT_ONCE)
        async with slots:
            queue, number = (await self.client()).queue(calls[0].queue), calls[0].request_id
            return added(calls, await queue.add_items(*items_of(calls), request_id=number, timeout_ms=timeout_ms))

    def forget(self) -> None:
        """Have each loop close its client, and make others."""
        for loop, client in list(self._clients.items()):
            if not loop.is_closed():
                loop.call_soon_threadsafe(loop.create_task, client.close())
        self._clients.clear()

    async def close(self) -> None:
        """Close the client of the running loop."""
        found = self._clients.pop(asyncio.get_running_loop(), None)
        if found is not None:
            await found.close()


class AsyncioFace:
    """The scheduler's means to add and to wait in the running loop."""

    def __init__(self, connections: AppConnections) -> None:
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    async def add(self, call: ToAdd) -> object:
        """Add *call*."""
        return await self._connections.add_aio(call, timeout_ms=ADD_TIMEOUT_MS)

    async def settings(self, queue: str) -> SettingsInForce:
        """Return the settings of *queue*."""
        return await (await self._connections.aio()).control(queue).settings()

    async def wait(self, seconds: float) -> None:
        """Wait for *seconds*, or until `stop`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)

    def stop(self) -> None:
        """End the wait.  Safe in any thread."""
        self._loop.call_soon_threadsafe(self._event.set)
