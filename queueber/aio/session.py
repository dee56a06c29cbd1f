"""Kept sessions of asyncio programs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from queueber.client_core.arguments import wrong
from queueber.client_core.broker_calls import BrokerCalls
from queueber.client_core.delivery import EXIT_MS
from queueber.client_core.errors import CallTimedOut
from queueber.client_core.kept_session import KeptSession, SessionState
from queueber.client_core.queue_calls import GRACE_MS_DEFAULT
from queueber.errors import InvalidRequest, Overloaded, QueueberError, Unimplemented
from queueber.fixed_limits import ID_BYTES
from queueber.units import MS_PER_SECOND

if TYPE_CHECKING:
    from queueber.aio.connector import Connector
    from queueber.client_core.connection import ClientConnection

_PING = BrokerCalls(lambda _, response: response).ping


class Session(KeptSession):
    """
    A session, kept over reconnections until it is closed; made by `Client.session`.

    Pass it to polls: their leases last as long as the session, without being extended.
    Entering it as a context manager waits until it is attached; leaving returns the items that are not settled.

    On a server that does not know sessions its `state` is `UNSUPPORTED`, and
    batches have leases with a deadline: see their `session`.
    """

    def __init__(
        self,
        connector: Connector,
        grace_ms: int = GRACE_MS_DEFAULT,
        on_lost: Callable[[bytes], object] | None = None,
    ) -> None:
        """Created by `Client.session`."""
        if on_lost is not None and not callable(on_lost):
            raise wrong("on_lost", on_lost, "a function or None")
        self._connector = connector
        self._process = os.getpid()
        self._on_lost_lease = on_lost
        self._timer: asyncio.TimerHandle | None = None
        self._changes: set[asyncio.Future[None]] = set()
        """Set when the state has changed."""

        super().__init__(
            connector.link,
            connector.held,
            os.urandom(ID_BYTES),
            grace_ms=grace_ms,
            clock=time.monotonic,
            on_change=self._changed,
            on_lost=self._lost,
        )
        connector.flush_soon()

    @property
    def session_id(self) -> bytes:
        """The session's bytes, for a poll.  Part of `SessionRef`."""
        self._check_process()
        if self._link is not self._connector.link:
            raise InvalidRequest("session belongs to an event loop that is closed; it must be made in this one")
        return super().session_id

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise InvalidRequest("session belongs to the process from which this one was forked; make one here")

    def on_connected(self, connection: ClientConnection) -> None:
        """Attach the session, which two processes must not share, in its own one.  Part of `ConnectionUser`."""
        if self._process == os.getpid():
            super().on_connected(connection)

    async def attached(self) -> None:
        """
        Wait until the server has attached the session, or does not know sessions.

        Raises:
            InvalidRequest: this process was forked from that of the session.
            QueueberError: the server's refusal, or the error of any call without a connection.
        """
        self._check_process()
        # Its errors are those of a call that waits for a connection; its answer says nothing.
        with suppress(Unimplemented):
            await self._connector.call(_PING())
        while self.state in (SessionState.DETACHED, SessionState.ATTACHING, SessionState.REFUSED):
            if self.error is not None and self.state is SessionState.REFUSED and not isinstance(self.error, Overloaded):
                raise self.error
            change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._changes.add(change)
            await change

    async def close(self) -> None:
        """
        Return the unsettled items of the session's leases, and do not attach it again.

        Raises:
            QueueberError: it is not known whether its items have returned to their queues; they are redelivered when
                the client is closed and the grace is over.
        """
        if self._process != os.getpid():
            return
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def ended(outcome: object) -> None:
            if not done.done():
                done.set_result(outcome)

        self.end(ended)
        self._changed()
        self._connector.watch(done)
        await asyncio.wait((done,), timeout=EXIT_MS / MS_PER_SECOND)
        if not done.done():
            done.set_result(None)
            raise CallTimedOut(
                f"no answer within {EXIT_MS:,} ms: the session's items may be returned or not", sent=True
            )
        if isinstance(outcome := done.result(), QueueberError):
            raise outcome

    async def __aenter__(self) -> Self:
        await self.attached()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except QueueberError as why:
            if error is not None:
                error.add_note(str(why))

    def _changed(self) -> None:
        """Set the timer for `tick`, and wake what waits for the server's answer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.next_at is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(self.next_at - time.monotonic(), 0), self._tick)
        changes, self._changes = self._changes, set()
        for each in changes:
            if not each.done():
                each.set_result(None)
        self._connector.flush_soon()

    def _tick(self) -> None:
        self._timer = None
        self.tick()
        self._changed()

    def _lost(self, lease: bytes) -> None:
        if self._on_lost_lease is not None:
            # In a turn of its own: what it raises concerns no call.
            asyncio.get_running_loop().call_soon(self._on_lost_lease, lease)
