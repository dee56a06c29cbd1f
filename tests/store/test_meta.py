"""The format version and its upgrades."""

import pytest
from attrs import define, field

from queueber.errors import Stalled, StorageError
from queueber.store.datadir.database import open_database
from queueber.store.rows.engine_port import write_retrying
from queueber.store.rows.meta import FORMAT, UPGRADES, Format, read_format, upgrade, write_format


@pytest.fixture
def db(tmp_path):
    with open_database(tmp_path, create_if_missing=True) as opened:
        yield opened


def test_the_format_is_read_back(db):
    assert read_format(db) is None
    write_format(db, "none", 7)
    assert read_format(db) == Format(7, "none")


def test_there_is_an_upgrade_from_every_older_format():
    assert set(UPGRADES) == set(range(1, FORMAT))


def test_the_present_format_needs_no_upgrade(db):
    upgrade(db, Format(FORMAT, ""))
    assert read_format(db) is None


def test_older_data_is_upgraded_step_by_step(db):
    done = []
    steps = {
        version: lambda db, _, version=version: done.append((version, read_format(db).version)) for version in (1, 2)
    }
    write_format(db, "none", 1)
    upgrade(db, Format(1, "none"), target=3, upgrades=steps)
    assert done == [(1, 1), (2, 2)]
    assert read_format(db) == Format(3, "none")


def test_an_interrupted_upgrade_continues_at_the_failed_step(db):
    def fails(db, progress):
        raise OSError("disk")

    write_format(db, "", 1)
    with pytest.raises(OSError, match="disk"):
        upgrade(db, read_format(db), target=3, upgrades={1: lambda *_: None, 2: fails})
    assert read_format(db) == Format(2, "")


def test_newer_data_is_refused_with_both_versions(db):
    with pytest.raises(StorageError, match="format 9, which a newer Queueber wrote; this one reads up to 1"):
        upgrade(db, Format(9, ""), target=1)


def test_a_missing_upgrade_step_changes_nothing(db):
    with pytest.raises(StorageError, match="format 1; there is no upgrade from 2 to 3"):
        upgrade(db, Format(1, ""), target=3, upgrades={1: lambda *_: pytest.fail("changed")})


def test_a_stalled_write_is_retried():
    @define
    class Stalling:
        attempts: int = 3
        writes: list = field(factory=list)

        def write_many(self, writes):
            self.attempts -= 1
            if self.attempts:
                raise Stalled
            self.writes += writes

    db = Stalling()
    write_retrying(db, [(b"a", b"1"), (b"b", b"2"), (b"a", None)])
    assert (db.attempts, db.writes) == (0, [(b"a", b"1"), (b"b", b"2"), (b"a", None)])
