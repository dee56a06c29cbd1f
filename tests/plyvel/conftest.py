"""Databases, and copies of open ones."""

from contextlib import suppress
from pathlib import Path
from shutil import copyfile

import pytest

from queueber.plyvel import DB


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "db")


@pytest.fixture
def db(path):
    with DB(path, create_if_missing=True) as opened:
        yield opened


@pytest.fixture(scope="session")
def copy_database():
    """A function that copies the files of an open database, as a crash would leave them."""

    def copy(source: Path, target: Path) -> None:
        target.mkdir()
        for file in source.iterdir():
            with suppress(FileNotFoundError):  # RocksDB removes obsolete files in the background
                copyfile(file, target / file.name)

    return copy
