"""Copies of open databases."""

from contextlib import suppress
from pathlib import Path
from shutil import copyfile

import pytest


@pytest.fixture(scope="session")
def copy_database():
    """A function that copies the files of an open database, as a crash would leave them."""

    def copy(source: Path, target: Path) -> None:
        target.mkdir()
        for file in source.iterdir():
            with suppress(FileNotFoundError):  # RocksDB removes obsolete files in the background
                copyfile(file, target / file.name)

    return copy
