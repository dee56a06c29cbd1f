"""Stream framing: the messages do not depend on how the stream is cut, and limits are applied early."""

from struct import pack
from sys import getsizeof

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queueber.capnp.framing import Framer, framed
from queueber.errors import RemoteProtocolError
from queueber.limits import Limits

TINY = Limits(frame_bytes=1024, segments=4)


def segments_of(frame):
    """Return the segments of a frame."""
    bounds = frame.segments or [(frame.start, frame.end)]
    return [frame.data[start * 8 : end * 8] for start, end in bounds]


def taken(framer, *pieces):
    return [segments_of(frame) for piece in pieces for frame in framer.feed(piece)]


segments = st.binary(max_size=12).map(lambda content: content * 8)
messages = st.lists(st.lists(segments, min_size=1, max_size=4), max_size=5)


@pytest.mark.traced
@settings(derandomize=True)
@given(messages, st.data())
def test_the_same_messages_come_out_however_the_stream_is_cut(stream_of, sent, data):
    stream = b"".join(stream_of(each) for each in sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    pieces = [stream[first:last] for first, last in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    framer = Framer(TINY)
    assert taken(framer, *pieces) == sent
    assert len(framer.begun) == 0


@given(messages)
def test_a_stream_may_arrive_byte_by_byte(stream_of, sent):
    stream = b"".join(stream_of(each) for each in sent)
    assert taken(Framer(TINY), *[stream[at : at + 1] for at in range(len(stream))]) == sent


def test_ten_thousand_messages_come_out_of_one_piece():
    assert taken(Framer(TINY), framed(bytes(8)) * 10_000) == [[bytes(8)]] * 10_000


def test_a_framed_segment_is_a_message(stream_of):
    assert taken(Framer(TINY), framed(bytes(16))) == [[bytes(16)]]
    assert framed(bytes(16)) == stream_of([bytes(16)])


def test_padding_is_ignored(stream_of):
    stream = bytearray(stream_of([bytes(8), bytes(16)]))
    stream[12:16] = b"\xff" * 4
    assert taken(Framer(TINY), bytes(stream)) == [[bytes(8), bytes(16)]]


def test_a_whole_message_is_not_copied():
    stream = framed(bytes(8)) * 3
    assert all(frame.data is stream for frame in Framer(TINY).feed(stream))


def test_bytes_of_an_incomplete_message_are_counted():
    framer = Framer(TINY)
    stream = framed(bytes(800))
    assert len(framer.begun) == 0
    assert taken(framer, stream[:3]) == []
    assert len(framer.begun) == 3
    assert taken(framer, b"") == []
    assert len(framer.begun) == 3
    assert taken(framer, stream[3:100]) == []
    assert len(framer.begun) == 100
    assert taken(framer, stream[100:] + stream[:10]) == [[bytes(800)]]
    assert len(framer.begun) == 10


def test_pieces_of_a_long_message_are_joined_once():
    """Copying all that is held with every piece would take a minute over a message of the largest size."""
    size = 16 << 20
    framer = Framer(Limits())
    stream = framed(bytes(size - 8))
    assert list(framer.feed(stream[:65_536])) == []
    held = framer.begun
    for at in range(65_536, size - 65_536, 65_536):
        assert list(framer.feed(stream[at : at + 65_536])) == []
        assert framer.begun is held
    (frame,) = framer.feed(stream[-65_536:])
    assert (frame.start, frame.end) == (1, size // 8)


def test_a_message_that_comes_byte_by_byte_takes_no_more_memory():
    framer = Framer(Limits())
    list(framer.feed(framed(bytes(1 << 20))[:8]))
    for _ in range(100_000):
        list(framer.feed(b"x"))
    assert getsizeof(framer.begun) < 2 * len(framer.begun)
    assert len(framer.begun) == 100_008


@pytest.mark.parametrize(
    "header",
    [
        b"\xff\xff\xff\xff\0\0\0\0",  # segments beyond any number
        pack("<II", 4, 1),  # one segment more than the limit
        pack("<II", 0, 0xFFFFFFFF),  # one segment beyond any size
        pack("<II", 0, 128),  # one word more than the limit, the header counted
        pack("<IIII", 1, 100, 27, 0),  # the same with two segments
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",  # TLS
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
def test_a_message_beyond_the_limits_is_refused_by_its_header(header):
    with pytest.raises(RemoteProtocolError, match="the limit is"):
        taken(Framer(TINY), header)


def test_a_message_at_the_limits_is_accepted(stream_of):
    largest = [bytes(1024 - 8)]
    assert taken(Framer(TINY), stream_of(largest)) == [largest]
    most = [bytes(8)] * 4
    assert taken(Framer(TINY), stream_of(most)) == [most]
    assert taken(Framer(Limits()), stream_of([bytes(8)] * 512)) == [[bytes(8)] * 512]
    with pytest.raises(RemoteProtocolError, match="513 segments"):
        taken(Framer(Limits()), stream_of([bytes(8)] * 513)[:8])


def test_messages_before_a_malformed_one_are_returned():
    framer = Framer(TINY)
    frames = framer.feed(framed(bytes(8)) + b"\xff" * 8)
    assert segments_of(next(frames)) == [bytes(8)]
    with pytest.raises(RemoteProtocolError):
        next(frames)


def test_each_message_has_its_own_budget():
    (small, large) = Framer(Limits(traversal_factor=3)).feed(framed(bytes(8)) + framed(bytes(80)))
    assert (small.budget, large.budget) == (6, 33)
