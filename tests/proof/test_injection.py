"""The judgement of a server's behaviour after a disk error; void runs are not counted."""

from collections import Counter
from itertools import cycle
from pathlib import Path
from random import Random

import diskerrors
import injection
import pytest
from counts import Counts
from diskerrors import Fault
from history import Add, History, Outcome, Poll
from injection import Came

DATA = Path("/data")
LOG = "/data/db/000012.log"


class Ended:
    """A server that has ended."""

    def lines(self):
        return "A commit failed, so the server ends: StorageError: disk"


def add(invoked, ended):
    return Add(queue="q", invoked=invoked, ended=ended, outcome=Outcome.OK, contents=[], delays=[])


def judged(fault, path, *calls, by_itself=True, status=74):
    came = Came(100.0, path)
    return list(diskerrors.judged(fault, Ended(), status, came, by_itself, History(list(calls)), DATA))


def fault(call, *, starting=False):
    return Fault(call, "EIO", 1, starting)


def test_the_first_fault_is_found_with_its_file_and_its_moment():
    output = (
        "17 100.5 fdatasync(33</data/db/000012.log>) = 0\n"
        "18 101.0 fsync(9</data>) = -1 EIO (Input/output error) (INJECTED)\n"
        "18 102.0 fsync(9</data/db>) = -1 EIO (Input/output error) (INJECTED)\n"
    )
    assert injection.first_in(output, 1_000.0) == Came(1_101.0, "/data")
    assert injection.first_in(output.splitlines()[0], 0.0) is None


def test_the_file_of_a_call_that_took_long_stands_where_it_began():
    output = (
        "17 100.5 fdatasync(33</data/db/000012.log> <unfinished ...>\n"
        "18 100.6 fdatasync(34</data/synced> <unfinished ...>\n"
        "17 101.0 <... fdatasync resumed>) = -1 EIO (Input/output error) (INJECTED)\n"
    )
    assert injection.first_in(output, 0.0) == Came(101.0, LOG)


class InterruptedClocks:
    """Clocks 1,000 s apart, read by a process that is interrupted for 50 ms after every fourth reading."""

    def __init__(self):
        self.now = 5_000.0
        self.pauses = cycle([1e-6, 0.05, 1e-6, 1e-6])

    def monotonic(self):
        self.now += next(self.pauses)
        return self.now

    def time(self):
        return self.monotonic() - 1_000.0


def test_an_interruption_between_two_readings_does_not_move_the_fault(monkeypatch):
    monkeypatch.setattr(injection, "time", InterruptedClocks())
    assert injection.between_clocks() == pytest.approx(1_000.0, abs=1e-4)


def test_a_server_that_ends_and_says_why_is_right():
    assert judged(fault("fdatasync"), LOG, add(99.9, 100.01)) == []


def test_a_server_that_ends_otherwise_is_wrong():
    assert "status 1" in judged(fault("fdatasync"), LOG, status=1)[0]


def test_nothing_is_answered_long_after_a_fault():
    assert "1 calls were answered" in judged(fault("fsync"), "/data/db/MANIFEST-000005", add(99.9, 100.6))[0]


def test_nothing_that_was_asked_after_the_error_of_the_log_is_answered():
    assert "1 calls were answered" in judged(fault("fdatasync"), LOG, add(100.005, 100.01))[0]
    empty = Poll(queue="q", invoked=100.005, ended=100.01, outcome=Outcome.OK, span=1.0)
    assert judged(fault("fdatasync"), LOG, empty) == [], "it confirms nothing that had to be written"


@pytest.mark.parametrize(
    ("call", "path", "starting", "wrong"),
    [
        ("fdatasync", LOG, False, True),
        ("openat", "", False, False),
        ("fsync", "/data", True, True),
        ("fdatasync", "/data/synced", True, True),
        ("fdatasync", "/data/db/MANIFEST-000005", True, True),
        ("fsync", "/data/db/LOG", True, False),
        ("fsync", "/elsewhere", True, False),
        ("write", LOG, True, False),
    ],
)
def test_a_server_may_go_on_only_where_it_can(call, path, starting, wrong):
    assert bool(judged(fault(call, starting=starting), path, by_itself=False)) is wrong


def epoch():
    """A life without calls."""
    return diskerrors.Epoch(None, Path(), Random(1), Counts("diskerrors"), Counter())


@pytest.mark.parametrize(
    ("came", "by_itself", "acked", "wrong", "counted"),
    [
        (Came(1.0, LOG), True, 100, [], (1, 0, 0)),
        (Came(1.0, LOG), True, 3, [], (0, 1, 0)),
        (Came(1.0, LOG), False, 100, [], (0, 1, 0)),
        (None, False, 100, [], (0, 1, 0)),
        (Came(1.0, LOG), False, 3, ["the server went on"], (1, 0, 1)),
    ],
)
def test_what_proves_nothing_does_not_count(came, by_itself, acked, wrong, counted):
    tried = epoch()
    tried.note(fault("write"), wrong, came, by_itself=by_itself, acked=acked)
    assert (tried.counts.n, tried.counts.voids, len(tried.counts.failures)) == counted


def test_each_call_is_tried_with_each_error():
    kinds = {(each.call, each.error, each.starting) for each in diskerrors.grid(Random(3))}
    assert len(kinds) == 4 * (len(diskerrors.UNDER_LOAD) + len(diskerrors.DURING_START))


def test_the_grid_comes_before_anything_at_random(monkeypatch):
    tried = []

    async def run(self, faults):
        tried.extend(faults)
        self.counts.settle(len(faults), len(faults) // 2, [])

    monkeypatch.setattr(diskerrors.Epoch, "run", run)
    found = diskerrors.run(60, 0, 1)
    grid = set(diskerrors.grid(Random(1)))
    assert set(tried[: len(grid)]) == grid
    assert found.n >= 60


def test_full_disks_are_skipped_with_a_reason(monkeypatch, capsys):
    monkeypatch.setattr(diskerrors, "lacking", lambda: "no loop device")
    diskerrors.run(0, 3, 1)
    assert "skipped: full disks: no loop device" in capsys.readouterr().out
