"""Databases as directories: names, and what can be done to one that is not open."""

import os
import stat
from pathlib import Path
from typing import Unpack

import rocksdict

from queueber.plyvel import options
from queueber.plyvel.arguments import check_words, wrong_type
from queueber.plyvel.errors import Error, IOError, translating  # noqa: A004 - plyvel's name
from queueber.plyvel.options import Parameters


def directory(name: object) -> Path:
    """
    The directory called *name*.

    Raises:
        TypeError: it is neither str nor bytes; plyvel takes no paths.
        ValueError: it is not UTF-8, which rocksdict cannot do without.
        IOError: there is a NUL in it, where LevelDB would stop reading.
        Error: it is empty.
    """
    if not isinstance(name, str | bytes):
        raise wrong_type("name", "str or bytes", name)
    if not name:
        # A Path of nothing would be the current directory.
        raise Error("NotFound: : No such file or directory")
    if isinstance(name, str):
        name.encode()
    else:
        name = name.decode()
    if "\0" in name:
        raise IOError(f"IO error: {name!r}: NUL in a name")
    return Path(name)


def check_openable(path: Path, *, create_if_missing: bool) -> None:
    """Raise what LevelDB would: rocksdict makes all directories and a file there before RocksDB gets to refuse."""
    if _is_directory(path) and not os.access(path, os.W_OK | os.X_OK):
        raise IOError(f"IO error: {path}/LOCK: Permission denied")
    if not create_if_missing and not (path / "CURRENT").exists():
        raise Error(f"Invalid argument: {path}: does not exist (create_if_missing is false)")


def _is_directory(path: Path) -> bool:
    """
    Whether *path* is a directory, as against nothing at all in one that is.

    Raises:
        IOError: something else is in the way.
        Error: it would be in a directory that is not there.
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


def repair_db(name: str | bytes, **wanted: Unpack[Parameters]) -> None:
    """
    Make a database out of what can still be read in the directory *name*, which nobody may have open.

    Rows in damaged files are lost; removed ones may be back.  What could not
    be used is put into a directory `lost` beside the rest.
    """
    path = directory(name)
    check_words("repair_db", wanted, Parameters)
    chosen = options.from_parameters(create=True, **wanted)
    _is_directory(path)
    with translating():
        rocksdict.Rdict.repair(str(path), chosen)


def destroy_db(name: str | bytes) -> None:
    """
    Remove the database in the directory *name*, which nobody may have open; also the directory, if it is then empty.

    Nothing happens if there is none.
    """
    if name in ("", b""):
        return
    path = directory(name)
    if not os.path.isdir(path):  # noqa: PTH112  (a `Path` would raise what stands in the way, and LevelDB does not)
        return
    with translating():
        rocksdict.Rdict.destroy(str(path), options.safe_options(create=False))
