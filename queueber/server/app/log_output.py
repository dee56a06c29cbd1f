"""
Write the log without blocking the reactor.

A thread writes the lines.  The descriptor is not set to non-blocking, because the
shell and other processes share it.  Up to `WAITING_BYTES_MAX` are buffered for a
reader that does not read or a slow disk.  Further lines are dropped and counted,
and the count is logged once there is room.  A line that cannot be written, because
the device is full or the terminal closed, is counted in the same way and does not
end the server.
"""

import atexit
import os
import select
import stat
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Final, Protocol

from attrs import define, field
from twisted.python.logfile import LogFile

from queueber.errors import reason

WAITING_BYTES_MAX: Final = 1 << 20
"""The size of the buffer: about 8,000 lines."""

FLUSH_SECONDS: Final = 2.0
"""The time limit for writing the last lines of a process."""


class NotRotated(Exception):
    """The log cannot be rotated; the text says why."""


class Destination(Protocol):
    """A file or descriptor to which the log is written."""

    encoding: str

    def write(self, data: bytes) -> None:
        """Write all of *data*, and block as long as that takes; raise `OSError` if it cannot be written."""

    def rotate(self) -> str:
        """Begin a new file, and return a description for the log; raise `NotRotated` if that is impossible."""

    @property
    def hung_up(self) -> bool:
        """Return whether this is a closed terminal."""


@define(eq=False)
class Descriptor:
    """An open descriptor of this process, such as standard output, which stays open."""

    _fd: int
    _name: str
    encoding: str = "utf-8"

    def write(self, data: bytes) -> None:
        """Write all of *data*."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                # Another process has made the shared descriptor non-blocking.
                ready = select.poll()
                ready.register(self._fd, select.POLLOUT)
                ready.poll()

    def rotate(self) -> str:
        """Raise `NotRotated`: the process that reads a descriptor rotates its log."""
        raise NotRotated(f"the log is {self._name}")

    @property
    def hung_up(self) -> bool:
        """Return whether this is a closed terminal."""
        try:
            if not stat.S_ISCHR(os.fstat(self._fd).st_mode):
                return False
            asked = select.poll()
            asked.register(self._fd, select.POLLOUT)
            return any(event & select.POLLHUP for _, event in asked.poll(0))
        except OSError:
            return False


@define(eq=False)
class RotatedFile:
    """A file that Twisted rotates, by size or on request."""

    _file: LogFile
    encoding: str = "utf-8"

    def write(self, data: bytes) -> None:
        """Write all of *data*."""
        file: Any = self._file
        if file._file.closed:  # noqa: SLF001  (a rotation that failed midway leaves it closed)
            file._openFile()  # noqa: SLF001
        file.write(data)

    def rotate(self) -> str:
        """
        Begin a new file: the old one becomes ``NAME.1``, unless another program has moved it away already.

        Raises:
            NotRotated: the file or its directory may not be written.
        """
        file: Any = self._file
        try:
            if self._is_moved(file):
                # Twisted's `reopen` closes the file before it opens the path, which may fail.
                before = file._file  # noqa: SLF001
                file._openFile()  # noqa: SLF001
                before.close()
                return f"{file.path} was moved, and is open anew"
            if not (os.access(file.directory, os.W_OK) and os.access(file.path, os.W_OK)):
                raise NotRotated(f"{file.path}, or its directory, cannot be written by this user")
            file.rotate()
        except OSError as why:
            raise NotRotated(reason(why)) from None
        return f"the log so far is {file.path}.1"

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @staticmethod
    def _is_moved(file: Any) -> bool:  # noqa: ANN401
        try:
            return not os.path.samestat(Path(file.path).stat(), os.fstat(file._file.fileno()))  # noqa: SLF001
        except FileNotFoundError:
            return True

    @property
    def hung_up(self) -> bool:
        """Return False: a file is not a terminal."""
        return False

    def enter_chroot(self, root: str) -> None:
        """Change the path to one below *root*.  A file outside of *root* cannot be rotated any more."""
        file: Any = self._file
        if Path(file.directory).is_relative_to(root):
            file.directory = f"/{Path(file.directory).relative_to(root)}"
            file.path = str(Path(file.directory, file.name))


def descriptor_of(stream: Any, name: str) -> Descriptor:  # noqa: ANN401
    """Return the descriptor of *stream*."""
    return Descriptor(stream.fileno(), name, getattr(stream, "encoding", None) or "utf-8")


@define(eq=False)
class LogOutput:
    """A text file for Twisted's log observers.  A thread writes its lines, once `start` was called."""

    destination: Destination
    _describe: Callable[[int, str], str]
    """Return the line that reports the number of missing lines, and the reason."""

    _waiting: deque[bytes | Callable[[], None]] = field(factory=deque, init=False)
    _bytes: int = field(default=0, init=False)
    """The size of all lines that are not written yet."""

    _dropped: int = field(default=0, init=False)
    _unwritten: int = field(default=0, init=False)
    """Lines that were lost to an error."""

    _why: str = field(default="", init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    # Reentrant: a signal handler in the main thread may log as well.
    _changed: threading.Condition = field(factory=threading.Condition, init=False)

    def start(self) -> None:
        """Start the thread that writes.  Not before a fork, because the child would lack the thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="queueber-log", daemon=True)
            self._thread.start()
            atexit.register(self.drain)

    def write(self, text: str) -> None:
        """Buffer a line, or count it as dropped."""
        # Surrogates stand for bytes of a path or an argument that are not UTF-8.
        data = text.encode(self.destination.encoding, "backslashreplace")
        if self._thread is None:
            self._put(data)
            return
        with self._changed:
            if self._bytes + len(data) > WAITING_BYTES_MAX:
                self._dropped += 1
                return
            self._waiting.append(data)
            self._bytes += len(data)
            self._changed.notify_all()

    def call(self, function: Callable[[], None]) -> None:
        """Call *function* in the writing thread, after the present lines are written."""
        if self._thread is None:
            function()
            return
        with self._changed:
            self._waiting.append(function)
            self._changed.notify_all()

    def flush(self) -> None:
        """Do nothing: Twisted calls this after each line, and `drain` is for waiting."""

    def drain(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait up to *seconds* until all lines are written, and return whether they are."""
        if self._thread is None:
            return True
        until = monotonic() + seconds
        with self._changed:
            return self._changed.wait_for(lambda: not self._bytes, max(0.0, until - monotonic()))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._dropped)
                waiting, self._waiting = self._waiting, deque()
                dropped, self._dropped = self._dropped, 0
            for each in waiting:
                if not isinstance(each, bytes):
                    # No failure of the function may end the thread.
                    with suppress(Exception):
                        each()
                    continue
                self._put(each)
                with self._changed:
                    self._bytes -= len(each)
                    self._changed.notify_all()
            if dropped:
                self._put(self._line(dropped, "they were not read, or written, fast enough"))

    def _put(self, data: bytes) -> None:
        try:
            if self._unwritten:
                self.destination.write(self._line(self._unwritten, self._why))
                self._unwritten = 0
            self.destination.write(data)
        except (OSError, ValueError) as why:
            self._unwritten += 1
            self._why = reason(why)

    def _line(self, lines: int, why: str) -> bytes:
        return self._describe(lines, why).encode(self.destination.encoding, "backslashreplace")
