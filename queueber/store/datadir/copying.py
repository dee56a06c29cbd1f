"""
Copies of a database's files, and read-only views of a database that a server may be using.

RocksDB never changes a table or blob file once it is written, so a copy on the
same file system may share these by hard links.  The other files are small and
are copied.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Final

from queueber.errors import Passing, StorageError, Withheld, reason
from queueber.plyvel import DB
from queueber.store.datadir.database import open_database
from queueber.store.datadir.directory import DATABASE, directory_error, sync_path
from queueber.units import MIB

ProgressCallback = Callable[[int, int], None]
"""Called with the amounts done and in total, from the thread that works."""

_CHUNK: Final = 4 * MIB
_IMMUTABLE: Final = (".sst", ".blob")
_NOT_COPIED: Final = ("LOG", "LOCK")
"""Prefixes of the names of RocksDB's info log and lock."""


def no_progress(done: int, total: int) -> None:
    """Ignore the progress."""


def copy_files(source: Path, target: Path, progress: ProgressCallback = no_progress) -> None:
    """Durably copy the files in *source*, which has no subdirectories, to the new directory *target*."""
    files = _files(source)
    total = sum(file.stat().st_size for file in files)
    target.mkdir(mode=0o700)
    done = 0
    progress(done, total)
    for file in files:
        for size in _copy(file, target / file.name):
            done += size
            progress(done, total)
    sync_path(target)


def link_files(source: Path, target: Path) -> None:
    """Copy as `copy_files` does, but hard-link files that never change.  Both must be on one file system."""
    target.mkdir(mode=0o700)
    for file in _files(source):
        if file.suffix in _IMMUTABLE:
            os.link(file, target / file.name)
        else:
            for _ in _copy(file, target / file.name):
                pass
    sync_path(target)


def _files(database: Path) -> list[Path]:
    return sorted(file for file in database.iterdir() if not file.name.startswith(_NOT_COPIED))


def _copy(source: Path, target: Path) -> Iterator[int]:
    """Copy a file durably, and yield the size of each chunk."""
    with source.open("rb") as read, target.open("xb") as written:
        while chunk := read.read(_CHUNK):
            written.write(chunk)
            yield len(chunk)
        written.flush()
        os.fsync(written.fileno())


def sync_files(path: Path) -> None:
    """Make the names and contents of all files in *path* durable."""
    for file in path.iterdir():
        sync_path(file)
    sync_path(path)


def size_of(path: Path) -> int:
    """Return the total size of the files in *path*, without those that disappear meanwhile."""
    size = 0
    for file in os.scandir(path):
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


@contextmanager
def read_only_view(
    path: Path, ends: Mapping[str, int] = MappingProxyType({}), *, place: Path | None = None
) -> Iterator[DB]:
    """
    Open the database in the data directory *path* read-only; a server may be using it.

    The database is opened through symbolic links in a temporary directory,
    because rocksdict writes a file wherever it opens a database.  Later writes
    of a server are not visible.  A file that the server removes may be missing,
    which makes a read fail.

    Args:
        path: the data directory.
        ends: offsets at which the named files seem to end.  These files are copied up to there.
        place: where the temporary directory is created; by default, the system's directory for them.

    Raises:
        StorageError: the database cannot be opened.
    """
    database = path.resolve() / DATABASE
    with TemporaryDirectory(prefix="queueber-", dir=place) as temporary:
        try:
            for file in _files(database):
                if file.name in ends:
                    with file.open("rb") as read:
                        (Path(temporary) / file.name).write_bytes(read.read(ends[file.name]))
                # No link to rocksdict's own file, because rocksdict would write through it.
                elif file.suffix != ".json":
                    (Path(temporary) / file.name).symlink_to(file)
            db = open_database(Path(temporary), read_only=True)
        except StorageError as error:
            raise directory_error(path, str(error).replace(temporary, str(database)), error) from error
        except OSError as error:
            lost = isinstance(error, FileNotFoundError)
            raise directory_error(path, reason(error), Withheld() if lost else Passing()) from error
        try:
            yield db
        finally:
            db.close()
