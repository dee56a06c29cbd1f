"""How many connections there is room for."""

import resource

import pytest

from queueber.limits import Limits
from queueber.server import descriptors
from queueber.server.descriptors import STORE_FILES, within_descriptors


class Log:
    """Remembers what was logged."""

    def __init__(self):
        self.lines = []

    def warn(self, line, **fields):
        self.lines.append(line.format(**fields))


@pytest.fixture
def system(monkeypatch):
    """A system that has a limit of its own on open files, and may not be willing to move it."""

    def system(soft, hard, *, willing=True):
        state = [soft, hard]

        def set_limit(_, limit):
            if not willing:
                raise ValueError("not here")
            state[:] = limit

        monkeypatch.setattr(descriptors.resource, "getrlimit", lambda _: tuple(state))
        monkeypatch.setattr(descriptors.resource, "setrlimit", set_limit)
        return state

    return system


UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "willing", "files", "room"),
    [
        (1024, 1 << 20, True, 10_000 + STORE_FILES, 10_000),
        (1024, UNLIMITED, True, 10_000 + STORE_FILES, 10_000),
        (1 << 20, 1 << 20, True, 1 << 20, 10_000),
        (UNLIMITED, UNLIMITED, True, UNLIMITED, 10_000),
        (1024, 4096, True, 4096, 4096 - STORE_FILES),
        (1024, 1 << 20, False, 1024, 512),
        (100, 100, True, 100, 50),
    ],
)
def test_the_store_keeps_what_it_needs(system, soft, hard, willing, files, room):
    state, log = system(soft, hard, willing=willing), Log()

    assert within_descriptors(Limits(), log).connections == room

    assert state[0] == files
    assert bool(log.lines) == (room < 10_000)
