"""The division of the limit of open files."""

import resource
from contextlib import nullcontext

import pytest

from queueber.server.app import fd_limit as descriptors
from queueber.server.app.fd_limit import (
    BEING_CLOSED,
    FILES_MIN,
    OPEN_AT_FIRST,
    OWN_FILES,
    STORE_FILES,
    TooFewDescriptors,
    allocate,
)


class Log:
    """Records the logged lines."""

    def __init__(self):
        self.lines = []

    def warn(self, line, **fields):
        self.lines.append(("warn", line.format(**fields)))

    def info(self, line, **fields):
        self.lines.append(("info", line.format(**fields)))


@pytest.fixture
def system(monkeypatch):
    """Replace the system's limit of open files, which it may refuse to raise."""

    def system(soft, hard, *, willing=True, open_files=0):
        state = [soft, hard]

        def set_limit(_, limit):
            if not willing:
                raise ValueError("not here")
            state[:] = limit

        monkeypatch.setattr(descriptors.resource, "getrlimit", lambda _: tuple(state))
        monkeypatch.setattr(descriptors.resource, "setrlimit", set_limit)
        monkeypatch.setattr(descriptors.os, "scandir", lambda _: nullcontext(range(open_files)))
        return state

    return system


UNLIMITED = resource.RLIM_INFINITY


WANTED = 10_000, 512, 100
EVERYTHING = sum(WANTED) + OWN_FILES + BEING_CLOSED


def shared(system, soft, hard, wanted=WANTED, *, willing=True):
    state, log = system(soft, hard, willing=willing), Log()
    found = allocate(*wanted, log.warn, log.info)
    (line,) = log.lines
    return state[0], found, line


@pytest.mark.parametrize(
    ("soft", "hard", "files"),
    [
        (1024, 1 << 20, 10_000 + STORE_FILES),
        (1024, UNLIMITED, 10_000 + STORE_FILES),
        (1 << 20, 1 << 20, 1 << 20),
        (EVERYTHING, EVERYTHING, EVERYTHING),
        (UNLIMITED, UNLIMITED, UNLIMITED),
    ],
)
def test_with_enough_files_all_numbers_are_as_configured(system, soft, hard, files):
    now, found, (level, line) = shared(system, soft, hard)
    assert (now, found.connections, found.tables, found.pages) == (files, *WANTED)
    assert level == "info"
    bound = "no limit" if files == UNLIMITED else f"{files:,}"
    assert line == (
        f"Descriptors: {bound}, 48 of them the server's own; at most 10,000 connections, 512 tables and blobs,"
        " 100 connections for metrics"
    )


@pytest.mark.parametrize(
    ("files", "connections", "tables", "pages"),
    [
        (128, 24, 40, 0),
        (128, 18, 40, 6),
        (256, 118, 58, 0),
        (256, 106, 53, 17),
        (512, 267, 133, 0),
        (1024, 584, 292, 0),
        (1024, 526, 263, 87),
        (1536, 926, 462, 0),
        (EVERYTHING - 1, 9_999, 512, 100),
    ],
)
def test_with_too_few_files_all_numbers_are_lowered(system, files, connections, tables, pages):
    now, found, (level, line) = shared(system, files, files, (10_000, 512, 100 if pages else 0))
    assert (now, level) == (files, "warn")
    assert (found.connections, found.tables, found.pages) == (connections, tables, pages)
    spare = min(BEING_CLOSED, files // 8)
    assert connections + tables + pages + OWN_FILES + spare <= files
    assert f"at most {connections:,} connections instead of 10,000, {tables} tables and blobs" in line
    assert line.endswith("; raise LimitNOFILE or `ulimit -n` for more")
    assert ("metrics" in line) is bool(pages)


def test_files_that_one_use_does_not_need_go_to_the_others(system):
    assert shared(system, 512, 512, (10, 512, 0))[1].tables == 390
    assert shared(system, 512, 512, (10_000, 20, 0))[1].connections == 380


def test_a_limit_that_cannot_be_raised_is_kept(system):
    now, found, _ = shared(system, 1024, 1 << 20, willing=False)
    assert (now, found.files) == (1024, 1024)


def test_open_files_are_subtracted(system):
    system(256, 256, open_files=OPEN_AT_FIRST + 70)
    found = allocate(*WANTED, (log := Log()).warn, log.info)
    assert found.own == OWN_FILES + 70
    assert found.connections + found.tables + found.pages + found.own + 256 // 8 <= 256
    assert "256, 118 of them the server's own" in log.lines[0][1]
    system(FILES_MIN + 69, FILES_MIN + 69, open_files=OPEN_AT_FIRST + 70)
    with pytest.raises(TooFewDescriptors, match="have 197 files open, and a server needs 198 at least, because more"):
        allocate(*WANTED, log.warn, log.info)


def test_below_the_minimum_the_start_is_refused(system):
    system(FILES_MIN - 1, FILES_MIN - 1)
    log = Log()
    with pytest.raises(TooFewDescriptors, match=r"have 127 files open, and a server needs 128 at least: raise"):
        allocate(*WANTED, log.warn, log.info)
    assert log.lines == []
