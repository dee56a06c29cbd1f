"""
Target: decode one message and read its content.

Each input gives values or a refusal, independent of its neighbours in the stream,
and at most as many values as the traversal budget allows.
"""

from contextlib import suppress
from time import thread_time

from shapes import framed
from target_framing import segments_of
from views import LIMITS, READERS, view

from queueber.capnp import layout
from queueber.capnp.framing import Framer
from queueber.capnp.packing import pack, unpack
from queueber.errors import RemoteProtocolError

CANARIES = [framed([b"\xc5CANARY\xc5" * 40]), framed([bytes(range(1, 9)) * 40])]
SECONDS_MAX = 0.5
ELEMENT_VALUES = 50
"""The most values that one element of a list may have, itself included."""

STORED = ["StoredItem", "AddRequest", "PollResponse", "Message"]


def values(stream, index, reader):
    """Return the values of message number *index* of *stream*, and whether the canary was intact."""
    for number, frame in enumerate(Framer(LIMITS).feed(stream)):
        if number == index:
            return view(frame, reader)
    raise AssertionError("the message was lost in the framing")


def size_of(value):
    """Return the number of bytes and numbers in a view."""
    if isinstance(value, list):
        return sum(map(size_of, value)) + len(value)
    return len(value) // 2 if isinstance(value, str) else 1


def check_message(message, reader):
    """Raise unless the framed *message* is read correctly."""
    begun = thread_time()
    alone = values(message, 0, reader)
    for canary in CANARIES:
        assert values(canary + message + canary, 1, reader) == alone, "what lies around a message changes what it says"
    # A word that is paid for gives eight bytes or one element, which is a few values; the items of an add are free up
    # to their limit.
    paid = LIMITS.traversal_factor * len(message)
    bound = paid + paid // 8 * ELEMENT_VALUES + 100
    if alone[0] == "call":
        bound += LIMITS.items_per_add * ELEMENT_VALUES
    assert size_of(alone) <= bound, f"{size_of(alone):,} values from {len(message):,} bytes"
    assert thread_time() - begun < SECONDS_MAX, "it took too long"


def check_stored(segment):
    """Raise unless a value of the disk is read correctly."""
    for name in STORED:
        with suppress(RemoteProtocolError):
            layout(name).read(segment)
    assert unpack(pack(segment)) == segment
    with suppress(RemoteProtocolError):
        unpack(segment)


def check(stream):
    """Raise unless every message in *stream* is read correctly."""
    with suppress(RemoteProtocolError):
        for number, frame in enumerate(Framer(LIMITS).feed(stream)):
            segments = segments_of(frame)
            message = framed(segments)
            check_message(message, number % READERS)
            check_message(message, sum(message) % READERS)
            check_stored(segments[0])
