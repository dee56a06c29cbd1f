"""
The data directory: whose it is, who holds it, and what state it is in.

A data directory is in one of four states, told by the two markers in it:

1. EMPTY     nothing of anybody's is in it (a lock may be, or ``lost+found``).
2. CREATING  the first marker is there: a database is being made, nothing in it was ever acknowledged.
3. READY     the second marker is there: there is a database, and it may hold acknowledged items.
4. FOREIGN   anything else.

EMPTY becomes CREATING when a server takes the directory, and READY once the
database is on disk; CREATING becomes READY in the same way, after what is left
of the first attempt is removed.  Wiping takes a READY directory back over
CREATING to EMPTY.  READY without a database is a file system that is not
mounted or a mistake, and is refused; so is FOREIGN.

Whoever uses a directory holds a lock on a file in it, which the kernel lets go
of when the process ends.  That file is never removed: two processes could each
hold their own.
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
from queueber.paths import CONTROL

READY: Final = "QUEUEBER"
CREATING: Final = "QUEUEBER.new"
LOCK: Final = "lock"
DATABASE: Final = "db"
SYNCED: Final = "synced"
SYNCED_NEW: Final = "synced.new"
TORN: Final = re.compile(r"torn-[0-9]+-[0-9]+")
"""What a power cut left at the end of a log, cut off: which log, and where."""

STAGING: Final = "backup.new"
"""Where a backup is gathered that goes to another file system."""

_OURS: Final = frozenset({READY, CREATING, LOCK, DATABASE, SYNCED, SYNCED_NEW, CONTROL, STAGING})
_HARMLESS: Final = frozenset({LOCK, "lost+found"})
"""What an empty directory may hold: the second is in the root of every file system of some kinds."""

_MARKER_TEXT: Final = "This directory belongs to a Queueber server.  Do not edit, move or remove single files in it.\n"


def refusal(path: Path, why: str, error: Exception | None = None) -> StorageError:
    """The error for a directory that cannot be used; damaged or passing if *error*, its cause, is."""
    kinds = (kind for kind in (Withheld, Damaged, Passing) if isinstance(error, kind))
    return next(kinds, StorageError)(f"cannot use data directory {path}: {why}")


@define
class HeldDirectory:
    """A data directory that this process has to itself until `release`."""

    path: Path
    _lock: int = field(repr=False)
    """A descriptor of the lock file."""

    @property
    def database(self) -> Path:
        """Where the database is."""
        return self.path / DATABASE

    @property
    def synced(self) -> Path:
        """Where it is noted how far the log was known to be on disk."""
        return self.path / SYNCED

    def torn(self, log: Path, at: int) -> Path:
        """Where the end of *log* is kept that was cut off at *at*."""
        return self.path / f"torn-{log.stem}-{at}"

    @property
    def staging(self) -> Path:
        """Where a backup is gathered that goes to another file system, and what else the next start removes."""
        return self.path / STAGING

    @property
    def ready(self) -> bool:
        """Whether there is a database that may hold something."""
        return (self.path / READY).exists()

    def begin(self) -> None:
        """Durably note that what is in here is worth nothing, and remove it."""
        creating = self.path / CREATING
        if self.ready:
            (self.path / READY).rename(creating)
        else:
            creating.write_text(_MARKER_TEXT)
            sync_path(creating)
        sync_path(self.path)
        torn = [name for name in _names(self.path) if TORN.fullmatch(name)]
        for name in (SYNCED, SYNCED_NEW, CONTROL, *torn):
            (self.path / name).unlink(missing_ok=True)
        for directory in (self.database, self.staging):
            if directory.exists():
                shutil.rmtree(directory)
        sync_path(self.path)

    def finish(self) -> None:
        """Durably note that the database is there."""
        (self.path / CREATING).rename(self.path / READY)
        sync_path(self.path)

    def confirm(self) -> None:
        """
        Make durable that it is what it looks like.

        Whoever made it so may have died before that was on disk: after a power cut it would then be CREATING again,
        and all would be lost that was acknowledged since.
        """
        sync_path(self.path)

    def publish(self) -> None:
        """Durably mark as ready what was put here without `begin`, whose remains nobody would have taken for data."""
        # A server leaves its number there: without one, none has run on this.
        os.ftruncate(self._lock, 0)
        (self.path / READY).write_text(_MARKER_TEXT)
        sync_path(self.path / READY)
        sync_path(self.path)

    def release(self) -> None:
        """Let others have it."""
        os.close(self._lock)


def hold(path: Path) -> HeldDirectory:
    """
    The data directory *path*, made if it is not there, for this process alone.

    It ends up readable by its owner only.  What it has not come to be yet is
    for the caller to do: unless it is `ready`, `begin`, make a database, `finish`.

    Raises:
        StorageError: it cannot be used; the text says why, in one line, and names it.
    """
    return _make_and_take(path, _check_usable)


def claim(path: Path) -> HeldDirectory:
    """
    The directory *path*, made if it is not there, which must be empty, for something to be put into it and published.

    Until then no server takes it for a data directory: what a crash leaves is
    refused, and not begun anew as what a server had begun would be.

    Raises:
        StorageError: as `hold`, and when there is anything in it.
    """
    return _make_and_take(path, _check_empty)


@contextmanager
def locked_shared(path: Path) -> Iterator[None]:
    """
    See to it that no server takes the data directory *path* meanwhile, without writing to it.

    Raises:
        StorageError: a server holds it, or it is no data directory with a database.
    """
    if not (path / READY).is_file():
        raise refusal(path, f"it is not a data directory of Queueber's, or not a whole one: {READY!r} is missing")
    _check_usable(path)
    with not_held(path):
        yield


@contextmanager
def not_held(path: Path) -> Iterator[None]:
    """
    The same for a directory in any state, a damaged one for instance.

    Raises:
        StorageError: a server holds it.
    """
    try:
        lock = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield  # a copy, which no server has held yet
        return
    except OSError as error:
        raise refusal(path, reason(error)) from error
    try:
        _flock(path, lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


def _make_and_take(path: Path, check_contents: Callable[[Path], None]) -> HeldDirectory:
    try:
        path.mkdir(mode=stat.S_IRWXU)
        made = True
    except FileExistsError:
        made = False
    except OSError as error:
        raise refusal(path, f"it cannot be created: {error.strerror}") from error
    try:
        # Its own name too: whoever made the directory may have died before that was on disk, whatever is in it by now.
        sync_path(path.parent)
    except OSError as error:
        # A parent that is not ours to read is not ours to make either, nor what was found in it.
        if made or not isinstance(error, PermissionError):
            raise refusal(path, f"the directory above it cannot be synced: {error.strerror}") from error
    return _take(path, check_contents)


def wipe(path: Path) -> None:
    """
    Empty the data directory *path*; one that is not there or empty already is left as it is.

    Raises:
        StorageError: it is not a data directory of ours, has anything else in it, or a server holds it.  Nothing was
            removed.
    """
    if not path.exists() and not path.is_symlink():
        return
    held = _take(path, _check_wipeable)
    try:
        if _names(path) - _HARMLESS:
            held.begin()
            (path / CREATING).unlink()
    finally:
        held.release()


def _take(path: Path, check_contents: Callable[[Path], None]) -> HeldDirectory:
    """Check *path*, which exists, and lock it."""
    try:
        return _take_unguarded(path, check_contents)
    except OSError as error:
        raise refusal(path, reason(error)) from error


def _take_unguarded(path: Path, check_contents: Callable[[Path], None]) -> HeldDirectory:
    status = path.lstat()
    _check_owner(path, status)
    # Before the lock, so that nothing is written into a directory that is not ours.
    check_contents(path)
    lock = _lock(path)
    try:
        # What was found before may have been wiped or begun by whoever held it then.
        check_contents(path)
        if stat.S_IMODE(status.st_mode) != stat.S_IRWXU:
            path.chmod(stat.S_IRWXU)
    except BaseException:
        os.close(lock)
        raise
    return HeldDirectory(path, lock)


def _check_owner(path: Path, status: os.stat_result) -> None:
    """Refuse what somebody else could change, or point elsewhere."""
    if stat.S_ISLNK(status.st_mode):
        raise refusal(path, "it is a symbolic link; name the directory itself")
    if not stat.S_ISDIR(status.st_mode):
        raise refusal(path, "it is not a directory")
    if status.st_uid != os.geteuid():
        raise refusal(path, f"it belongs to user {status.st_uid}, and this server runs as user {os.geteuid()}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        raise refusal(path, f"others may write to it (mode {mode:04o}); chmod 700 it if what it holds can be trusted")


def _check_usable(path: Path) -> None:
    """Refuse what is not a data directory, and one without its database."""
    names = _names(path) - _HARMLESS
    if READY in names:
        _check_database(path)
    elif names and CREATING not in names:
        raise refusal(path, f"it is not Queueber's, and not empty: it holds {min(names)!r}")


def _check_database(path: Path) -> None:
    """Refuse a data directory that was one, and has no database or only a part of it."""
    database = path / DATABASE
    if database.is_symlink() or not database.is_dir() or not _names(database):
        raise refusal(path, f"its database, {DATABASE!r}, is missing; is a file system not mounted?")
    if not (database / "CURRENT").is_file():
        name = f"{DATABASE}/CURRENT"
        raise refusal(path, f"its database is damaged: {name!r} is missing and other files are there; restore a backup")


def _check_empty(path: Path) -> None:
    """Refuse what holds anything."""
    names = _names(path) - _HARMLESS
    if names:
        raise refusal(path, f"it must be empty, and holds {min(names)!r}")


def _check_wipeable(path: Path) -> None:
    """Refuse what holds anything but our own."""
    names = _names(path) - _HARMLESS
    strangers = {name for name in names - _OURS if not TORN.fullmatch(name)}
    if (path / DATABASE).is_symlink():
        strangers.add(DATABASE)
    if strangers:
        raise refusal(path, f"it will not be wiped: {min(strangers)!r} in it is not Queueber's")
    if names and not names & {READY, CREATING}:
        raise refusal(path, f"it will not be wiped: it is not marked as Queueber's, and holds {min(names)!r}")


def _names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def _lock(path: Path) -> int:
    """A descriptor that holds the lock of *path*."""
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _flock(path, lock, fcntl.LOCK_EX)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BaseException as error:
        os.close(lock)
        if isinstance(error, OSError):
            raise refusal(path, f"{path / LOCK}: {error.strerror}") from error
        raise
    return lock


def _flock(path: Path, lock: int, kind: int) -> None:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise refusal(path, _holder(lock)) from None


def _holder(lock: int) -> str:
    """Who has the lock that could not be had."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        process = os.pread(lock, 20, 0).decode(errors="replace").strip()
        return f"another server holds it (process {process or 'unknown'})"
    # Readers share it, and write nothing, their process's number neither: what is there is of a server that is gone.
    return "it is being looked after: a backup, verify or recover holds it"


def sync_path(path: Path) -> None:
    """Make durable what *path* holds: for a directory, the names in it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
