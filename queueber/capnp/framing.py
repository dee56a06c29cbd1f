"""
The standard stream framing: a byte stream in, messages out.

A message begins with a table of 32-bit little-endian numbers: the number of
segments minus one, the words of each segment, and padding to a whole word.
The segments follow end to end.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from struct import Struct, unpack_from

from queueber.capnp.reader import LITTLE_ENDIAN, WORD, Frame, words_of
from queueber.errors import RemoteProtocolError
from queueber.fixed_limits import ConnectionLimits

_HEADER = Struct("<II")
_BITS_32 = 0xFFFFFFFF


def framed(segment: bytes) -> bytes:
    """Return the message with *segment*, a whole number of words, as its only segment."""
    return _HEADER.pack(0, len(segment) // WORD) + segment


class Framer:
    """
    Accumulates bytes and cuts them into messages.

    Give it bytes with `begin`, then take messages with `next` until there are
    none.  A reader of whole messages in `data` moves past them with `skip_to`
    instead, and may read those of at most `words_max`.  The framer holds at most one
    incomplete message and copies no byte more than a few times, however the
    stream is cut; a message that comes whole is not copied.  A message longer
    than the limits allow is refused as soon as the words with its length have
    come, before its body has.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self._segments_max = limits.segments
        self.words_max = limits.frame_bytes // WORD
        """The most words of a message, with its segment table."""

        self._factor = limits.traversal_factor
        # One growing buffer, because a list of what a peer sends byte by byte would be fifty times as large.
        self.begun = bytearray()
        """The bytes of an incomplete message; empty between messages."""

        self._needed = WORD
        """Length of `begun` from which on it may hold the whole message."""

        self.data = b""
        self.words: Sequence[int] = ()
        """The words of `data`, which are taken from the stream until `next` returns None."""

        self.at = 0
        """The word at which the next message begins."""

    @property
    def missing(self) -> int:
        """The number of bytes that an incomplete message lacks, as far as is known; 0 between messages."""
        return self._needed - len(self.begun) if self.begun else 0

    def discard(self) -> None:
        """Discard all bytes at the end of the stream."""
        self.begun = bytearray()
        self._drop()

    def begin(self, data: bytes) -> bool:
        """Take *data*, the stream's next bytes; return whether `next` may cut a message from them."""
        if not self.begun:
            self._needed = WORD
        if len(self.begun) + len(data) < self._needed:
            self.begun += data
            return False
        if self.begun:
            self.begun += data
            data = bytes(self.begun)
            # Not cleared, but a new one: clearing would keep the capacity of the largest message so far.
            self.begun = bytearray()
        self.data, self.at = data, 0
        # Most reads are whole words, for which this is `words_of` without the call.
        is_aligned = LITTLE_ENDIAN and not len(data) % WORD
        self.words = memoryview(data).cast("Q") if is_aligned else words_of(data)
        return True

    def next(self) -> Frame | None:
        """
        Return the next message; None if it is not complete, and keep the rest for `begin`.

        Raises:
            RemoteProtocolError: the message exceeds a limit, so the stream cannot be read on.
        """
        words, at = self.words, self.at
        if at >= len(words):
            self._keep_rest(WORD)
            return None
        header = words[at]
        if header & _BITS_32:
            segments, end = self._table(self.data, at, len(words))
        else:
            segments, end = None, at + 1 + (header >> 32)
            if end - at > self.words_max:
                raise self._too_long(end - at)
        if end > len(words):
            self._keep_rest((end - at) * WORD)
            return None
        self.at = end
        start, stop = segments[0] if segments else (at + 1, end)
        return Frame(self.data, words, start, stop, segments, self._factor * (end - at), self._factor)

    def skip_to(self, at: int) -> None:
        """Go on at word *at* of `words`: the messages before it were read."""
        if at * WORD == len(self.data):
            self.data, self.words, at = b"", (), 0
        self.at = at

    def feed(self, data: bytes) -> Iterator[Frame]:
        """
        Yield the messages that *data*, the stream's next bytes, completes; in order.

        Take all of them before the next call.

        Raises:
            RemoteProtocolError: a message exceeds a limit, so the stream cannot be
                read on.  The messages before it were yielded.
        """
        self.begin(data)
        while (frame := self.next()) is not None:
            yield frame

    def _keep_rest(self, needed: int) -> None:
        if self.at * WORD < len(self.data):
            self.begun = bytearray(memoryview(self.data)[self.at * WORD :])
        if self.data:
            self._needed = needed
        self._drop()

    def _drop(self) -> None:
        self.data, self.words, self.at = b"", (), 0

    def _table(self, data: bytes, at: int, count: int) -> tuple[list[tuple[int, int]] | None, int]:
        """Return the segments' bounds of the message at word *at*, and its end; or None, and the end of its table."""
        segments = unpack_from("<I", data, at * WORD)[0] + 1
        if segments > self._segments_max:
            raise RemoteProtocolError(
                f"a message has {segments:,} segments; the limit is {self._segments_max:,}", limit="segments"
            )
        body = at + segments // 2 + 1
        if body > count:
            return None, body
        sizes = unpack_from(f"<{segments}I", data, at * WORD + 4)
        if body - at + sum(sizes) > self.words_max:
            raise self._too_long(body - at + sum(sizes))
        bounds = list(pairwise(accumulate(sizes, initial=body)))
        return bounds, bounds[-1][1]

    def _too_long(self, words: int) -> RemoteProtocolError:
        limit = self.words_max * WORD
        return RemoteProtocolError(f"a message is {words * WORD:,} bytes; the limit is {limit:,}", limit="frame_bytes")
