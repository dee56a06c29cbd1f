"""What a call of a client may fail with, beside what the server answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queueber.errors import InvalidRequest, Kind, Overloaded, QueueberError, Stopping, Unimplemented
from queueber.wire import Canceled, RemoteException

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


class NotConnected(QueueberError):
    """
    There is no connection to the server: nothing was done.

    The call was not sent, or what it was sent to is known to have read no call of this client: it speaks another
    protocol, or has refused the client's certificate.  The text says which.
    """

    kind = Kind.DISCONNECTED


class OutcomeUnknown(QueueberError):
    """The connection was lost after the call was sent and before it was answered: it may have taken effect or not."""

    kind = Kind.DISCONNECTED


class CallTimedOut(QueueberError):
    """
    The time limit of the call was over before its answer came.

    `sent` says whether it may have taken effect.  A poll is given up, and items that are on their way are given back.
    """

    kind = Kind.DISCONNECTED

    def __init__(self, *args: object, sent: bool) -> None:
        super().__init__(*args)
        self.sent = sent
        """The call was sent: it may have taken effect, or may do so yet.  If it was not, nothing was done."""


class ReplyTooLong(QueueberError):
    """
    The reply is longer than this client was made to take.

    What was asked for is done, except for a poll: its items are given back.
    """


class OutOfSight(QueueberError):
    """The server has another directory at a path than this process.  The text says whether it has written there."""


_BY_KIND: dict[int, type[QueueberError]] = {
    Kind.FAILED: InvalidRequest,
    Kind.OVERLOADED: Overloaded,
    Kind.DISCONNECTED: Stopping,
    Kind.UNIMPLEMENTED: Unimplemented,
}


def error_of(outcome: RemoteException | Canceled) -> QueueberError:
    """What a call without results failed with; a kind that is unknown here means failed, as ``rpc.capnp`` says."""
    if isinstance(outcome, Canceled):
        return OutcomeUnknown("the server gave the call up unasked, its outcome is unknown")
    return _BY_KIND.get(outcome.kind, InvalidRequest)(outcome.reason)


def failed(why: QueueberError) -> Deferred[Any]:
    """A Deferred that has failed with *why*."""
    # Clients that wait for each call have none otherwise.
    from twisted.internet.defer import fail  # noqa: PLC0415

    return fail(why)
