"""
Errors, by cause (the class) and by what the caller should do next (the `Kind`).

Every error sent to a peer is a `QueueberError` with a `Kind`.  Any other
exception that escapes is a bug in Queueber and is never shown to a peer.
"""

from enum import IntEnum
from typing import ClassVar

from queueber.units import measured


class Kind(IntEnum):
    """The caller's next step.  Values are those of ``Exception.Type`` in ``rpc.capnp``."""

    FAILED = 0
    """The request is wrong or can never fit: do not repeat it."""

    OVERLOADED = 1
    """A temporary limit: try again later.  Nothing was done."""

    DISCONNECTED = 2
    """The server is stopping or the connection is lost: try again on a new connection."""

    UNIMPLEMENTED = 3
    """This server does not know the method."""


class QueueberError(Exception):
    """Base of all errors that Queueber raises deliberately.  The text can be shown to a user."""

    kind: ClassVar[Kind] = Kind.FAILED

    def __init__(self, *args: object, limit: str | None = None) -> None:
        super().__init__(*args)
        self.limit = limit
        """The name of the exceeded limit in `queueber.limits.Limits`, or None."""


class InvalidRequest(QueueberError):
    """The request is invalid and can never succeed unchanged.  Nothing was done."""


class Overloaded(QueueberError):
    """The request would exceed a limit now; try again later.  Nothing was done."""

    kind = Kind.OVERLOADED


class Stopping(QueueberError):
    """The server is stopping and accepts no new work.  Nothing was done."""

    kind = Kind.DISCONNECTED


class Unimplemented(QueueberError):
    """The object has no such method."""

    kind = Kind.UNIMPLEMENTED


class Stalled(Exception):
    """A storage engine would have delayed a write until it has caught up.  Nothing was written."""


class ProtocolError(QueueberError):
    """A violation of the protocol, after which the connection has to end."""


class RemoteProtocolError(ProtocolError):
    """The peer violated the protocol."""


class LocalProtocolError(ProtocolError):
    """Code in this process violated the protocol: a bug in Queueber."""


class StorageError(QueueberError):
    """The data directory cannot be used.  The text names it and gives the reason."""


class Damaged(StorageError):
    """The bytes on disk differ from those that were written."""


class Withheld(Damaged):
    """The disk does not return stored bytes, or their file is missing: damage, if it persists."""


class Passing(StorageError):
    """A read failed for lack of descriptors, memory or the like.  The data may be sound: try again."""


def too_large(field: str, *, value: int, limit: int, unit: str, name: str | None = None) -> InvalidRequest:
    """Return the error for a *field* whose *value* exceeds its *limit*; *name* is the limit's name in `Limits`."""
    return InvalidRequest(f"{field} is {measured(value, unit)}; the limit is {limit:,}", limit=name)


def one_line(text: str) -> str:
    """Return *text* on one line, with an escape for each character that does not print."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def reason(error: BaseException) -> str:
    """
    Return the text of *error*, without its number and with the name of the file, if the system has refused one.

    The error of a call on a descriptor has no file name.
    """
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def tls_reason(error: BaseException | None) -> str | None:
    """
    Return OpenSSL's reason if *error* is an OpenSSL error, else None.

    The class is compared by its name, because it does not exist without the extra `tls`.
    """
    if type(error).__module__ != "OpenSSL.SSL":
        return None
    entries = error.args[0] if error is not None and error.args else None
    return str(entries[-1][-1]) if isinstance(entries, list) and entries else "the connection was ended"
