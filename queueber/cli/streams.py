r"""
Standard streams of a command that are closed, full, ended, or in an encoding without some letters.

| Stream | Fault | Outcome |
|---|---|---|
| input | closed | a command that reads it fails with a line; other commands work |
| output | closed | nothing is done, status 1, because the output may be a lease |
| output | full, or another error | a line that names it, status 1 |
| output | a pipe without a reader | no line, status 141, as if by SIGPIPE |
| error | closed, or an error | the status alone |
| output, error | letters that the encoding lacks | Python's escapes: ``\xeb`` |
"""

import errno
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from queueber.errors import reason
from queueber.process import STANDARD_ERROR, fill_standard_streams

EXIT_ERROR = 1
EXIT_PIPE = 141
"""The status of shells for a process that SIGPIPE has ended."""


class _ClosedInput(io.RawIOBase):
    """Standard input that was closed."""

    def readable(self) -> bool:
        return True

    def readinto(self, _: Any) -> int:  # noqa: ANN401  (a buffer)
        raise OSError(errno.EBADF, "standard input is closed")

    def fileno(self) -> int:
        raise OSError(errno.EBADF, "standard input is closed")


class _Error(io.FileIO):
    """Standard error, whose own errors cannot be reported and are ignored."""

    def write(self, data: Any) -> int:  # noqa: ANN401  (a buffer)
        with suppress(OSError):
            super().write(data)
        return len(data)


class _Output(io.FileIO):
    """Standard output, with its name in errors."""

    def write(self, data: Any) -> int:  # noqa: ANN401  (a buffer)
        try:
            return super().write(data)
        except BrokenPipeError:
            # Without a number: click takes EPIPE for the end of the process, with status 1.
            raise BrokenPipeError("standard output is not read any more") from None
        except OSError as why:
            raise OSError(why.errno, why.strerror, "standard output") from None


def run(command: Callable[[], object]) -> NoReturn:
    """Run *command*, which ends by `SystemExit`, with usable streams, and exit with its status."""
    closed = sys.stdout is None
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_ClosedInput()), encoding="utf-8")
    fill_standard_streams()
    sys.stderr = _text(_Error(2, "w", closefd=False), sys.stderr)
    if closed:
        _print_error("standard output is closed")
        _exit(EXIT_ERROR)
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    status: int | str | None = 0
    try:
        command()
    except SystemExit as end:
        status = end.code
    except BrokenPipeError:
        status = EXIT_PIPE
    _exit(status)


def _text(raw: io.FileIO, before: Any) -> io.TextIOWrapper:  # noqa: ANN401  (the former stream of sys)
    """Return a text stream to *raw* with the encoding of the stream *before*."""
    # A program of tasks or a handler may print, and Python is run with -u or PYTHONUNBUFFERED to see that at once.
    lines = raw.fileno() == STANDARD_ERROR or raw.isatty() or before.write_through
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=before.encoding, errors="backslashreplace", line_buffering=lines
    )


def _exit(status: int | str | None) -> NoReturn:
    """Flush standard output and exit with *status*, or with that of a failed flush."""
    try:
        sys.stdout.flush()
    except OSError as why:
        if isinstance(why, BrokenPipeError):
            status = EXIT_PIPE
        elif not status:
            _print_error(reason(why))
            status = EXIT_ERROR
        # The interpreter flushes once more, and on an error would exit with its own status.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
    sys.exit(status)


def _print_error(line: str) -> None:
    sys.stderr.write(f"queueber: {line}\n")
