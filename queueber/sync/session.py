"""Kept sessions of programs that block."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from queueber import api
from queueber.client_core.arguments import wrong
from queueber.client_core.broker_calls import BrokerCalls
from queueber.client_core.delivery import EXIT_MS
from queueber.client_core.errors import CallTimedOut
from queueber.client_core.kept_session import KeptSession, SessionState
from queueber.client_core.queue_calls import GRACE_MS_DEFAULT, SessionRef
from queueber.errors import InvalidRequest, Overloaded, QueueberError, Unimplemented
from queueber.fixed_limits import ID_BYTES
from queueber.units import MS_PER_SECOND, SpanMs

if TYPE_CHECKING:
    from queueber.sync.connector import Connector
    from queueber.sync.pending import Result
    from queueber.sync.timers import Timer

_PING = BrokerCalls(lambda _, response: response).ping


class Session(SessionRef):
    """
    A session, kept over reconnections until it is closed; made by `Client.session`.

    Pass it to polls: their leases last as long as the session, without being extended.
    Entering it as a context manager waits until it is attached; leaving returns the items that are not settled.  The
    client's own thread sends its pings: they stop only while the interpreter's lock is held.

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
        self._on_lost = on_lost
        self._io = connector.io()
        self._timer: Timer | None = None
        self._waiting: list[Result[None]] = []
        """Set once the server has answered."""

        self._kept: KeptSession
        self._io.ask(partial(self._keep, grace_ms))

    def _keep(self, grace_ms: int) -> None:
        self._kept = KeptSession(
            self._io.link,
            self._connector.held,
            os.urandom(ID_BYTES),
            grace_ms=grace_ms,
            clock=time.monotonic,
            on_change=self._changed,
            on_lost=self._lost,
        )

    @property
    def state(self) -> SessionState:
        """Whether the session is attached, as far as the client knows."""
        return self._kept.state

    @property
    def error(self) -> QueueberError | None:
        """The reason, in the state REFUSED."""
        return self._kept.error

    @property
    def grace_ms(self) -> SpanMs:
        """The time by which leases outlive a lost connection."""
        return self._kept.grace_ms

    @property
    def safe_until(self) -> float | None:
        """The time, by `time.monotonic`, until which leases last if the server hears nothing more; None at first."""
        return self._kept.safe_until

    @property
    def session_id(self) -> bytes:
        """The session's bytes, for a poll.  Part of `SessionRef`."""
        self._check_process()
        return self._kept.session_id

    def _check_process(self) -> None:
        if self._io is not self._connector.io():
            raise InvalidRequest("session belongs to the process from which this one was forked; make one here")

    def hold(self, response: api.PollResponse) -> None:
        """Note the lease in a poll's *response*.  Part of `SessionRef`."""
        self._kept.hold(response)

    def attached(self) -> None:
        """
        Wait until the server has attached the session, or does not know sessions.

        Raises:
            InvalidRequest: this process was forked from that of the session.
            QueueberError: the server's refusal, or the error of any call without a connection.
        """
        self._check_process()
        # Its errors are those of a call that waits for a connection; its answer says nothing.
        with suppress(Unimplemented):
            self._connector.call(_PING())
        self._io.wait_for(self._wait)

    def _wait(self, result: Result[None]) -> None:
        self._waiting.append(result)
        self._changed()

    def close(self) -> None:
        """
        Return the unsettled items of the session's leases, and do not attach it again.

        Raises:
            QueueberError: it is not known whether its items have returned to their queues; they are redelivered when
                the client is closed and the grace is over.
        """
        # In a child process the session is that of the parent, and after the client's end there is none.
        if self._connector.is_in_use(self._io):
            self._io.wait_for(self._end)

    def _end(self, done: Result[None]) -> None:
        late = CallTimedOut(f"no answer within {EXIT_MS:,} ms: the session's items may be returned or not", sent=True)
        timer = self._io.timers.call_later(EXIT_MS / MS_PER_SECOND, partial(done.set, late))

        def ended(outcome: object) -> None:
            timer.cancel()
            done.set(outcome if isinstance(outcome, QueueberError) else None)

        self._kept.end(ended)
        self._changed()

    def __enter__(self) -> Self:
        self.attached()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except QueueberError as why:
            if error is not None:
                error.add_note(str(why))

    # In the I/O thread

    def _changed(self) -> None:
        """Set the timer for `tick`, and wake what waits for the server's answer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._kept.next_at is not None:
            self._timer = self._io.timers.call_later(max(self._kept.next_at - time.monotonic(), 0), self._tick)
        error = self._kept.error
        if self._kept.state in (SessionState.ATTACHED, SessionState.UNSUPPORTED, SessionState.CLOSED):
            self._wake(None)
        elif self._kept.state is SessionState.REFUSED and not isinstance(error, Overloaded):
            self._wake(error)

    def _wake(self, outcome: QueueberError | None) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.set(outcome)

    def _tick(self) -> None:
        self._timer = None
        self._kept.tick()
        self._changed()

    def _lost(self, lease: bytes) -> None:
        if self._on_lost is not None:
            try:
                self._on_lost(lease)
            except Exception:
                # Imported here, because few programs need it.
                import logging  # noqa: PLC0415

                logging.getLogger("queueber.sync").exception("The function on_lost of a session has raised")
