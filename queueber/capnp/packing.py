"""
Cap'n Proto's packed encoding, for stored values.

Each word is encoded as a tag, whose bits mark the bytes that are not zero, and
those bytes.  Two tags are followed by a count: 0x00 by the number of further
zero words, 0xff by the number of further words that follow unpacked.

The packer chooses the words that follow unpacked.  This one processes chunks of
2 KiB, and leaves a chunk unpacked if it has few zeros or, after the first
64 KiB, any byte that is not zero: packing a word takes about a microsecond with
the interpreter's lock held, and compression suits long contents better.
"""

from queueber.capnp.reader import WORD
from queueber.errors import RemoteProtocolError
from queueber.units import counted

_RUN_WORDS_MAX = 256
"""A run is one word and at most 255 further ones."""

_CHUNK = _RUN_WORDS_MAX * WORD
_ZERO_BYTES_WORTH_PACKING = 1 / WORD
"""The share of zeros below which the tags take more bytes than the zeros."""

_PACKED_BYTES_MAX = 64 << 10
"""The offset from which on only chunks of zeros are packed."""

_ZERO = bytes(WORD)
_RAW = 0xFF
_NOT_ZERO = bytes(byte != 0 for byte in range(256))
_GATHER = 0x0102040810204080
"""The factor that moves eight bytes of 0 or 1 to the bits of the highest byte, the first to the lowest bit."""

_PLACES = tuple(tuple(place for place in range(WORD) if tag >> place & 1) for tag in range(256))
"""For each tag, the places in the word of the bytes that follow it."""


def pack(words: bytes) -> bytes:
    """
    Pack whole *words*.

    Raises:
        ValueError: the last word is incomplete.
    """
    if len(words) % WORD:
        raise ValueError(f"{counted(len(words), 'byte is', 'bytes are')} not a whole number of words")
    pieces: list[bytes] = []
    for first in range(0, len(words), _CHUNK):
        chunk = words[first : first + _CHUNK]
        zeros = chunk.count(0)
        if zeros == len(chunk):
            pieces.append(bytes((0, len(chunk) // WORD - 1)))
        elif first >= _PACKED_BYTES_MAX or zeros < len(chunk) * _ZERO_BYTES_WORTH_PACKING:
            pieces += _raw_run(chunk)
        else:
            _pack_words(chunk, pieces)
    return b"".join(pieces)


def _raw_run(run: bytes) -> tuple[bytes, ...]:
    """Return the pieces of unpacked words.  The first word may have zeros too, which every unpacker accepts."""
    return b"\xff", run[:WORD], bytes((len(run) // WORD - 1,)), run[WORD:]


def _pack_words(chunk: bytes, pieces: list[bytes]) -> None:
    """Pack each word of *chunk* on its own, except runs of zero words and of words without zeros."""
    at, end = 0, len(chunk)
    while at < end:
        word = chunk[at : at + WORD]
        rest = word.replace(b"\0", b"")
        first = at
        at += WORD
        if not rest:
            while chunk[at : at + WORD] == _ZERO:
                at += WORD
            pieces.append(bytes((0, (at - first) // WORD - 1)))
        elif len(rest) == WORD:
            while at < end and 0 not in chunk[at : at + WORD]:
                at += WORD
            pieces += _raw_run(chunk[first:at])
        else:
            pieces += bytes((_tag(word),)), rest


def _tag(word: bytes) -> int:
    return int.from_bytes(word.translate(_NOT_ZERO), "little") * _GATHER >> 56 & 0xFF


def unpack(packed: bytes) -> bytes:
    """
    Unpack to whole words.

    They may be a thousand times as long as *packed*, so this is for our own
    values with a correct checksum, not for data from a peer.

    Raises:
        RemoteProtocolError: *packed* ends in the middle of a word or run.
    """
    pieces: list[bytes] = []
    at, end = 0, len(packed)
    while at < end:
        tag = packed[at]
        at += 1
        if tag == 0:
            count = packed[at] if at < end else -1
            at += 1
            pieces.append(_ZERO * (count + 1))
        elif tag == _RAW:
            count = packed[at + WORD] if at + WORD < end else 0
            pieces += packed[at : at + WORD], packed[at + WORD + 1 : at + WORD + 1 + count * WORD]
            at += WORD + 1 + count * WORD
        else:
            places = _PLACES[tag]
            word = bytearray(WORD)
            for place, byte in zip(places, packed[at : at + len(places)], strict=False):
                word[place] = byte
            pieces.append(bytes(word))
            at += len(places)
    if at > end:
        raise RemoteProtocolError("packed words end too early")
    return b"".join(pieces)
