"""kill -9 under load: acknowledged calls survive."""

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from queueber.broker.model import LOWEST, Item, ItemId, Key, QueueNumber, QueueRecord, TimeMark
from queueber.broker.storage import PutItems, PutQueue
from queueber.store import open_store
from queueber.units import WallMs
from queueber.values import DEFAULT_QUEUE
from tests.process.conftest import HERE, TIMEOUT_SECONDS, Traffic, foreign

pytestmark = pytest.mark.slow


def traffic_until_killed(server, label, adds):
    """Kill a server under load after *adds* adds, and return what was acknowledged."""
    client = Traffic(server.port, label)
    client.until(added=adds, removed=10)
    server.kill()
    seen = {"added": [], "leased": [], "removing": [], "removed": []}
    for line in client.end():
        if line.count(" ") == 1:
            what, contents = line.split()
            seen[what].append(contents)
    return seen


def contents_under_lease(data_dir):
    """Return the items of each lease in a directory without a server."""
    store = open_store(data_dir)
    held = {
        item.contents.decode()
        for lease in store.recover().leases.values()
        for item in store.read(lease.queue, lease.keys)
        if item is not None
    }
    store.close()
    return held


def test_acknowledged_adds_removes_and_leases_survive(start):
    everything = {"added": [], "leased": [], "removing": [], "removed": []}
    for label, adds in (("one", 200), ("two", 100), ("three", 400)):
        server = start()
        for what, contents in traffic_until_killed(server, label, adds).items():
            everything[what] += contents

    # A lease may be on disk without its reply: no client knows of it, and it holds its items.
    held = contents_under_lease(server.data_dir)
    drained = Counter()
    for line in foreign("drain", start().port).splitlines():
        contents, attempt = line.split()
        drained[contents] += 1
        assert attempt == "1"

    added, leased, removing, removed = map(set, everything.values())
    assert max(drained.values()) == 1
    assert not removed & set(drained), "a removed item came back"
    assert not leased & set(drained), "an item under a live lease was handed out"
    # A remove without a reply may have taken effect or not.
    assert leased - removing <= held, "a live lease did not survive"
    assert added - removing <= set(drained) | held, "an acknowledged add was lost"
    assert not set(drained) & held, "an item under a live lease was handed out"


def test_attempts_count_on(start, tmp_path):
    server = start()
    subprocess.run(
        [sys.executable, str(HERE / "attempts.py"), "lease", str(server.port)], check=True, timeout=TIMEOUT_SECONDS
    )
    server.kill()

    server = start()
    subprocess.run(
        [sys.executable, str(HERE / "attempts.py"), "again", str(server.port)], check=True, timeout=TIMEOUT_SECONDS
    )
    assert "after an unclean stop" in server.line("recovered in .*")[0]


def test_a_commit_torn_by_a_power_cut_is_logged(start, tmp_path):
    """The machine has rebooted since: the marks have the id of another boot."""
    data, mail = tmp_path / "torn", QueueNumber(1)
    live = open_store(tmp_path / "live")
    for number in (1, 2):
        item = Item(Key(WallMs(number), ItemId(bytes(16))), b"%d" % number * 9_000, WallMs(number))
        record = QueueRecord(mail, DEFAULT_QUEUE, number, 0, LOWEST, 9_000 * number, off_time=number)
        writes = [PutItems(mail, [item]), PutQueue(record)]
        live.commit(writes, TimeMark(b"b" * 16, 0, WallMs(number)))
    shutil.copytree(tmp_path / "live", data)
    live.close()
    (log,) = [each for each in (data / "db").glob("*.log") if each.stat().st_size]
    log.write_bytes(log.read_bytes().replace(b"2" * 4_096, bytes(4_096), 1))

    server = start(data_dir=data)
    server.line(
        r"Cut off the damaged end of the log: the machine went down while the log was written: its last [0-9,]+ bytes"
    )
    server.line("1 item in 1 queue, 0 leases; recovered in .* after an unclean stop")


def test_data_of_an_older_format_is_converted_by_a_start(start, tmp_path):
    """The directory of a killed server of format 1, with items that are delayed, leased and redelivered."""
    golden = Path(__file__).parents[1] / "store" / "golden" / "v1-served"
    shutil.copytree(golden, tmp_path / "old")
    server = start(data_dir=tmp_path / "old")
    server.line("Finished converting the data to a newer format, 8 of 8 items")
    server.line("8 items in 3 queues, 1 lease; recovered")
    server.stop()
    again = start(data_dir=tmp_path / "old")
    again.line("8 items in 3 queues, 1 lease; recovered")
    assert not [line for line in again.lines if "converting" in line]
