"""Every message of the catalogue against a server in this process."""

import time

import pytest

from queueber.capnp.framing import Framer
from queueber.errors import Kind
from queueber.limits import Limits
from queueber.rpc import RemoteException, Results, encoder
from queueber.rpc.decoder import decode
from queueber.rpc.messages import Abort, Return, UnimplementedMessage
from queueber.testing import InProcessServer
from tests.hostile import cases
from tests.hostile.pieces import QUESTION, call

AFTER = 2_000
SECONDS_MAX = 2.0
"""CPU time of this thread, because other processes may need the machine."""


def said(transport):
    return [decode(frame) for frame in Framer(Limits()).feed(transport.value())]


def ended(case, protocol, transport, server):
    """Return how *case* ended, in the catalogue's words."""
    protocol.dataReceived(case.stream)
    if not transport.disconnecting:
        protocol.dataReceived(call(cases.ONE, question=AFTER))
    server.settle()
    messages = said(transport)
    returns = {each.answer: each.outcome for each in messages if isinstance(each, Return)}
    if transport.disconnecting:
        assert AFTER not in returns
        return cases.ABORT if any(isinstance(each, Abort) for each in messages) else cases.QUIET
    assert isinstance(returns.pop(AFTER), Results)
    if any(isinstance(each, UnimplementedMessage) for each in messages):
        return cases.ECHO
    outcome = returns.get(QUESTION)
    if isinstance(outcome, RemoteException):
        return Kind(outcome.kind).name.lower()
    return cases.OK if isinstance(outcome, Results) else cases.IGNORED


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_it_ends_as_promised_and_soon(case):
    server = InProcessServer()
    protocol, transport = server.connect()
    protocol.dataReceived(encoder.bootstrap(0))
    other, heard = server.connect()
    other.dataReceived(encoder.bootstrap(0))
    heard.clear()
    began = time.thread_time()

    outcome = ended(case, protocol, transport, server)

    assert time.thread_time() - began < SECONDS_MAX
    assert outcome == case.outcome, said(transport)
    assert server.deaths == []
    assert not heard.disconnecting
    other.dataReceived(call(cases.ONE))
    server.settle()
    (answer,) = said(heard)
    assert isinstance(answer.outcome, Results)
