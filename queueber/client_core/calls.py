"""
Calls of the server's methods: each as a value, and until its end.

`QueueCalls`, `BrokerCalls` and `ControlCalls` build calls, and check the
arguments.  A face sends them, and hands the result or the error to its program
in its own way.  `connection` has the table of the states of a pending call.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, IntEnum, auto
from typing import Any, Generic, NamedTuple, TypeVar

from queueber import api, rpc
from queueber.client_core.routes import Place, Route
from queueber.errors import QueueberError

T = TypeVar("T")


class Resend(IntEnum):
    """Whether a call may be sent again after its connection was lost.  `NEVER` is false."""

    NEVER = 0
    """Sending it again could do harm, or its second answer could be wrong."""

    WITHIN_WINDOW = 1
    """The server recognises the call by its request id, for ten minutes."""

    ALWAYS = 2
    """Repeating the call changes nothing more; the items of a lost poll are redelivered."""


class Call(NamedTuple, Generic[T]):
    """One call, ready to be sent over any connection."""

    place: Place
    """The object that is called; None for the bootstrap object, which is the default queue and the broker."""

    interface: int
    method: int
    content: bytes
    """The encoded parameters."""

    read: Callable[[rpc.Results], T]
    """
    Parse the results.

    Raises `RemoteProtocolError` for malformed results, which ends the connection; another `QueueberError` is the
    outcome of the call.
    """

    wait_ms: int | None = 0
    """The time that the server may wait before it starts to answer; None for no limit."""

    resend: Resend = Resend.NEVER

    @property
    def read_lease(self) -> Callable[[rpc.Results], bytes] | None:
        """The reader of the lease in the results, if this is a poll."""
        return _POLLS.get((self.interface, self.method))

    def limit_ms(self, own: int | None, default: int | None) -> int | None:
        """
        Return the time limit of the call, from the call to its answer; None for no limit.

        *own* was given with the call and is the whole time.  To *default*, the client's, the wait is added; a wait
        without a limit has no time limit by default.
        """
        if own is not None or default is None or self.wait_ms is None:
            return own
        return default + self.wait_ms


_POLLS = {
    (api.QUEUE_INTERFACE_ID, api.POLL): api.read_poll_lease,
    (api.BROKER_INTERFACE_ID, api.POLL_ANY): api.read_poll_any_lease,
}


class PendingState(Enum):
    """The state of a call, as in the table of `connection`."""

    WAITING = auto()
    HELD = auto()
    SENT = auto()
    ENDING = auto()
    DONE = auto()


def ignore(_: object) -> None:
    """Drop an outcome."""


class PendingCall:
    """A call until its end, and the handle by which it is cancelled."""

    __slots__ = (
        "attempts",
        "call",
        "error",
        "first_sent",
        "internal",
        "on_done",
        "question",
        "returning",
        "route",
        "sent_before",
        "state",
        "why",
    )

    def __init__(
        self,
        call: Call[Any],
        on_done: Callable[[Any], None] = ignore,
        *,
        internal: bool = False,
        returning: bool = False,
    ) -> None:
        self.call = call
        self.on_done = on_done
        """Called once with the result or a `QueueberError`, unless the call is cancelled first."""

        self.state = PendingState.WAITING
        self.route: Route | None = None
        self.question: rpc.QuestionId | None = None
        self.error: QueueberError | None = None
        """The error of a call in the state ENDING."""

        self.attempts: int | None = None
        """Failed attempts to connect that are left before the call fails; None for no limit."""

        self.why = ""
        """The error of the last attempt to connect."""

        self.first_sent: float | None = None
        """When the call was first sent, if it may be sent again only within a window."""

        self.sent_before = False
        """Whether an earlier connection may have carried the call."""

        self.internal = internal
        """Whether the connection itself made the call."""

        self.returning = returning
        """Whether the call returns items, so that a client that closes waits for its answer."""

    def finish(self, outcome: object) -> None:
        """Hand over *outcome*, unless the call was cancelled."""
        if self.state is not PendingState.DONE:
            self.state = PendingState.DONE
            on_done, self.on_done = self.on_done, ignore
            on_done(outcome)

    def withdraw(self) -> None:
        """End the call without an outcome."""
        self.state = PendingState.DONE
        # Breaks a cycle of references through the face's handle, which may know this call.
        self.on_done = ignore
