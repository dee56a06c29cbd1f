"""Database directories: names, checks before opening, and plyvel's `repair_db` and `destroy_db`."""

import os
import stat
from pathlib import Path
from typing import Unpack

import rocksdict

from queueber.plyvel.arguments import check_keywords, type_error
from queueber.plyvel.errors import Error, IOError, translating_errors  # noqa: A004 - plyvel's name
from queueber.plyvel.options import Parameters, default_options, options_from_parameters


def directory_path(name: object) -> Path:
    """
    Convert *name*, the directory of a database, to a path.

    Raises:
        TypeError: neither `str` nor `bytes`; plyvel accepts no path objects.
        ValueError: not UTF-8, which rocksdict requires.
        IOError: contains a NUL, where LevelDB would end the name.
        Error: empty.
    """
    if not isinstance(name, str | bytes):
        raise type_error("name", "str or bytes", name)
    if not name:
        # An empty Path is the current directory.
        raise Error("NotFound: : No such file or directory")
    if isinstance(name, str):
        name.encode()
    else:
        name = name.decode()
    if "\0" in name:
        raise IOError(f"IO error: {name!r}: NUL in a name")
    return Path(name)


def check_openable(path: Path, *, create_if_missing: bool) -> None:
    """
    Refuse a directory in which no database can be opened, before rocksdict creates directories and a file of its own.

    Raises:
        Error: LevelDB's error for the directory, or a subclass.
    """
    if _is_directory(path) and not os.access(path, os.W_OK | os.X_OK):
        raise IOError(f"IO error: {path}/LOCK: Permission denied")
    if not create_if_missing and not (path / "CURRENT").exists():
        raise Error(f"Invalid argument: {path}: does not exist (create_if_missing is false)")


def _is_directory(path: Path) -> bool:
    """
    Return True if *path* is a directory, and False if it is missing and could be created.

    Raises:
        IOError: *path* is something else, or cannot be examined.
        Error: the parent directory is missing, or *path* is a dangling symbolic link.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        if path.parent.is_dir() and not path.is_symlink():
            return False
        raise Error(f"NotFound: {path}/LOCK: {error.strerror}") from error
    except OSError as error:
        raise IOError(f"IO error: {path}/LOCK: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise IOError(f"IO error: {path}/LOCK: Not a directory")
    return True


def repair_db(name: str | bytes, **parameters: Unpack[Parameters]) -> None:
    """
    Rebuild the database in the directory *name* from its readable files.  No process may have it open.

    Rows of unreadable files are lost, and deleted rows may reappear.  Unused files move to the subdirectory `lost`.

    Raises:
        IOError: the database is open, or a file cannot be read or written.
        Error: any other error that RocksDB reports.
    """
    path = directory_path(name)
    check_keywords("repair_db", parameters, Parameters)
    options = options_from_parameters(create=True, **parameters)
    _is_directory(path)
    with translating_errors:
        rocksdict.Rdict.repair(str(path), options)


def destroy_db(name: str | bytes) -> None:
    """
    Delete the database in the directory *name*, and the directory if it is empty then.  No process may have it open.

    Does nothing if there is no such directory.

    Raises:
        IOError: the database is open, or a file cannot be removed.
        Error: any other error that RocksDB reports.
    """
    if name in ("", b""):
        return
    path = directory_path(name)
    if not os.path.isdir(path):  # noqa: PTH112  (`Path.is_dir` raises some errors that LevelDB ignores)
        return
    with translating_errors:
        rocksdict.Rdict.destroy(str(path), default_options(create=False))
