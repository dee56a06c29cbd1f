"""
Copying what is at rest, and looking at a database without touching it.

RocksDB never changes a table or blob file once it is written, so a copy on the
same file system may share those by hard links; the rest is small and is copied.
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
from queueber.store.datadir.directory import DATABASE, refusal, sync_path
from queueber.units import MIB

Progress = Callable[[int, int], None]
"""Told how much is done, and of how much; from the thread that does it."""

_CHUNK: Final = 4 * MIB
_IMMUTABLE: Final = (".sst", ".blob")
_NOT_PART_OF_IT: Final = ("LOG", "LOCK")
"""RocksDB's own log and lock, by the beginning of their names."""


def silent(done: int, total: int) -> None:
    """A `Progress` that nobody watches."""


def copy_files(source: Path, target: Path, progress: Progress = silent) -> None:
    """Copy the files in *source*, of which none is a directory, into *target*, which is made; durable in the end."""
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
    """The same without the space: what never changes is shared.  Both must be on one file system."""
    target.mkdir(mode=0o700)
    for file in _files(source):
        if file.suffix in _IMMUTABLE:
            os.link(file, target / file.name)
        else:
            for _ in _copy(file, target / file.name):
                pass
    sync_path(target)


def _files(database: Path) -> list[Path]:
    return sorted(file for file in database.iterdir() if not file.name.startswith(_NOT_PART_OF_IT))


def _copy(source: Path, target: Path) -> Iterator[int]:
    """Copy a file durably, giving the size of each piece that is done."""
    with source.open("rb") as read, target.open("xb") as written:
        while chunk := read.read(_CHUNK):
            written.write(chunk)
            yield len(chunk)
        written.flush()
        os.fsync(written.fileno())


def sync_files(path: Path) -> None:
    """Make durable what *path* holds, names and contents, when others may have written it."""
    for file in path.iterdir():
        sync_path(file)
    sync_path(path)


def size_of(path: Path) -> int:
    """Bytes of the files in *path*; what goes away meanwhile counts for nothing."""
    size = 0
    for file in os.scandir(path):
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


@contextmanager
def viewing(path: Path, ends: Mapping[str, int] = MappingProxyType({}), *, place: Path | None = None) -> Iterator[DB]:
    """
    The database in the data directory *path*, to be read only, beside a server that may run.

    Opened by way of links in a directory of our own, because rocksdict writes
    a file wherever it opens something.  What a server writes from now on is not
    seen; files that it removes may be missed, which is an error of that read.
    The files named in *ends* are seen as if they ended there; so much of them is copied.  All this is in *place*, or
    where the system has its temporary files.

    Raises:
        StorageError: it cannot be opened.
    """
    database = path.resolve() / DATABASE
    with TemporaryDirectory(prefix="queueber-", dir=place) as made:
        try:
            for file in _files(database):
                if file.name in ends:
                    with file.open("rb") as read:
                        (Path(made) / file.name).write_bytes(read.read(ends[file.name]))
                # rocksdict's own file would be written through the link.
                elif file.suffix != ".json":
                    (Path(made) / file.name).symlink_to(file)
            db = open_database(Path(made), read_only=True)
        except StorageError as error:
            raise refusal(path, str(error).replace(made, str(database)), error) from error
        except OSError as error:
            lost = isinstance(error, FileNotFoundError)
            raise refusal(path, reason(error), Withheld() if lost else Passing()) from error
        try:
            yield db
        finally:
            db.close()
