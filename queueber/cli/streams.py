r"""
Standard streams of a command: closed, full, ended, or in an encoding that lacks letters.

| Stream | Fault | Outcome |
|---|---|---|
| input | closed | whatever reads it fails with a line; a command that does not goes on |
| output | closed | nothing is done: status 1, because what would be printed may be a lease |
| output | full, or another error | a line that names it, status 1 |
| output | a pipe that is not read any more | no line, status 141, as if by SIGPIPE |
| error | closed, or an error | the status alone |
| output, error | letters that the encoding lacks | escapes of Python's: ``\xeb`` |
"""

import errno
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from queueber.errors import reason
from queueber.streams import STANDARD_ERROR, fill_standard_streams

EXIT_ERROR = 1
EXIT_PIPE = 141
"""What shells give for a process that SIGPIPE has ended."""


class _ClosedInput(io.RawIOBase):
    """Standard input that was closed."""

    def readable(self) -> bool:
        return True

    def readinto(self, _: Any) -> int:  # noqa: ANN401  (a buffer)
        raise OSError(errno.EBADF, "standard input is closed")

    def fileno(self) -> int:
        raise OSError(errno.EBADF, "standard input is closed")


class _Error(io.FileIO):
    """Standard error, on which there is no way to complain."""

    def write(self, data: Any) -> int:  # noqa: ANN401  (a buffer)
        with suppress(OSError):
            super().write(data)
        return len(data)


class _Output(io.FileIO):
    """Standard output, whose errors name it."""

    def write(self, data: Any) -> int:  # noqa: ANN401  (a buffer)
        try:
            return super().write(data)
        except BrokenPipeError:
            # Without a number: click takes EPIPE for the end of the process, with status 1.
            raise BrokenPipeError("standard output is not read any more") from None
        except OSError as why:
            raise OSError(why.errno, why.strerror, "standard output") from None


def run(command: Callable[[], object]) -> NoReturn:
    """Run *command*, which ends by `SystemExit`, with streams that it can use; exits with its status."""
    closed = sys.stdout is None
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_ClosedInput()), encoding="utf-8")
    fill_standard_streams()
    sys.stderr = _text(_Error(2, "w", closefd=False), sys.stderr)
    if closed:
        _complain("standard output is closed")
        _end(EXIT_ERROR)
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    status: int | str | None = 0
    try:
        command()
    except SystemExit as end:
        status = end.code
    except BrokenPipeError:
        status = EXIT_PIPE
    _end(status)


def _text(raw: io.FileIO, before: Any) -> io.TextIOWrapper:  # noqa: ANN401  (whatever stood in sys)
    """A text stream like the one *before*, to *raw*."""
    lines = raw.fileno() == STANDARD_ERROR or raw.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=before.encoding, errors="backslashreplace", line_buffering=lines
    )


def _end(status: int | str | None) -> NoReturn:
    """Write what is left and exit with *status*, or with what keeps it from being written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = EXIT_PIPE
    except OSError as why:
        if not status:
            _complain(reason(why))
            status = EXIT_ERROR
    # The interpreter flushes once more, and would end with a status of its own.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    sys.exit(status)


def _complain(line: str) -> None:
    sys.stderr.write(f"queueber: {line}\n")
