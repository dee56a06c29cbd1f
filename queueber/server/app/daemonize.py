"""
Integrate the service with twistd: start in the background, pid file, --chroot, --rundir.

In the background twistd's parent process waits on a pipe for the outcome of the
start.  twistd writes to the pipe when the reactor is about to run, and its parent
exits with 0 or 1.  Here the service writes to the pipe, once the server listens
or has failed, and the parent exits with the exit status of the server.

twistd removes its pid file when the reactor has stopped.  A process that exits
with a status of its own removes the file itself.
"""

import atexit
import fcntl
import os
import pwd
import stat
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from attrs import define, field
from twisted.internet import endpoints
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import getPlugins

from queueber.plyvel.rocksdb_options import preload_options

_PIPE: Final = "statusPipe"
"""The key of the pipe in twistd's options."""

_DESCRIPTORS: Final = 256
"""Descriptors below this are searched for the pipe, which has the lowest free numbers."""

_LATE: Final = (
    "encodings.idna",
    "encodings.latin_1",
    "queueber.server.admin.console.session",
    "queueber.server.net.tls",
    "queueber.server.monitoring.web",
    "twisted.protocols.tls",
    "twisted.internet.unix",
    "twisted.protocols.haproxy._wrapper",
)

_REPORT_BYTES_MAX: Final = 1_000
"""The length of a report, which is written at once: a pipe takes up to 4,096 bytes atomically."""


def check_pid_file(options: Mapping[str, Any]) -> str | None:
    """Return a complaint if twistd's pid file is relative to a deleted directory, which would end in a traceback."""
    name = options.get("pidfile")
    if not name or Path(name).is_absolute():
        return None
    try:
        Path.cwd()
    except OSError as why:
        hint = "use an absolute path, or --pidfile= for none"
        return f"--pidfile {name}: the working directory is gone ({why.strerror}); {hint}"
    return None


def _has_user(root: Path, uid: int) -> bool:
    """Return whether the user *uid* exists after --chroot to *root*."""
    if root == Path("/"):
        with suppress(KeyError):
            return bool(pwd.getpwuid(uid))
        return False
    with suppress(OSError):
        rows = (root / "etc/passwd").read_text(encoding="utf-8", errors="replace").splitlines()
        return any(row.split(":")[2:3] == [str(uid)] for row in rows)
    return False


def _pipes(mode: int) -> set[int]:
    """Return the open descriptors of pipes with access *mode*.  After --chroot there is no ``/proc``."""
    found = set()
    for number in range(_DESCRIPTORS):
        with suppress(OSError):
            has_mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == mode
            if has_mode and stat.S_ISFIFO(os.fstat(number).st_mode):
                found.add(number)
    return found


@define(eq=False)
class Launcher:
    """The twistd or twist that runs the service.  Without one, all methods have no effect."""

    _options: MutableMapping[str, Any] = field(factory=dict)
    """twistd's or twist's options."""

    _pipe: int | None = field(default=None, init=False)
    _forked: bool = field(default=False, init=False)
    root: str | None = field(init=False)
    """The absolute path of ``--chroot``, as seen before it; None without."""

    def __attrs_post_init__(self) -> None:
        """Resolve the path of ``--chroot``, before twistd changes the directory."""
        root = self._options.get("chroot")
        self.root = os.path.realpath(root) if root else None

    def expect_fork(self) -> None:
        """
        Have twistd's parent process wait for the report of `started` or `failed`, and exit with its status.

        twistd's own wait knows the statuses 0 and 1 only.  It also leaves the parent's writing end of the pipe open, so
        that it would not notice the death of the child.
        """
        if self._options.get("nodaemon", True):
            return
        before, parent = _pipes(os.O_RDONLY) | _pipes(os.O_WRONLY), os.getpid()

        def wait() -> None:
            if os.getpid() != parent or self._forked:
                return
            self._forked = True
            for number in _pipes(os.O_WRONLY) - before:
                os.close(number)
            for number in _pipes(os.O_RDONLY) - before:
                os._exit(_outcome(os.read(number, _REPORT_BYTES_MAX)))

        os.register_at_fork(after_in_parent=wait)

    def begin(self) -> None:
        """Take over the pipe to the parent process.  Called in the process that serves, after twistd has forked."""
        self._pipe = self._options.pop(_PIPE, None) if _PIPE in self._options else None
        # twistd does not remove the file if it cannot change the user, or the service raises.
        atexit.register(self.remove_pid_file)

    def started(self) -> None:
        """Report that the server serves: the parent process exits with 0."""
        self._report(b"0")

    def failed(self, status: int, why: str) -> None:
        """Report that the server cannot start: the parent process prints *why* and exits with *status*."""
        self._report(f"{status} {' '.join(why.split())}".encode("ascii", "backslashreplace")[:_REPORT_BYTES_MAX])

    def _report(self, outcome: bytes) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            # The parent process may have been killed; the start goes on.
            with suppress(OSError):
                os.write(pipe, outcome)
            os.close(pipe)

    def remove_pid_file(self) -> None:
        """Remove twistd's pid file if it is of this process and this user may remove it."""
        name = self._options.get("pidfile")
        if not name:
            return
        path = Path(name)
        # A file that may not be removed stays, as with twistd: the next start notices that the process is gone.
        with suppress(OSError):
            try:
                ours = path.read_bytes().strip() == b"%d" % os.getpid()
            except PermissionError:
                ours = True  # written as root, before privileges were dropped
            if ours:
                path.unlink()

    def complaints(self) -> list[str]:
        """Return a line for each mistake that would end twistd with a traceback."""
        options = self._options
        found: list[str] = []
        root, run, name = options.get("chroot"), options.get("rundir"), options.get("pidfile")
        if root is not None and os.geteuid() != 0:
            found.append(f"--chroot {root}: only root may use it")
        if root is not None and not Path(root).is_dir():
            return [*found, f"--chroot {root}: there is no such directory"]
        below = Path(root or "/")
        if root is not None and not options.get("nodaemon") and not (below / "dev/null").exists():
            found.append(f"--chroot {root}: a server in the background needs {below}/dev/null")
        if run and run != "." and not (below / run.lstrip("/") if root is not None else Path(run)).is_dir():
            found.append(f"--rundir {run}: there is no such directory{' below --chroot' if root else ''}")
        if (uid := options.get("uid")) is not None and not _has_user(below, uid):
            users = below / "etc/passwd"
            found.append(f"--uid {uid}: there is no such user in {users}, where twistd looks for its groups")
        if name:
            folder = below / Path(name).parent.relative_to("/")
            if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
                found.append(f"--pidfile {name}: the directory {folder} is not there, or cannot be written")
        return found

    def leave_unusable_directory(self, data_dir: str) -> str | None:
        """
        Have twistd change to ``/`` if the working directory is deleted or inaccessible, in which twistd would fail.

        Returns:
            A complaint, if *data_dir* is relative to it.
        """
        if self._options.get("rundir") not in (None, "."):
            return None
        try:
            os.chdir(".")
            Path.cwd()
        except OSError as why:
            if not Path(data_dir).is_absolute():
                problem = f"the working directory cannot be used ({why.strerror})"
                return f"--data-dir {data_dir}: {problem}; use an absolute path"
            if "rundir" in self._options:
                self._options["rundir"] = "/"
        return None


def _outcome(report: bytes) -> int:
    """Return the exit status in *report*, after printing its reason for a failure."""
    status, _, why = report.decode("ascii", "replace").partition(" ")
    if status == "0":
        return 0
    # Twisted has redirected `sys.stderr` to the log.
    stderr = sys.__stderr__
    if stderr is not None:
        stderr.write(f"queueber: Cannot start: {why or 'the server ended without a report; see its log'}\n")
        stderr.flush()
    return int(status) if status.isdigit() else 1


def import_for_chroot() -> None:
    """
    Import all modules that Python, Twisted and the server import lazily, because --chroot hides them.

    Twisted searches for plugins at each endpoint string; it is given those that exist now.
    """
    for name in _LATE:
        # The extras may not be installed.
        with suppress(ImportError):
            import_module(name)
    preload_options()
    parsers: list[Any] = list(getPlugins(IStreamServerEndpointStringParser))
    found: Any = endpoints
    found.getPlugins = lambda *_: parsers
