"""
The standard stream framing: a byte stream in, messages out.

A message is a table of 32-bit little-endian numbers (how many segments, less
one; the words of each; padding to a whole word), then the segments end to end.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from struct import Struct, unpack_from

from queueber.capnp.reader import WORD, Frame, words_of
from queueber.errors import RemoteProtocolError
from queueber.limits import Limits

_HEADER = Struct("<II")
_BITS_32 = 0xFFFFFFFF


def framed(segment: bytes) -> bytes:
    """The message whose only segment is *segment*, a whole number of words, ready for a stream."""
    return _HEADER.pack(0, len(segment) // WORD) + segment


class Framer:
    """
    Accumulates bytes and cuts them into messages.

    Give it bytes with `begin`, then take messages with `next` until there are
    none; `at` may be moved on past whole messages meanwhile.  It holds at most
    one incomplete message and copies no byte more than a few times, however the
    stream was cut; a message that came whole is not copied.  One that promises
    more than the limits allow is refused as soon as the words that say so have
    come, before its body has.
    """

    def __init__(self, limits: Limits) -> None:
        self._segments_max = limits.segments
        self._words_max = limits.frame_bytes // WORD
        self._factor = limits.traversal_factor
        # One growing buffer, because a list of what a peer sends byte by byte would be fifty times as large.
        self._begun = bytearray()
        self._needed = WORD
        self.data = b""
        self.words: Sequence[int] = ()
        """The words of `data`, which are taken from the stream until `next` returns None."""

        self.at = 0
        """The word at which the next message begins."""

    @property
    def held(self) -> int:
        """Bytes held of a message that has begun; 0 between messages."""
        return len(self._begun)

    @property
    def has_next(self) -> bool:
        """Whether the next message is complete, if it has one segment; it may be if it has more."""
        return self.at < len(self.words) and self.at + (self.words[self.at] >> 32) < len(self.words)

    def discard(self) -> None:
        """Let go of everything: the stream is over."""
        self._begun = bytearray()
        self._drop()

    def begin(self, data: bytes) -> None:
        """Take *data*, the stream's next bytes, of which `next` cuts messages."""
        if len(self._begun) + len(data) < self._needed:
            self._begun += data
            return
        if self._begun:
            self._begun += data
            data = bytes(self._begun)
            # Not cleared, but a new one: clearing would keep what the largest message so far has taken.
            self._begun = bytearray()
        self.data, self.words, self.at = data, words_of(data), 0

    def next(self) -> Frame | None:
        """
        The next message; None, and the rest is kept for `begin`, if it is not complete.

        Raises:
            RemoteProtocolError: the stream is beyond repair.
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
            if end - at > self._words_max:
                raise self._too_long(end - at)
        if end > len(words):
            self._keep_rest((end - at) * WORD)
            return None
        self.at = end
        start, stop = segments[0] if segments else (at + 1, end)
        return Frame(self.data, words, start, stop, segments, self._factor * (end - at), self._factor)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """
        The messages that *data*, the stream's next bytes, completes; in order.

        All of them must have been taken before the next call.

        Raises:
            RemoteProtocolError: the stream is beyond repair.  The messages
                before the bad one have been given.
        """
        self.begin(data)
        while (frame := self.next()) is not None:
            yield frame

    def _keep_rest(self, needed: int) -> None:
        if self.at * WORD < len(self.data):
            self._begun = bytearray(memoryview(self.data)[self.at * WORD :])
        if self.data:
            self._needed = needed
        self._drop()

    def _drop(self) -> None:
        self.data, self.words, self.at = b"", (), 0

    def _table(self, data: bytes, at: int, count: int) -> tuple[list[tuple[int, int]] | None, int]:
        """The bounds of the segments of the message at word *at*, and its end; or None, and the end of its table."""
        segments = unpack_from("<I", data, at * WORD)[0] + 1
        if segments > self._segments_max:
            raise RemoteProtocolError(
                f"a message has {segments:,} segments; the limit is {self._segments_max:,}", limit="segments"
            )
        body = at + segments // 2 + 1
        if body > count:
            return None, body
        sizes = unpack_from(f"<{segments}I", data, at * WORD + 4)
        if body - at + sum(sizes) > self._words_max:
            raise self._too_long(body - at + sum(sizes))
        bounds = list(pairwise(accumulate(sizes, initial=body)))
        return bounds, bounds[-1][1]

    def _too_long(self, words: int) -> RemoteProtocolError:
        limit = self._words_max * WORD
        return RemoteProtocolError(f"a message is {words * WORD:,} bytes; the limit is {limit:,}", limit="frame_bytes")
