"""Target: compare the framer with the standard read word by word, however the stream is cut."""

from random import Random
from struct import unpack_from
from zlib import crc32

from queueber.capnp.framing import Framer
from queueber.errors import RemoteProtocolError
from queueber.limits import Limits

LIMITS = Limits(frame_bytes=1 << 14, segments=64)
WHOLE_BYTEWISE = 600


def segments_of(frame):
    bounds = frame.segments or [(frame.start, frame.end)]
    return [frame.data[first * 8 : last * 8] for first, last in bounds]


def framed_by(chunks):
    """Return the messages in a stream that comes in *chunks*, and whether it ended in an error."""
    framer, found = Framer(LIMITS), []
    try:
        for chunk in chunks:
            # One by one: those before the bad one count.
            for frame in framer.feed(chunk):
                found.append(segments_of(frame))  # noqa: PERF401
            assert len(framer.begun) <= LIMITS.frame_bytes, f"{len(framer.begun)} bytes are held"
    except RemoteProtocolError as why:
        return found, str(why), None
    return found, None, len(framer.begun)


def expected(stream):
    """Frame a stream as the standard says, within our limits."""
    at, found = 0, []
    while len(stream) - at >= 8:
        count = unpack_from("<I", stream, at)[0] + 1
        table = (4 + 4 * count + 7) // 8 * 8
        if count > LIMITS.segments:
            return found, True, None
        if len(stream) - at < table:
            break
        sizes = [size * 8 for size in unpack_from(f"<{count}I", stream, at + 4)]
        if table + sum(sizes) > LIMITS.frame_bytes:
            return found, True, None
        if len(stream) - at < table + sum(sizes):
            break
        at += table
        segments = []
        for size in sizes:
            segments.append(stream[at : at + size])
            at += size
        found.append(segments)
    return found, False, len(stream) - at


def pieces(stream, dice):
    """Split *stream* into pieces of all sizes."""
    at = 0
    while at < len(stream):
        size = dice.choice([1, 3, 4, 7, 8, 9, 16, 100, dice.randrange(1, 5_000)])
        yield stream[at : at + size]
        at += size


def check(stream):
    """Raise unless *stream* is framed as the standard says, however it is cut."""
    whole = framed_by([stream])
    messages, broken, held = expected(stream)
    assert whole[0] == messages
    assert (whole[1] is not None) == broken
    assert whole[2] == held
    assert framed_by(pieces(stream, Random(crc32(stream)))) == whole
    if len(stream) <= WHOLE_BYTEWISE:
        assert framed_by(stream[at : at + 1] for at in range(len(stream))) == whole
