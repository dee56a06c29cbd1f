"""
plyvel's exception classes, and the translation of rocksdict's errors to them.

rocksdict raises a bare `Exception` for every RocksDB status other than OK, so
the text is the only way to distinguish them.  Only this module reads it.
"""

import builtins
import errno
import os
from types import TracebackType
from typing import Final

from rocksdict import DbClosedError

from queueber.errors import Damaged, Passing, Stalled, StorageError, Withheld

_DISK_ERRORS = tuple(f": {os.strerror(number)}" for number in (errno.EIO, errno.ENOENT))
"""
Texts of the operating system's errors that concern the disk, as RocksDB appends them to the name of the file.

All others concern the process, the machine or permissions.
"""

_IO_ERROR = "IO error"


class Error(StorageError):
    """RocksDB reported an error.  After an error of a write or a sync, the database must not be written to again."""


class IOError(Error, builtins.IOError):  # noqa: A001 - plyvel's name
    """Reading or writing a file failed, or another process has the database open."""


class CorruptionError(Error, Damaged):
    """A file does not contain the bytes that were written to it."""


class _WithheldError(IOError, Withheld):
    """The disk does not return a file or block that it should hold."""


class _PassingError(IOError, Passing):
    """The operating system refused for a reason other than the disk: descriptors, memory, space or permission."""


class IteratorInvalidError(Error):
    """A `RawIterator` has no current row."""


def translate_error(error: Exception) -> Exception:
    """Return the exception to raise in place of *error* from rocksdict; *error* itself if it needs no translation."""
    if isinstance(error, DbClosedError):
        return RuntimeError("the database is closed")
    if type(error) is not Exception:
        return error
    text = str(error)
    return _error_class(text)(text)


def _error_class(text: str) -> type[Exception]:
    """Return the class for RocksDB's status *text*."""
    # The status of a write with `no_slowdown` that would have been delayed.
    if text.startswith("Result incomplete"):
        return Stalled
    # Also within other statuses: with no free descriptor, opening fails with "Invalid argument: Found options
    # incompatible with filesystem: IO error: ...", and without access to a table file with "Corruption: Can't access
    # ...: IO error: ...".
    if _IO_ERROR in text and not any(reason in text for reason in _DISK_ERRORS):
        return _PassingError
    if text.startswith(_IO_ERROR):
        return _WithheldError
    if text.startswith("Corruption"):
        return CorruptionError
    return Error


class _ErrorTranslator:
    """A context manager that translates exceptions of its block by `translate_error`."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if isinstance(error, Exception):
            translated = translate_error(error)
            if translated is not error:
                raise translated from error


translating_errors: Final = _ErrorTranslator()
"""
Translates exceptions of a `with` block by `translate_error`.

It costs two Python calls, so methods that are called once per row or commit catch exceptions themselves.
"""
