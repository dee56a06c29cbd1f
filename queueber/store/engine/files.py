"""Databases as directories: names, and what can be done to one that is not open."""

import os
from pathlib import Path
from typing import Unpack

import rocksdict

from queueber.store.engine import parameters, tuning
from queueber.store.engine.arguments import wrong_type
from queueber.store.engine.errors import Error, IOError, translating  # noqa: A004 - plyvel's name
from queueber.store.engine.parameters import Parameters


def directory(name: object) -> Path:
    """
    The directory called *name*.

    Raises:
        TypeError: it is neither str nor bytes; plyvel takes no paths.
        ValueError: it is not UTF-8, which rocksdict cannot do without.
    """
    if not isinstance(name, str | bytes):
        raise wrong_type("name", "str or bytes", name)
    if not name:
        # A Path of nothing would be the current directory.
        raise Error("NotFound: : No such file or directory")
    if isinstance(name, str):
        name.encode()
        return Path(name)
    return Path(name.decode())


def check_openable(path: Path, *, create_if_missing: bool, error_if_exists: bool) -> None:
    """Raise what LevelDB would: rocksdict makes the directory and a file in it before RocksDB gets to refuse."""
    if path.is_dir() and not os.access(path, os.W_OK | os.X_OK):
        raise IOError(f"IO error: {path}/LOCK: Permission denied")
    exists = (path / "CURRENT").exists()
    if exists and error_if_exists:
        raise Error(f"Invalid argument: {path}: exists (error_if_exists is true)")
    if not exists and not create_if_missing:
        raise Error(f"Invalid argument: {path}: does not exist (create_if_missing is false)")


def repair_db(name: str | bytes, **wanted: Unpack[Parameters]) -> None:
    """
    Make a database out of what can still be read in the directory *name*, which nobody may have open.

    Rows in damaged files are lost; removed ones may be back.  What could not
    be used is put into a directory `lost` beside the rest.
    """
    path, chosen = directory(name), parameters.options(create=True, **wanted)
    with translating():
        rocksdict.Rdict.repair(str(path), chosen)


def destroy_db(name: str | bytes) -> None:
    """
    Remove the database in the directory *name*, which nobody may have open; also the directory, if it is then empty.

    Nothing happens if there is none.
    """
    path = directory(name)
    with translating():
        rocksdict.Rdict.destroy(str(path), tuning.safe_options(create=False))
