"""A session that a process takes over from one that has ended, at a connection whose answers the test gives."""

from types import SimpleNamespace

import pytest

from queueber import api
from queueber.client_core.held_leases import HeldLeases
from queueber.client_core.kept_session import KeptSession
from queueber.errors import Overloaded
from queueber.units import SpanMs

SESSION = b"s" * 16
FIRST, SECOND, OWN = (bytes([at]) * 16 for at in (1, 2, 3))


class Wire:
    """A connection."""

    def __init__(self):
        self.calls = []

    def call(self, call, on_done):
        self.calls.append((call, on_done))

    def send(self, pending):
        self.calls.append((pending.call, pending.on_done))

    def answer(self, outcome):
        """Answer the call that was sent last."""
        self.calls.pop()[1](outcome)

    def named(self):
        """Return the leases that the waiting settles name."""
        settles = [call.content for call, _ in self.calls if call.method == api.SETTLE and call.place is None]
        return [lease for lease in (FIRST, SECOND, OWN) if any(lease in each for each in settles)]


@pytest.fixture
def wire():
    return Wire()


@pytest.fixture
def now():
    return SimpleNamespace(seconds=0.0)


@pytest.fixture
def session(wire, now):
    link = SimpleNamespace(users=[], connection=wire, send=wire.send)
    quiet = {"on_change": lambda: None, "on_lost": lambda lease: None}
    return KeptSession(link, HeldLeases(), SESSION, inherited=True, clock=lambda: now.seconds, **quiet)


def attached(*leases, more=False):
    found = [api.SessionLease(each, "mail", [bytes(16)]) for each in leases]
    return api.AttachResponse(found, SpanMs(20_000), SpanMs(20_000), more)


def test_leases_of_the_earlier_process_are_ended_until_the_server_agrees(wire, now, session):
    wire.answer(attached(FIRST, SECOND))
    assert wire.named() == [FIRST, SECOND]
    wire.answer(Overloaded("too many bytes are in flight"))
    assert wire.named() == []
    now.seconds = session.next_at
    session.tick()
    assert wire.named() == [FIRST, SECOND]
    wire.answer(api.SettleResponse([]))
    now.seconds = session.next_at
    session.tick()
    assert wire.named() == []


def test_a_lease_of_a_lost_reply_is_deferred_and_not_ended(wire, session):
    """The process polled after the first page of the answer, and the connection was lost before the second."""
    wire.answer(attached(FIRST, more=True))
    session.on_disconnected()
    wire.calls.clear()
    session.on_connected(wire)
    wire.answer(attached(FIRST, OWN))
    (deferring, _), (ending, _) = wire.calls
    assert OWN in deferring.content
    assert FIRST not in deferring.content
    assert FIRST in ending.content
    assert OWN not in ending.content
