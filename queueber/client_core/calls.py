"""
A call of one method of the server, as a value.

`QueueCalls`, `BrokerCalls` and `ControlCalls` build calls, and check the
arguments.  A face sends them, and hands the result or the error to its program
in its own way.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

from queueber import api, rpc
from queueber.client_core.routes import Place

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
    """How long the server may wait before it starts to answer; None for no limit."""

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
