"""
The data directory: its owner, its lock, and its state.

Two marker files in the directory give its state:

1. EMPTY     there is nothing but perhaps a lock file or ``lost+found``.
2. CREATING  the first marker is there: a database is being created, and nothing in it was ever acknowledged.
3. READY     the second marker is there: there is a database, and it may hold acknowledged items.
4. FOREIGN   anything else.

EMPTY becomes CREATING when a server takes the directory, and READY once the
database is on disk.  CREATING becomes READY in the same way, after the remains
of the first attempt are removed.  Wiping turns a READY directory into CREATING
and then into EMPTY.  READY without a database means that a file system is not
mounted, or a mistake, and is refused.  So is FOREIGN.

A process that uses a directory locks a file in it.  The kernel releases the
lock when the process ends.  The file is never removed, because two processes
could then each lock a file of their own.
"""

import fcntl
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import define, field

from queueber.errors import Damaged, Passing, StorageError, Withheld, reason
from queueber.process import CONTROL

READY: Final = "QUEUEBER"
CREATING: Final = "QUEUEBER.new"
LOCK: Final = "lock"
DATABASE: Final = "db"
SYNCED: Final = "synced"
SYNCED_NEW: Final = "synced.new"
TORN_TAIL: Final = re.compile(r"torn-[0-9]+-[0-9]+")
"""Names of files with the cut-off end of a log: the log's number, and the offset of the end in it."""

STAGING: Final = "backup.new"
"""Directory for temporary copies of the database; a start removes it."""

_OURS: Final = frozenset({READY, CREATING, LOCK, DATABASE, SYNCED, SYNCED_NEW, CONTROL, STAGING})
_ALLOWED_IN_EMPTY: Final = frozenset({LOCK, "lost+found"})
"""Names in a directory that counts as empty; some file systems have ``lost+found`` in their root."""

_MARKER_TEXT: Final = "This directory belongs to a Queueber server.  Do not edit, move or remove single files in it.\n"


def directory_error(path: Path, why: str, error: Exception | None = None) -> StorageError:
    """
    Return the error for a data directory that cannot be used.

    A cause *error* that is `Withheld`, `Damaged` or `Passing` gives its class to the error.
    """
    kinds = (kind for kind in (Withheld, Damaged, Passing) if isinstance(error, kind))
    return next(kinds, StorageError)(f"cannot use data directory {path}: {why}")


@define
class LockedDirectory:
    """A data directory that this process has locked, until `release`."""

    path: Path
    _lock: int = field(repr=False)
    """Descriptor of the lock file."""

    @property
    def database(self) -> Path:
        """Directory of the database."""
        return self.path / DATABASE

    @property
    def synced(self) -> Path:
        """File of the last sequence number known to be on disk."""
        return self.path / SYNCED

    def torn_tail(self, log: Path, at: int) -> Path:
        """Return the file for the end of *log* that is cut off at the offset *at*."""
        return self.path / f"torn-{log.stem}-{at}"

    @property
    def staging(self) -> Path:
        """Directory for temporary copies of the database."""
        return self.path / STAGING

    @property
    def ready(self) -> bool:
        """Whether there is a database that may hold acknowledged items."""
        return (self.path / READY).exists()

    def begin(self) -> None:
        """Durably enter CREATING, and remove all remains of a database."""
        creating = self.path / CREATING
        if self.ready:
            (self.path / READY).rename(creating)
        else:
            creating.write_text(_MARKER_TEXT)
            sync_path(creating)
        sync_path(self.path)
        torn_tails = [name for name in _names(self.path) if TORN_TAIL.fullmatch(name)]
        for name in (SYNCED, SYNCED_NEW, CONTROL, *torn_tails):
            (self.path / name).unlink(missing_ok=True)
        for directory in (self.database, self.staging):
            if directory.exists():
                shutil.rmtree(directory)
        sync_path(self.path)

    def finish(self) -> None:
        """Durably go from CREATING to READY."""
        (self.path / CREATING).rename(self.path / READY)
        sync_path(self.path)

    def confirm(self) -> None:
        """
        Make the present state durable.

        The server that entered READY may have died before that was on disk.  After a power cut the directory would then
        be CREATING again, and everything acknowledged since would be lost.
        """
        sync_path(self.path)

    def publish(self) -> None:
        """
        Durably enter READY with a database that was put here without `begin`.

        Until then the directory is FOREIGN.
        """
        # A server writes its process id into the lock file: an empty one says that none has run here.
        os.ftruncate(self._lock, 0)
        (self.path / READY).write_text(_MARKER_TEXT)
        sync_path(self.path / READY)
        sync_path(self.path)

    def release(self) -> None:
        """Release the lock."""
        os.close(self._lock)


def lock_directory(path: Path) -> LockedDirectory:
    """
    Lock the data directory *path*, which is created if it is missing.

    Afterwards only its owner can read it.  Unless it is `ready`, the caller calls `begin`, creates a database, and
    calls `finish`.

    Raises:
        StorageError: the directory cannot be used; the text is one line with its name and the reason.
    """
    return _create_and_lock(path, _check_usable)


def create_empty(path: Path) -> LockedDirectory:
    """
    Lock the empty directory *path*, which is created if it is missing, to put a database there and `publish` it.

    After a crash before that, servers refuse the directory; they do not start again in it as after a crash in `begin`.

    Raises:
        StorageError: as `lock_directory`, or the directory is not empty.
    """
    return _create_and_lock(path, _check_empty)


@contextmanager
def locked_shared(path: Path) -> Iterator[None]:
    """
    Prevent servers from using the data directory *path* during the block, without writing to it.

    Raises:
        StorageError: a server uses it, or it is no data directory with a database.
    """
    if not (path / READY).is_file():
        raise directory_error(
            path, f"it is not a data directory of Queueber's, or not a whole one: {READY!r} is missing"
        )
    _check_usable(path)
    with shared_lock(path):
        yield


@contextmanager
def shared_lock(path: Path) -> Iterator[None]:
    """
    Prevent servers from using the directory *path*, in any state, during the block.

    Raises:
        StorageError: a server uses it.
    """
    try:
        lock = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield  # a copy, which no server has locked yet
        return
    except OSError as error:
        raise directory_error(path, reason(error)) from error
    try:
        _flock(path, lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


def _create_and_lock(path: Path, check_contents: Callable[[Path], None]) -> LockedDirectory:
    try:
        path.mkdir(mode=stat.S_IRWXU)
        created = True
    except FileExistsError:
        created = False
    except OSError as error:
        raise directory_error(path, f"it cannot be created: {error.strerror}") from error
    try:
        # Also for an existing directory: the process that created it may have died before its name was on disk.
        sync_path(path.parent)
    except OSError as error:
        # A parent that this user may not read was not created by this user, and neither was the directory in it.
        if created or not isinstance(error, PermissionError):
            raise directory_error(path, f"the directory above it cannot be synced: {error.strerror}") from error
    return _check_and_lock(path, check_contents)


def wipe(path: Path) -> None:
    """
    Empty the data directory *path*, unless it is missing or empty already.

    Raises:
        StorageError: it is not a data directory, contains foreign files, or a server uses it.  Nothing was removed.
    """
    if not path.exists() and not path.is_symlink():
        return
    directory = _check_and_lock(path, _check_wipeable)
    try:
        if _names(path) - _ALLOWED_IN_EMPTY:
            directory.begin()
            (path / CREATING).unlink()
    finally:
        directory.release()


def _check_and_lock(path: Path, check_contents: Callable[[Path], None]) -> LockedDirectory:
    """Check the existing directory *path*, and lock it."""
    try:
        status = path.lstat()
        _check_owner(path, status)
        # Before locking, so that no lock file is written into a foreign directory.
        check_contents(path)
        lock = _lock(path)
        try:
            # Again: the process that had the lock until now may have wiped the directory, or created a database.
            check_contents(path)
            if stat.S_IMODE(status.st_mode) != stat.S_IRWXU:
                path.chmod(stat.S_IRWXU)
        except BaseException:
            os.close(lock)
            raise
    except OSError as error:
        raise directory_error(path, reason(error)) from error
    return LockedDirectory(path, lock)


def _check_owner(path: Path, status: os.stat_result) -> None:
    """Refuse a directory that another user could change, or redirect."""
    if stat.S_ISLNK(status.st_mode):
        raise directory_error(path, "it is a symbolic link; name the directory itself")
    if not stat.S_ISDIR(status.st_mode):
        raise directory_error(path, "it is not a directory")
    if status.st_uid != os.geteuid():
        raise directory_error(path, f"it belongs to user {status.st_uid}, and this server runs as user {os.geteuid()}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        raise directory_error(
            path, f"others may write to it (mode {mode:04o}); chmod 700 it if what it holds can be trusted"
        )


def _check_usable(path: Path) -> None:
    """Refuse a FOREIGN directory, and a READY one without its database."""
    names = _names(path) - _ALLOWED_IN_EMPTY
    if READY in names:
        _check_database(path)
    elif names and CREATING not in names:
        raise directory_error(path, f"it is not Queueber's, and not empty: it holds {min(names)!r}")


def _check_database(path: Path) -> None:
    """Refuse a READY directory whose database is missing or incomplete."""
    database = path / DATABASE
    if database.is_symlink() or not database.is_dir() or not _names(database):
        raise directory_error(path, f"its database, {DATABASE!r}, is missing; is a file system not mounted?")
    if not (database / "CURRENT").is_file():
        name = f"{DATABASE}/CURRENT"
        raise directory_error(
            path, f"its database is damaged: {name!r} is missing and other files are there; restore a backup"
        )


def _check_empty(path: Path) -> None:
    """Refuse a directory that is not empty."""
    names = _names(path) - _ALLOWED_IN_EMPTY
    if names:
        raise directory_error(path, f"it must be empty, and holds {min(names)!r}")


def _check_wipeable(path: Path) -> None:
    """Refuse a directory with foreign files, or without a marker."""
    names = _names(path) - _ALLOWED_IN_EMPTY
    foreign = {name for name in names - _OURS if not TORN_TAIL.fullmatch(name)}
    if (path / DATABASE).is_symlink():
        foreign.add(DATABASE)
    if foreign:
        raise directory_error(path, f"it will not be wiped: {min(foreign)!r} in it is not Queueber's")
    if names and not names & {READY, CREATING}:
        raise directory_error(path, f"it will not be wiped: it is not marked as Queueber's, and holds {min(names)!r}")


def _names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def _lock(path: Path) -> int:
    """Lock *path* exclusively, and return the descriptor of its lock file."""
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _flock(path, lock, fcntl.LOCK_EX)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BaseException as error:
        os.close(lock)
        if isinstance(error, OSError):
            raise directory_error(path, f"{path / LOCK}: {error.strerror}") from error
        raise
    return lock


def _flock(path: Path, lock: int, kind: int) -> None:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise directory_error(path, _lock_holder(lock)) from None


def _lock_holder(lock: int) -> str:
    """Describe the process that holds a lock that could not be taken."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        process = os.pread(lock, 20, 0).decode(errors="replace").strip()
        return f"another server holds it (process {process or 'unknown'})"
    # A shared lock.  Its holders do not write their process id: the one in the file is of a former server.
    return "a backup, verify or recover holds it"


def sync_path(path: Path) -> None:
    """Make the content of *path* durable: for a directory, the names in it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
