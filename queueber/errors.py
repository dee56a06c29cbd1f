"""
The two axes of error: whose fault it is, and what the caller should do next.

Every error a peer may see is a `QueueberError` with a `Kind`.  Anything else
that escapes is a bug of ours and is never shown to a peer.
"""

from enum import IntEnum
from typing import ClassVar


class Kind(IntEnum):
    """What the caller should do next; the values are those of ``Exception.Type`` in ``rpc.capnp``."""

    FAILED = 0
    """Wrong, or can never fit: do not repeat it."""

    OVERLOADED = 1
    """A limit that passes: try again later.  Nothing was done."""

    DISCONNECTED = 2
    """The server is stopping or the connection is gone: try on a new connection."""

    UNIMPLEMENTED = 3
    """This server does not know the method."""


class QueueberError(Exception):
    """Base of all errors that Queueber raises on purpose.  Its text is fit to show a user."""

    kind: ClassVar[Kind] = Kind.FAILED

    def __init__(self, *args: object, limit: str | None = None) -> None:
        super().__init__(*args)
        self.limit = limit
        """The name of the limit that was hit, as it is in `queueber.limits.Limits`; None when it was none."""


class InvalidRequest(QueueberError):
    """The request can never be carried out as it stands.  Nothing was done."""


class Overloaded(QueueberError):
    """Carrying out the request now would exceed a limit; try again later.  Nothing was done."""

    kind = Kind.OVERLOADED


class Stopping(QueueberError):
    """The server is stopping and takes no new work.  Nothing was done."""

    kind = Kind.DISCONNECTED


class Unimplemented(QueueberError):
    """The object has no such method."""

    kind = Kind.UNIMPLEMENTED


class ProtocolError(QueueberError):
    """The rules of the protocol were broken; the connection cannot go on."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules of the protocol."""


class LocalProtocolError(ProtocolError):
    """We used the connection in a way the protocol does not allow: a bug here."""


class StorageError(QueueberError):
    """The data directory cannot be used as it is.  The text says why and names it."""


class Damaged(StorageError):
    """The bytes on disk are not those that were written."""


class Withheld(Damaged):
    """The disk does not return bytes that it should hold, or their file is missing: damage, if that lasts."""


class Passing(StorageError):
    """A read failed for want of a descriptor, memory or the like, which says nothing about the data.  Try again."""


def too_large(field: str, *, value: int, limit: int, unit: str, name: str | None = None) -> InvalidRequest:
    """The error for a *field* that is above its *limit* for ever; *name* is that limit's own."""
    return InvalidRequest(f"{field} is {value:,} {unit}; the limit is {limit:,}", limit=name)


def reason(error: BaseException) -> str:
    """
    The text of *error* without a number, and with the name of the file if the system has refused one.

    An error of a call on a descriptor has no name.
    """
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def tls_reason(error: BaseException | None) -> str | None:
    """
    What OpenSSL says went wrong, if that is what *error* tells of; None for any other.

    By its name, because without the extra `tls` there is no class to compare with.
    """
    if type(error).__module__ != "OpenSSL.SSL":
        return None
    entries = error.args[0] if error is not None and error.args else None
    return str(entries[-1][-1]) if isinstance(entries, list) and entries else "the connection was ended"
