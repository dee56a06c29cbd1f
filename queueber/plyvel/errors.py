"""
The engine's errors: plyvel's classes, made out of the texts of rocksdict's.

rocksdict raises bare `Exception` for everything RocksDB reports, so the text
is all there is to tell one from another.  It is read here and nowhere else.
"""

import builtins
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from rocksdict import DbClosedError

from queueber.errors import Damaged, Passing, StorageError, Withheld

# The errors of the operating system that are about the disk.  All others are about the process, the machine or
# permissions.  RocksDB puts their texts behind the name of the file.
_WITHHELD = tuple(f": {os.strerror(number)}" for number in (errno.EIO, errno.ENOENT))

_SYSTEM = "IO error"


class Error(StorageError):
    """What RocksDB reported.  After one out of a write or a sync, nothing about later ones can be trusted."""


class IOError(Error, builtins.IOError):  # noqa: A001 - plyvel's name
    """The operating system refused to read or write, or somebody else holds the database."""


class CorruptionError(Error, Damaged):
    """Bytes on disk are not those that were written."""


class _WithheldError(IOError, Withheld):
    """The disk does not return what it should hold."""


class _PassingError(IOError, Passing):
    """The operating system refused for a reason that is not the disk's."""


class IteratorInvalidError(Error):
    """A raw iterator was asked for its row and is at none."""


class Stalled(Exception):
    """A write that RocksDB would have delayed until a flush or compaction had caught up.  Nothing was written."""


def translated(error: Exception) -> Exception:
    """What to raise in place of *error*, which came out of rocksdict; *error* itself if it says enough."""
    if isinstance(error, DbClosedError):
        return RuntimeError("the database is closed")
    if type(error) is not Exception:
        return error
    return _class_of(str(error))(str(error))


def _class_of(text: str) -> type[Exception]:
    """The error that *text*, of RocksDB's, is about."""
    # RocksDB's words for a write that would have had to wait, because of `no_slowdown`.
    if text.startswith("Result incomplete"):
        return Stalled
    # Also within others.  An open that finds no free descriptor says "Invalid argument: Found options incompatible
    # with filesystem: IO error: ...", one that may not look at a table "Corruption: Can't access ...: IO error: ...".
    if _SYSTEM in text and not any(reason in text for reason in _WITHHELD):
        return _PassingError
    if text.startswith(_SYSTEM):
        return _WithheldError
    if text.startswith("Corruption"):
        return CorruptionError
    return Error


@contextmanager
def translating() -> Iterator[None]:
    """Raise rocksdict's errors as ours.  Costs a microsecond; tight loops call `translated` themselves."""
    try:
        yield
    except Exception as error:
        better = translated(error)
        if better is error:
            raise
        raise better from error
