"""
The bytes of calls that connections may have in flight together before they are throttled.

Commits are written in the order of decisions, so a call waits for the bytes of
all calls that were decided before it.  Producers that send without waiting for
replies could have `request_bytes` in flight each, and delay the calls of every
other peer by what the disk takes for the sum.  So no more is read from a
connection whose calls in flight exceed its share of `REQUEST_WINDOW`, until
half of that share is free.  Nothing is refused: the peer's own transport stops.

The window is divided among the connections that have calls in flight.  A
connection that is alone may fill it, which keeps the disk busy.  A share is
`SHARE_MIN` at least, and one call of any length is always read.
"""

from collections.abc import Mapping
from typing import Final

from queueber.broker import Peer
from queueber.units import KIB, MIB

REQUEST_WINDOW: Final = 4 * MIB
"""
Four producers at line rate delay another peer's call by 25 ms with it (p99), by 50 with twice as much, and by 500
without a window.  Halving it again would cost adds of many items some of their throughput.
"""

SHARE_MIN: Final = 8 * KIB


def exceeds_share(peer: Peer, request_bytes: Mapping[Peer, int]) -> bool:
    """Whether the calls of *peer* are more than its share; *request_bytes* are those of all connections in flight."""
    own = request_bytes.get(peer, 0)
    return own > SHARE_MIN and own * len(request_bytes) > REQUEST_WINDOW


def has_room(peer: Peer, request_bytes: Mapping[Peer, int]) -> bool:
    """Whether *peer* uses at most half of its share."""
    own = request_bytes.get(peer, 0)
    return own <= SHARE_MIN or 2 * own * len(request_bytes) <= REQUEST_WINDOW
