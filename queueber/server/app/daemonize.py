"""
What stock twistd does around a service, as far as the service has a part in it.

In the background twistd's parent process waits on a pipe for the outcome of the
start, and takes a start for done once the reactor is about to run.  Ours is
done when the server listens: the service takes the pipe over and writes to it
then.  twistd's parent prints what follows the 1 and ends with status 1.

twistd removes its pid file when the reactor has ended.  A process that ends
with a status of its own does so before.
"""

import atexit
import fcntl
import os
import pwd
import stat
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
"""twistd's name for the pipe, in its options."""

_DESCRIPTORS: Final = 256
"""So many are looked at for the pipe, which has the lowest number that is free."""

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

_REPORT_BYTES_MAX: Final = 98
"""What twistd's parent reads, without the status."""


def check_pid_file(options: Mapping[str, Any]) -> str | None:
    """A complaint if twistd's pid file is relative to a working directory that is gone: twistd has a traceback."""
    name = options.get("pidfile")
    if not name or Path(name).is_absolute():
        return None
    try:
        Path.cwd()
    except OSError as why:
        return f"--pidfile {name}: the working directory is gone ({why.strerror}): name it from /, or none: --pidfile="
    return None


def _has_user(root: Path, uid: int) -> bool:
    """Whether the user will be found once *root* is the root."""
    if root == Path("/"):
        with suppress(KeyError):
            return bool(pwd.getpwuid(uid))
        return False
    with suppress(OSError):
        rows = (root / "etc/passwd").read_text(encoding="utf-8", errors="replace").splitlines()
        return any(row.split(":")[2:3] == [str(uid)] for row in rows)
    return False


def _written_pipes() -> set[int]:
    """The open descriptors that are writing ends of pipes.  Below --chroot there is no ``/proc`` to ask."""
    found = set()
    for number in range(_DESCRIPTORS):
        with suppress(OSError):
            written = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
            if written and stat.S_ISFIFO(os.fstat(number).st_mode):
                found.add(number)
    return found


@define(eq=False)
class Launcher:
    """The twistd or twist that a service was made for; without one nothing happens."""

    _options: MutableMapping[str, Any] = field(factory=dict)
    """twistd's or twist's options."""

    _pipe: int | None = field(default=None, init=False)
    _forked: bool = field(default=False, init=False)
    root: str | None = field(init=False)
    """The directory of ``--chroot``, absolute as long as it is not the root yet; None without."""

    def __attrs_post_init__(self) -> None:
        """Note what the paths mean before twistd changes the directory and the root."""
        root = self._options.get("chroot")
        self.root = os.path.realpath(root) if root else None

    def expect_fork(self) -> None:
        """
        Have twistd's parent process notice a child that ends without a word, however that was ended.

        twistd leaves the parent its own end of the pipe open, so that it would wait for ever.
        """
        if self._options.get("nodaemon", True):
            return
        before, parent = _written_pipes(), os.getpid()

        def close_own_end() -> None:
            if os.getpid() == parent and not self._forked:
                self._forked = True
                for number in _written_pipes() - before:
                    os.close(number)

        os.register_at_fork(after_in_parent=close_own_end)

    def begin(self) -> None:
        """Take over what the parent process waits for.  In the process that serves, after twistd has forked."""
        self._pipe = self._options.pop(_PIPE, None) if _PIPE in self._options else None
        # twistd leaves the file where it cannot change the user, or the service raises.
        atexit.register(self.remove_pid_file)

    def started(self) -> None:
        """The server serves: the parent process ends with 0."""
        self._report(b"0")

    def failed(self, why: str) -> None:
        """The server does not start, because of *why*: the parent process prints it, cut short, and ends with 1."""
        self._report(b"1 " + " ".join(why.split()).encode("ascii", "backslashreplace")[:_REPORT_BYTES_MAX])

    def _report(self, outcome: bytes) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            # The parent process may have been ended; the start goes on.
            with suppress(OSError):
                os.write(pipe, outcome)
            os.close(pipe)

    def remove_pid_file(self) -> None:
        """Remove twistd's pid file if it is this process's, as far as this user may."""
        name = self._options.get("pidfile")
        if not name:
            return
        path = Path(name)
        # twistd, too, leaves one that it may not remove; its next start sees that the process is gone.
        with suppress(OSError):
            try:
                ours = path.read_bytes().strip() == b"%d" % os.getpid()
            except PermissionError:
                ours = True  # written as root, before privileges were dropped
            if ours:
                path.unlink()

    def complaints(self) -> list[str]:
        """What twistd would end with a traceback for: of each a line."""
        options = self._options
        found: list[str] = []
        root, run, name = options.get("chroot"), options.get("rundir"), options.get("pidfile")
        if root is not None and os.geteuid() != 0:
            found.append(f"--chroot {root}: only root can do that")
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
        Have twistd change to ``/`` where it would fail to stay in the working directory, which is gone or closed.

        Returns:
            A complaint, if *data_dir* or twistd's own files are below it.
        """
        if self._options.get("rundir") not in (None, "."):
            return None
        try:
            os.chdir(".")
            Path.cwd()
        except OSError as why:
            if not Path(data_dir).is_absolute():
                return f"--data-dir {data_dir}: the working directory cannot be used ({why.strerror}): name it from /"
            if "rundir" in self._options:
                self._options["rundir"] = "/"
        return None


def import_for_chroot() -> None:
    """
    Import what Python, Twisted and the server look for at its first use: below --chroot there is none of it.

    Twisted reads its directories of plugins for each endpoint string; it gets those that are there now.
    """
    for name in _LATE:
        # The extras may not be installed.
        with suppress(ImportError):
            import_module(name)
    preload_options()
    parsers: list[Any] = list(getPlugins(IStreamServerEndpointStringParser))
    found: Any = endpoints
    found.getPlugins = lambda *_: parsers
