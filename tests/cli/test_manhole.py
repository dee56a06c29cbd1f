"""``queueber manhole``: input that it sends, and the end of the session."""

from pathlib import Path

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from queueber.cli.manhole import END_OF_INPUT, LocalTerminal, TelnetClient


def made(monkeypatch):
    with Path("/dev/null").open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        connection = TelnetClient(LocalTerminal)
        connection.makeConnection(StringTransport())
    return connection.terminal, connection.transport


def test_a_closed_output_ends_the_session(monkeypatch):
    terminal, transport = made(monkeypatch)
    terminal.writeConnectionLost()

    assert terminal.output_lost
    assert transport.disconnecting


@pytest.mark.parametrize(("reason", "lost"), [(ConnectionDone(), False), (ConnectionLost(), True)])
def test_output_that_could_not_be_written_at_the_end_is_noted(monkeypatch, reason, lost):
    terminal, _ = made(monkeypatch)
    terminal.connectionLost(Failure(reason))

    assert terminal.output_lost is lost


@pytest.mark.parametrize(
    ("chunks", "sent"),
    [
        ([b"queues()"], b"queues()\r\0"),
        ([b"queues()\n"], b"queues()\r\0"),
        ([b"que", b"ues()\n", b"x"], b"queues()\r\0x\r\0"),
        ([b"\xc3", b"\xbc\xff\n"], b"\xc3\xbc\xff\xff\r\0"),
        ([], b""),
    ],
)
def test_the_end_of_a_pipe_ends_the_line_and_the_block_and_the_session(monkeypatch, chunks, sent):
    terminal, transport = made(monkeypatch)
    for chunk in chunks:
        terminal.dataReceived(chunk)
    terminal.readConnectionLost()
    assert transport.value() == sent + END_OF_INPUT * 2
