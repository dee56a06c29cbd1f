"""Kept sessions of Twisted programs."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from queueber.client_core.arguments import wrong
from queueber.client_core.broker_calls import BrokerCalls
from queueber.client_core.delivery import EXIT_MS
from queueber.client_core.errors import CallTimedOut
from queueber.client_core.kept_session import KeptSession, SessionState
from queueber.client_core.queue_calls import GRACE_MS_DEFAULT
from queueber.errors import Overloaded, QueueberError, Unimplemented
from queueber.fixed_limits import ID_BYTES
from queueber.units import MS_PER_SECOND

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from queueber.client.service import Connector

_LOG = Logger()
_LIMITS = BrokerCalls(lambda _, response: response).limits


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
        self._report_lost = on_lost
        self._timer: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []
        super().__init__(
            connector.link,
            connector.held,
            os.urandom(ID_BYTES),
            grace_ms=grace_ms,
            clock=connector.clock.seconds,
            on_change=self._changed,
            on_lost=self._lost,
        )
        connector.flush_soon()

    def _lost(self, lease: bytes) -> None:
        if self._report_lost is not None:
            try:
                self._report_lost(lease)
            except Exception:  # noqa: BLE001  (the program's own function must not end the connection)
                _LOG.failure("The function on_lost of a session has failed")

    def _changed(self) -> None:
        """Set the timer for `tick`, and fire what waits for the server's answer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.next_at is not None:
            left = max(self.next_at - self._connector.clock.seconds(), 0)
            self._timer = self._connector.clock.callLater(left, self._tick)
        if self.state in (SessionState.ATTACHED, SessionState.UNSUPPORTED, SessionState.CLOSED):
            self._fire(None)
        elif self.state is SessionState.REFUSED and not isinstance(self.error, Overloaded):
            self._fire(self.error)
        self._connector.flush_soon()

    def _tick(self) -> None:
        self._timer = None
        self.tick()
        self._changed()

    def _fire(self, error: QueueberError | None) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if each.called:
                continue
            if error is None:
                each.callback(None)
            else:
                each.errback(error)

    def attached(self) -> Deferred[None]:
        """
        Wait until the server has attached the session, or does not know sessions.

        Returns:
            Fails if the server refuses the session, or as any call does without a connection.
        """
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        # Its errors are those of a call that waits for a connection; its answer says nothing.
        self._connector.start(_LIMITS).addErrback(self._unreachable, done)
        self._changed()
        return done

    def _unreachable(self, failure: Failure, done: Deferred[None]) -> None:
        if not failure.check(Unimplemented) and not done.called:
            done.errback(failure)

    def close(self) -> Deferred[None]:
        """
        Return the unsettled items of the session's leases, and do not attach it again.

        Returns:
            Fires when its items are back in their queues, within 10 s.  Fails with a `QueueberError` if that is not
            known; they are redelivered when the client is closed and the grace is over.
        """
        done: Deferred[None] = Deferred()
        late = CallTimedOut(f"no answer within {EXIT_MS:,} ms: the session's items may be returned or not", sent=True)
        timer = self._connector.clock.callLater(EXIT_MS / MS_PER_SECOND, done.errback, late)

        def closed(outcome: object) -> None:
            if not timer.active():
                return
            timer.cancel()
            if isinstance(outcome, QueueberError):
                done.errback(outcome)
            else:
                done.callback(None)

        self.end(closed)
        self._changed()
        return done

    async def __aenter__(self) -> Self:
        await self.attached()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        closing = self.close().addErrback(lambda failure: failure.trap(QueueberError))
        if not isinstance(error, GeneratorExit):
            # A coroutine that is being closed cannot wait.
            await closing
