"""What callers may pass: all bytes of any buffer, and for anything wrong an error that names it before it is sent."""

from array import array
from ctypes import c_uint64
from mmap import mmap

import pytest

from queueber import wire
from queueber.errors import InvalidRequest
from queueber.limits import DEFAULTS
from queueber.wire import DATA_BYTES_MAX

BYTES = bytes(range(16))


def mapped():
    made = mmap(-1, len(BYTES))
    made[:] = BYTES
    return made


BUFFERS = {
    "bytes": BYTES,
    "a subclass": type("Contents", (bytes,), {"__bytes__": lambda _: b"other", "__len__": lambda _: 3})(BYTES),
    "bytearray": bytearray(BYTES),
    "memoryview": memoryview(BYTES),
    "every other byte": memoryview(bytes(each // 2 for each in range(32)))[::2],
    "backwards": memoryview(BYTES[::-1])[::-1],
    "nested": memoryview(BYTES).cast("B", (2, 2, 4)),
    "wider": memoryview(BYTES).cast("I"),
    "wider and nested": memoryview(BYTES).cast("H", (2, 4)),
    "array": array("Q", BYTES),
    "mmap": mapped(),
    "a structure": (c_uint64 * 2).from_buffer_copy(BYTES),
}


@pytest.mark.parametrize("buffer", BUFFERS.values(), ids=BUFFERS)
def test_every_byte_of_a_buffer_is_sent(network, client, buffer):
    """Through every method that takes bytes, with other values before and after."""
    client.default.add(b"before", buffer, b"after")
    client.default.remove(buffer, BYTES)
    client.default.remove(BYTES, buffer)
    client.default.extend(buffer, 1)
    network.turn()
    add, remove, other, extend = network.peer.calls()
    assert [item.contents for item in wire.read_add_request(add.params, DEFAULTS).items] == [b"before", BYTES, b"after"]
    assert wire.read_remove_request(remove.params) == wire.read_remove_request(other.params)
    assert wire.read_remove_request(remove.params) == wire.RemoveRequest(BYTES, BYTES)
    assert wire.read_extend_request(extend.params).lease == BYTES


def test_a_buffer_that_changes_after_the_call_is_sent_as_it_was(network, client):
    content = bytearray(b"before")
    client.default.add(content)
    content[:] = b"after, and longer"
    network.turn()
    (call,) = network.peer.calls()
    assert wire.read_add_request(call.params, DEFAULTS).items[0].contents == b"before"


def released():
    view = memoryview(b"gone")
    view.release()
    return view


def unmapped():
    made = mmap(-1, 1)
    made.close()
    return made


@pytest.mark.parametrize("value", [released(), unmapped()], ids=["released", "unmapped"])
def test_a_buffer_that_is_gone_is_refused(network, client, failure, value):
    for name, call in (
        ("contents[1]", client.default.add(b"", value)),
        ("item_id", client.default.remove(value, BYTES)),
        ("lease", client.default.remove(BYTES, value)),
        ("lease", client.default.extend(value, 1)),
    ):
        found = failure(call)
        assert isinstance(found, InvalidRequest)
        assert str(found).startswith(f"{name} is <")
        assert "whose bytes cannot be had" in str(found)
    network.turn()
    assert network.peer.calls() == []


def test_a_buffer_that_no_message_can_hold_is_refused_before_it_is_copied(client, failure):
    """Mapped memory that is never touched takes none."""
    with mmap(-1, DATA_BYTES_MAX + 1) as one:
        assert str(failure(client.default.add(b"", one))) == (
            "contents[1] is 536,870,912 bytes; the limit is 536,870,911"
        )


def test_buffers_that_together_are_longer_than_any_message_are_refused(client, failure, monkeypatch):
    monkeypatch.setattr("queueber.client.arguments.FRAME_BYTES_HIGHEST", 5)
    assert str(failure(client.default.add(b"abc", b"def", b"g"))) == "contents up to [1] is 6 bytes; the limit is 5"
