"""
Where the lines of the log go, without keeping the reactor waiting.

A thread writes them.  A descriptor is not set to non-blocking: the shell and
other processes share it.  Up to `WAITING_BYTES_MAX` wait for a reader that
stands still or a disk that is slow; further lines are left out and counted, and
the count is a line of its own once there is room.  A line that cannot be
written, because the device is full or the terminal closed, is counted in the
same way and does not end the server.
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
"""Lines that wait to be written: some 8,000."""

FLUSH_SECONDS: Final = 2.0
"""How long the end of a process waits for its last lines to be written."""


class NotRotated(Exception):
    """The log cannot be rotated; the text says why."""


class Destination(Protocol):
    """A file or descriptor that the log is written to."""

    encoding: str

    def write(self, data: bytes) -> None:
        """Write all of *data*, however long that takes; an `OSError` if it cannot be written."""

    def rotate(self) -> str:
        """Begin a new file; the result says what was done.  `NotRotated` if that cannot be."""

    @property
    def hung_up(self) -> bool:
        """Whether this is a terminal that was closed."""


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
                # Another process has made it non-blocking for all that share it.
                ready = select.poll()
                ready.register(self._fd, select.POLLOUT)
                ready.poll()

    def rotate(self) -> str:
        """A descriptor is rotated by the process that reads it."""
        raise NotRotated(f"the log is {self._name}")

    @property
    def hung_up(self) -> bool:
        """Whether this is a terminal that was closed."""
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
    """A file that Twisted rotates, by its size or when it is asked to."""

    _file: LogFile
    encoding: str = "utf-8"

    def write(self, data: bytes) -> None:
        """Write all of *data*."""
        file: Any = self._file
        if file._file.closed:  # noqa: SLF001  (a rotation that failed after its first half leaves it so)
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
                # Twisted's `reopen` closes first, and leaves nothing if the path cannot be opened.
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

    @staticmethod
    def _is_moved(file: Any) -> bool:  # noqa: ANN401
        try:
            return not os.path.samestat(Path(file.path).stat(), os.fstat(file._file.fileno()))  # noqa: SLF001
        except FileNotFoundError:
            return True

    @property
    def hung_up(self) -> bool:
        """A file is no terminal."""
        return False

    def enter_chroot(self, root: str) -> None:
        """Find the file by its path below *root* from now on, if it is there; otherwise it cannot be rotated."""
        file: Any = self._file
        if Path(file.directory).is_relative_to(root):
            file.directory = f"/{Path(file.directory).relative_to(root)}"
            file.path = str(Path(file.directory, file.name))


def of_stream(stream: Any, name: str) -> Descriptor:  # noqa: ANN401
    """The descriptor under *stream*."""
    return Descriptor(stream.fileno(), name, getattr(stream, "encoding", None) or "utf-8")


@define(eq=False)
class LogOutput:
    """A text file for Twisted's observers, whose lines a thread writes once it was started."""

    destination: Destination
    _describe: Callable[[int, str], str]
    """The line that says how many lines were left out, and why."""

    _waiting: deque[bytes | Callable[[], None]] = field(factory=deque, init=False)
    _bytes: int = field(default=0, init=False)
    """Of those that wait and those that are being written."""

    _left_out: int = field(default=0, init=False)
    _unwritten: int = field(default=0, init=False)
    """Lines that an error kept from being written."""

    _why: str = field(default="", init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    # Reentrant: a signal handler of the main thread logs, too.
    _changed: threading.Condition = field(factory=threading.Condition, init=False)

    def start(self) -> None:
        """From now on a thread writes.  Not before a process forks: it would be missing in the child."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="queueber-log", daemon=True)
            self._thread.start()
            atexit.register(self.drain)

    def write(self, text: str) -> None:
        """Have a line written, or counted as left out."""
        # Surrogates stand for bytes of a path or an argument that are no text.
        data = text.encode(self.destination.encoding, "backslashreplace")
        if self._thread is None:
            self._put(data)
            return
        with self._changed:
            if self._bytes + len(data) > WAITING_BYTES_MAX:
                self._left_out += 1
                return
            self._waiting.append(data)
            self._bytes += len(data)
            self._changed.notify_all()

    def call(self, function: Callable[[], None]) -> None:
        """Have *function* called after the lines so far are written, by the thread that writes."""
        if self._thread is None:
            function()
            return
        with self._changed:
            self._waiting.append(function)
            self._changed.notify_all()

    def flush(self) -> None:
        """Twisted asks for this after each line; `drain` is what waits."""

    def drain(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until all is written, for *seconds* at most; whether it is."""
        if self._thread is None:
            return True
        until = monotonic() + seconds
        with self._changed:
            return self._changed.wait_for(lambda: not self._bytes, max(0.0, until - monotonic()))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._left_out)
                waiting, self._waiting = self._waiting, deque()
                left_out, self._left_out = self._left_out, 0
            for each in waiting:
                if not isinstance(each, bytes):
                    # The thread lives on, whatever it is asked to do.
                    with suppress(Exception):
                        each()
                    continue
                self._put(each)
                with self._changed:
                    self._bytes -= len(each)
                    self._changed.notify_all()
            if left_out:
                self._put(self._line(left_out, "they were not read, or written, fast enough"))

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
