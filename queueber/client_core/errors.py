"""Errors of a client's calls, in addition to those that the server returns."""

from __future__ import annotations

from queueber.capnp.schema import schema
from queueber.errors import InvalidRequest, Kind, Overloaded, QueueberError, Stopping, Unimplemented
from queueber.rpc import Canceled, RemoteException


class NotConnected(QueueberError):
    """
    There is no connection to the server: nothing was done.

    The call was not sent, or the peer is known to have read no call of this client, because it speaks another
    protocol or refused the client's certificate.  The text gives the reason.
    """

    kind = Kind.DISCONNECTED


class OutcomeUnknown(QueueberError):
    """The connection was lost between call and answer: the call may have taken effect or not."""

    kind = Kind.DISCONNECTED


class CallTimedOut(QueueberError):
    """
    The call exceeded its time limit.

    `sent` says whether it may have taken effect.  A poll is cancelled, and items that were already sent return to the
    queue.
    """

    kind = Kind.DISCONNECTED

    def __init__(self, *args: object, sent: bool) -> None:
        super().__init__(*args)
        self.sent = sent
        """True if the call was sent and may take effect, now or later.  If False, nothing was done."""


class ReplyTooLong(QueueberError):
    """
    The reply exceeds the `frame_bytes` of this client's own limits.

    The call took effect, except for a poll, whose items return to the queue.
    """


class LeaseLost(QueueberError):
    """
    The lease on an item ended before the item was settled: nothing was changed.

    The work on it is done, and another worker may do it again.
    """


class DifferentDirectory(QueueberError):
    """Server and client see different directories at a path.  The text says whether the server has written there."""


_BY_KIND: dict[int, type[QueueberError]] = {
    Kind.FAILED: InvalidRequest,
    Kind.OVERLOADED: Overloaded,
    Kind.DISCONNECTED: Stopping,
    Kind.UNIMPLEMENTED: Unimplemented,
}


_METHODS: dict[tuple[int, int], str] = {
    (each.id, number): f"{each.name}.{method}"
    for each in schema().interfaces.values()
    for number, method in enumerate(each.methods)
}
"""The name of each method, by the numbers of its interface and its own."""


def error_of(outcome: RemoteException | Canceled, interface: int = 0, method: int = 0) -> QueueberError:
    """
    Return the error for an *outcome* without results, of a call of *method*.

    An unknown kind means failed, as in ``rpc.capnp``.
    """
    if isinstance(outcome, Canceled):
        return OutcomeUnknown("the server cancelled the call by itself, its outcome is unknown")
    name = _METHODS.get((interface, method))
    if outcome.kind == Kind.UNIMPLEMENTED and name is not None:
        return Unimplemented(f"the server does not know {name}, which is newer than the server: {outcome.reason}")
    return _BY_KIND.get(outcome.kind, InvalidRequest)(outcome.reason)
