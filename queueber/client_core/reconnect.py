"""
Calls of a client over one connection after another.

A `Link` holds the calls that wait for a connection, and sends again what a lost
connection may have carried, where that is safe.  The driver connects:

| The driver | calls | and then |
|---|---|---|
| has a transport that can carry calls | `connected`, `dispatch` | sends `data_to_send` of the connection |
| could not connect | `attempt_failed` | waits for `retry_delay`, and connects |
| loses the transport | `end` of the connection | waits for `retry_delay`, and connects |

A poll, a read and an add with a request id that are in flight when the connection is lost, or that the server refuses
because it is stopping, are sent again over the next one.  The server recognises an add by its request id for ten
minutes.  Later, or if the server is too old for request ids or its age is not known yet, the add is not sent again, and
its outcome is unknown.  A call may then use all its attempts again, unless the connection ended within 10 s without an
answer.  All other calls in flight fail: only the caller knows whether repeating
them does harm.

Functions that are called with an outcome may make calls, cancel them and close
the link.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from queueber.client_core.arguments import wrong
from queueber.client_core.calls import Call, PendingCall, PendingState, Resend
from queueber.client_core.connection import ClientConnection, ConnectionEnd
from queueber.client_core.errors import CallTimedOut, NotConnected, OutcomeUnknown
from queueber.client_core.options import ConnectOptions
from queueber.errors import InvalidRequest, QueueberError, Stopping

if TYPE_CHECKING:
    from queueber.limits import Limits

T = TypeVar("T")

RETRY_SECONDS_MIN: Final = 0.1
RETRY_SECONDS_MAX: Final = 10.0
"""Range of the wait after a failed attempt, which grows from the first to the second with some jitter."""

DELAY_SECONDS_MAX: Final = 86_400
"""The longest wait, also if a retry policy returns a longer one: `select` and `poll` refuse some of those."""

_GROWTH: Final = 1.5
_GROWN: Final = 12
"""Attempts after which the wait has reached its maximum."""

RESEND_SECONDS: Final = 540.0
"""The time after its first sending in which an add is sent again: the server's ten minutes, less a margin."""


def random_fraction() -> float:
    """Return a number from 0 to 1, another one in each forked process, without the module `random`."""
    return os.urandom(1)[0] / 0xFF


def backoff(random: Callable[[], float] = random_fraction) -> Callable[[int], float]:
    """
    Return the default policy: the seconds to wait after a given number of failed attempts.

    *random* returns numbers from 0 to 1; they take away up to a half, so that the clients of a restarted server do not
    all reconnect together.
    """

    def delay(failed: int) -> float:
        longest = min(RETRY_SECONDS_MAX, RETRY_SECONDS_MIN * _GROWTH ** min(max(failed - 1, 0), _GROWN))
        return longest * (1 - random() / 2)

    return delay


class Withdrawn(NamedTuple):
    """The state of a call when it was cancelled."""

    sent: bool
    """Whether it may have taken effect, or may still."""

    why: str
    """The reason why it was not sent; empty if it was."""


class ConnectionUser(Protocol):
    """A part of the client that makes calls of its own over each new connection, before all others."""

    def on_connected(self, connection: ClientConnection) -> None:
        """Make calls over *connection*."""

    def on_disconnected(self) -> None:
        """Note that the connection is lost."""

    def on_closing(self) -> None:
        """Make the last calls: the link closes."""


class Link:
    """The calls of a client; the module's docstring explains its use."""

    def __init__(
        self,
        *,
        limits: Limits | None,
        attempts: int | None,
        address: str | None,
        retry_policy: Callable[[int], float],
        clock: Callable[[], float],
        resend_adds: bool = False,
    ) -> None:
        """
        Create a link without a connection.  Errors name *address*, if it is known.

        A waiting call fails after *attempts* failed attempts to connect; None waits without a limit.  *clock* returns
        monotonic seconds.  With *resend_adds* each connection asks at once whether its server knows request ids,
        otherwise with the first add that has one.
        """
        self.connection: ClientConnection | None = None
        """The connection in use, or None."""

        self.closed = False
        self.users: list[ConnectionUser] = []
        self._limits = limits
        self._attempts = attempts
        self._to = f" to {address}" if address else ""
        self._retry_policy = retry_policy
        self._clock = clock
        self._waiting: dict[PendingCall, None] = {}
        """Calls that wait for a connection, in their order."""

        self._for_next: dict[PendingCall, None] = {}
        """Calls to which the server answered that it is stopping.  They wait for the next connection."""

        self._failed_attempts = 0
        """Attempts since the last connection that answered a call, or lasted for 10 s."""

        self._connected_at = 0.0
        self._of_use = False
        """Whether the latest connection has answered a call."""

        self._resend_adds = resend_adds
        self._knows_request_ids = False
        """Whether a server of this link has recognised request ids.  Servers grow newer, not older."""

    # What the faces call

    def call(self, call: Call[T], on_done: Callable[[T | QueueberError], None]) -> PendingCall:
        """
        Make *call*, now or when there is a connection.

        *on_done* is called once, as `ClientConnection.call` does; also before this method returns.
        """
        pending = PendingCall(call, on_done)
        self.send(pending)
        return pending

    def send(self, pending: PendingCall) -> None:
        """Make the call *pending*, which is new, now or when there is a connection."""
        pending.attempts = self._attempts
        if self.closed:
            pending.finish(NotConnected("the call was not sent: the client is closed"))
        elif self.connection is not None and not self._waiting:
            if pending.call.resend is Resend.WITHIN_WINDOW:
                self._note_sending(self.connection, pending)
            self.connection.send(pending)
        else:
            self._waiting[pending] = None

    def cancel(self, pending: PendingCall) -> Withdrawn:
        """End the wait for the outcome of *pending*; its function is not called."""
        sent, why = pending.sent_before, ""
        if pending.state is PendingState.WAITING:
            self._waiting.pop(pending, None)
            self._for_next.pop(pending, None)
            why = f"there is no connection{self._to}" + (f": {pending.why}" if pending.why else "")
        elif pending.state is PendingState.HELD:
            why = "the server has not returned its limits"
        else:
            sent = not isinstance(pending.error, NotConnected)
        if self.connection is not None and pending.state in (PendingState.HELD, PendingState.SENT):
            self.connection.cancel(pending)
        pending.withdraw()
        return Withdrawn(sent, why)

    def close(self) -> None:
        """
        Accept no further calls, and fail the calls that wait for a connection.

        Close the transport then, once the connection is not `settling` any more, and within a bounded time.  Calls in
        flight fail when it is lost.
        """
        if not self.closed:
            for user in list(self.users):
                user.on_closing()
            self.closed = True
            self._waiting |= self._for_next
            self._for_next = {}
            self._fail_waiting(list(self._waiting), "the call was not sent: the client was closed")

    # What the driver calls

    def connected(self) -> ClientConnection:
        """Return a new connection, over which the calls of this link go from now on.  Call `dispatch` next."""
        self.connection = ClientConnection(self._limits, self, self._to)
        self._connected_at = self._clock()
        self._of_use = False
        if self._resend_adds and not self._knows_request_ids:
            self.connection.probe()
        for each in list(self.users):
            each.on_connected(self.connection)
        return self.connection

    def dispatch(self) -> None:
        """Send the waiting calls."""
        connection = self.connection
        while self._waiting and connection is not None and self.connection is connection:
            pending = next(iter(self._waiting))
            del self._waiting[pending]
            if pending.first_sent is not None and self._clock() - pending.first_sent > RESEND_SECONDS:
                pending.finish(self._unknown(f"it is not sent again after {RESEND_SECONDS:g} s"))
            else:
                if pending.call.resend is Resend.WITHIN_WINDOW:
                    self._note_sending(connection, pending)
                connection.send(pending)

    def _note_sending(self, connection: ClientConnection, pending: PendingCall) -> None:
        """Note what decides whether an add with a request id can be sent again."""
        if not self._knows_request_ids:
            connection.probe()
        if pending.first_sent is None:
            pending.first_sent = self._clock()

    def attempt_failed(self, why: str, *, refused: bool = False) -> None:
        """
        Count a failed attempt to connect, and fail the waiting calls that have no attempts left.

        *refused*: a new attempt needs another configuration, so that all of them fail.
        """
        failing = []
        for each in self._waiting:
            each.why = why
            if each.attempts is not None:
                each.attempts -= 1
            if refused or each.attempts == 0:
                failing.append(each)
        self._fail_waiting(failing, f"cannot connect{self._to}: {why}")

    def retry_delay(self) -> float:
        """
        Return the seconds until the next attempt to connect.  Call once after each failed or lost connection.

        A retry policy that raises or returns something else fails the waiting calls with `InvalidRequest`, for which
        their functions may close the link.  The default policy stands in for it.
        """
        self._failed_attempts += 1
        try:
            seconds = self._retry_policy(self._failed_attempts)
            if isinstance(seconds, int | float) and seconds >= 0:
                # A policy that doubles its waits has no bound of its own.
                return min(seconds, DELAY_SECONDS_MAX)
            why = wrong("the result of retry_policy", seconds, "seconds, at least 0")
        except Exception as error:  # noqa: BLE001  (of the program's function)
            why = InvalidRequest(f"retry_policy raised {type(error).__name__}: {error}")
        self._fail_waiting(list(self._waiting), str(why), InvalidRequest)
        return backoff()(self._failed_attempts)

    # What a connection calls

    def on_answer(self) -> None:
        """Reset the back-off.  Part of `ConnectionOwner`."""
        self._failed_attempts = 0
        self._of_use = True

    def on_stopping(self, pending: PendingCall, why: Stopping) -> None:
        """Keep *pending* for the next connection.  Part of `ConnectionOwner`."""
        pending.state, pending.error, pending.why = PendingState.WAITING, why, str(why)
        self._for_next[pending] = None

    def on_end(self, end: ConnectionEnd, unfinished: list[PendingCall]) -> None:
        """Forget the connection, and fail the calls that are not sent again.  Part of `ConnectionOwner`."""
        if self.connection is not None and self.connection.knows_request_ids:
            self._knows_request_ids = True
        self.connection = None
        if self._clock() - self._connected_at >= RETRY_SECONDS_MAX:
            # Useful even without an answer: a worker may wait in its first poll for days.
            self.on_answer()
        unfinished = [*self._for_next, *unfinished]
        self._for_next = {}
        again = {each: None for each in unfinished if not end.refused and self._is_sent_again(each)}
        for each in again:
            each.sent_before = each.sent_before or isinstance(each.error, OutcomeUnknown)
            each.state, each.error, each.question, each.route = PendingState.WAITING, None, None, None
            each.why = end.why
        self._waiting = again | self._waiting
        for user in list(self.users):
            user.on_disconnected()
        for each in unfinished:
            if each in again:
                continue
            if each.sent_before and not isinstance(each.error, OutcomeUnknown):
                each.error = self._unknown(f"it was not sent again: {each.error}")
            each.finish(each.error)
        if end.refused:
            self.attempt_failed(end.why, refused=True)

    def _is_sent_again(self, pending: PendingCall) -> bool:
        """Return whether a call whose connection has ended is sent over the next one; count its attempts."""
        resend = pending.call.resend
        if self.closed or not resend:
            return False
        if resend is Resend.WITHIN_WINDOW and not self._knows_request_ids and isinstance(pending.error, OutcomeUnknown):
            return False
        if self._of_use or pending.attempts is None:
            pending.attempts = self._attempts
            return True
        pending.attempts -= 1
        return pending.attempts > 0

    def _fail_waiting(self, failing: list[PendingCall], why: str, kind: type[QueueberError] = NotConnected) -> None:
        """Fail these of the waiting calls.  The functions that are called may cancel others of them."""
        for each in failing:
            del self._waiting[each]
            each.state, each.error = PendingState.ENDING, kind(why)
            if each.sent_before:
                each.error = self._unknown(f"it was not sent again: {why}")
        for each in failing:
            each.finish(each.error)

    def _unknown(self, why: str) -> OutcomeUnknown:
        return OutcomeUnknown(f"the connection was lost, the call's outcome is unknown: {why}")


def timed_out(timeout_ms: int, withdrawn: Withdrawn) -> CallTimedOut:
    """Return the error of a call that was *withdrawn* at its time limit."""
    if not withdrawn.sent:
        return CallTimedOut(f"the call was not sent within {timeout_ms:,} ms: {withdrawn.why}", sent=False)
    why = f": {withdrawn.why}" if withdrawn.why else ""
    return CallTimedOut(f"no answer within {timeout_ms:,} ms: the call may have taken effect or not{why}", sent=True)


def link_of(options: ConnectOptions, address: str | None, clock: Callable[[], float]) -> Link:
    """Return the link of a client with *options*; the rest are arguments of `Link`."""
    return Link(
        limits=options.limits,
        attempts=options.attempts,
        address=address,
        retry_policy=options.retry_policy or backoff(),
        clock=clock,
        resend_adds=options.resend_adds,
    )
