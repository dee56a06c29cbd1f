"""What `queueber manhole` sends of what is typed."""

from pathlib import Path

import pytest
from twisted.internet.testing import StringTransport

from queueber.cli.terminal import END_OF_INPUT, Line, Terminal


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
    with Path("/dev/null").open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        terminal = Terminal()
    terminal.line = Line(terminal)
    terminal.line.transport = StringTransport()
    for chunk in chunks:
        terminal.dataReceived(chunk)
    terminal.readConnectionLost()
    assert terminal.line.transport.value() == sent + END_OF_INPUT * 2
