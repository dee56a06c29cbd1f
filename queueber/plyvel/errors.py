"""
The engine's errors: plyvel's classes, made out of the texts of rocksdict's.

rocksdict raises bare `Exception` for everything RocksDB reports, so the text
is all there is to tell one from another.  It is read here and nowhere else.
"""

import builtins
from collections.abc import Iterator
from contextlib import contextmanager

from rocksdict import DbClosedError

from queueber.errors import StorageError


class Error(StorageError):
    """What RocksDB reported.  After one out of a write or a sync, nothing about later ones can be trusted."""


class IOError(Error, builtins.IOError):  # noqa: A001 - plyvel's name
    """The operating system refused to read or write, or somebody else holds the database."""


class CorruptionError(Error):
    """Bytes on disk are not those that were written."""


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
    text = str(error)
    # RocksDB's words for a write that would have had to wait, because of `no_slowdown`.
    if text.startswith("Result incomplete"):
        return Stalled(text)
    if text.startswith("IO error"):
        return IOError(text)
    if text.startswith("Corruption"):
        return CorruptionError(text)
    return Error(text)


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
