"""Interrupted operations: a server killed during a backup, and a server stopped during its start."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from queueber.broker.model import LOWEST, Item, ItemId, Key, LeaseId, LeaseRecord, QueueNumber, QueueRecord, TimeMark
from queueber.broker.storage import PutItems, PutLease, PutQueue
from queueber.errors import StorageError
from queueber.store import Durability, open_store, verify
from queueber.units import WallMs
from tests.process.conftest import TIMEOUT_SECONDS
from tests.support.waiting import until

pytestmark = pytest.mark.slow

ELSEWHERE = Path("/dev/shm")
MAIL = QueueNumber(1)
MARK = TimeMark(b"b" * 16, 1, WallMs(1_800_000_000_000))
FAR = WallMs(3_000_000_000_000)
KIB = 1 << 10

ITEMS = 1_000
"""Of 64 KiB: the copy takes long enough for the server to be killed meanwhile."""


def key(number):
    return Key(WallMs(number), ItemId(number.to_bytes(16, "big")))


def furnish(path, items, contents, *, leased=False):
    """Create a directory with items, 1,000 per commit, and with *leased* 1,000 per lease."""
    store = open_store(path, durability=Durability.OS)
    size = 0
    for begin in range(1, items + 1, 1_000):
        keys = [key(number) for number in range(begin, begin + 1_000)]
        writes = [PutItems(MAIL, [Item(each, contents(), WallMs(5))]) for each in keys]
        if leased:
            writes.append(PutLease(LeaseId(begin.to_bytes(16, "big")), LeaseRecord(MAIL, FAR, tuple(keys))))
        floor = keys[-1] if leased else LOWEST
        size += sum(len(write.items[0].contents) for write in writes if isinstance(write, PutItems))
        record = QueueRecord(MAIL, "mail", keys[-1].due, 0, floor, size, off_time=keys[-1].due)
        store.commit([*writes, PutQueue(record)], MARK)
    store.close()


def backup(target, data_dir):
    return subprocess.Popen(
        [sys.executable, "-m", "queueber.cli", "backup", str(target), "-d", str(data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def elsewhere(tmp_path):
    """Return a directory on another file system, to which a backup takes some time."""
    if not ELSEWHERE.is_dir() or ELSEWHERE.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one file system")
    path = ELSEWHERE / f"queueber-test-interrupted-{os.getpid()}"
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("reached", ["data/backup.new/CURRENT", "backup/db"])
def test_a_server_killed_during_a_backup_leaves_nothing_that_passes_for_one(start, tmp_path, elsewhere, reached):
    furnish(tmp_path / "data", ITEMS, lambda: os.urandom(64 * KIB))
    server = start()
    server.control()
    asking = backup(elsewhere / "backup", server.data_dir)
    at = (tmp_path if reached.startswith("data") else elsewhere) / reached
    until(at.exists)
    server.kill()
    said, _ = asking.communicate(timeout=TIMEOUT_SECONDS)
    assert (asking.returncode, said.count("\n")) == (1, 1)
    assert "backed up" not in said
    with pytest.raises(StorageError, match="'QUEUEBER' is missing"):
        verify(elsewhere / "backup")
    assert verify(server.data_dir).findings == []

    again = start()
    again.control()
    assert not (server.data_dir / "backup.new").exists()
    asking = backup(elsewhere / "next", server.data_dir)
    assert (asking.communicate(timeout=TIMEOUT_SECONDS)[0], asking.returncode) == (
        f"backed up to {elsewhere / 'next'}\n",
        0,
    )
    assert (verify(elsewhere / "next").findings, verify(elsewhere / "next").items) == ([], ITEMS)


def test_a_stop_does_not_wait_for_a_long_start(start, tmp_path):
    furnish(tmp_path / "data", 50_000, lambda: b"contents", leased=True)
    server = start()
    server.line("Queueber [0-9]")
    assert server.stop() == -signal.SIGTERM
    server.line("Stopped before it served; everything is on disk")
    assert not [line for line in server.lines if "Listening" in line or "Traceback" in line]
    assert verify(tmp_path / "data").findings == []
    # An orderly stop keeps data that is not in the log.
    start().line(r"Data in .*: 50,000 items in 1 queue, 50 leases; recovered in \d+\.\d\d s$")
