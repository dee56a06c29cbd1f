"""
Every bound Queueber puts on its peers and on itself, with its reason.

What can never fit is `failed`, what passes with time is `overloaded`, and what
makes a byte stream untrustworthy ends its connection; ``docs/protocol.md`` has
the table.
"""

from attrs import frozen

from queueber.units import DAY, KIB, MIB, SECOND, YEAR, SpanMs

# A frame carries one call or one return.  The C++ and Go libraries refuse more
# than 64 MiB by default; a quarter of that is ample for a work queue and keeps
# one hostile peer from holding much memory.
FRAME_BYTES_MAX = 16 * MIB

# What C++ accepts in one stream message; Go stops one later.
SEGMENTS_MAX = 512

# A call with the largest add still needs room for pointers and RPC headers.
CONTENTS_BYTES_MAX = 8 * MIB
ADD_BYTES_MAX = 15 * MIB
POLL_BYTES_MAX = 15 * MIB

QUEUE_NAME_BYTES_MAX = 255

# Transforms walk from a result to a capability in it.  Ours lie one field deep.
TRANSFORM_OPS_MAX = 16


LEASE_MS_MAX = SpanMs(7 * DAY)
DELAY_MS_MAX = SpanMs(10 * YEAR)
IDLE_CLOSE_MS = SpanMs(30 * SECOND)


@frozen(kw_only=True)
class Limits:
    """The bounds a server runs with."""

    frame_bytes: int = FRAME_BYTES_MAX
    """One framed message, segment table included."""

    segments: int = SEGMENTS_MAX
    """Segments of one message."""

    traversal_factor: int = 2
    """Bytes read out of a frame, at most, as a multiple of its length: what aliased pointers can cost."""

    pointer_depth: int = 64
    """Pointers followed from the root to the deepest value."""

    items_per_add: int = 1_000
    """Items in one add, checked before the list is walked: a million of no size fit in 32 bytes."""

    contents_bytes: int = CONTENTS_BYTES_MAX
    """Contents of one item."""

    add_bytes: int = ADD_BYTES_MAX
    """Contents of all the items of one add."""

    poll_items: int = 1_000
    """Items in one poll's reply; a larger `numItems` is clamped."""

    poll_bytes: int = POLL_BYTES_MAX
    """Contents in one poll's reply, which holds at least one item all the same."""

    lease_ms_max: SpanMs = LEASE_MS_MAX
    """The longest lease: a lost worker's items are not lost for longer."""

    delay_ms_max: SpanMs = DELAY_MS_MAX
    """The longest delay of an item."""

    wait_ms_max: SpanMs = DELAY_MS_MAX
    """Longer waits of a poll are clamped to this, which no process outlives."""

    outstanding_calls: int = 1_024
    """Calls of one connection that have not been answered yet."""

    exports: int = 10_000
    """Capabilities one connection may hold."""

    connections: int = 10_000
    """Connections of one server."""

    pending_bytes: int = 256 * MIB
    """Contents that wait for the disk, of all connections together; above it adds are `overloaded`."""

    unsent_bytes: int = 8 * MIB
    """Reply bytes a peer has not taken yet; above it the peer is not read and its waiting polls are not served."""

    waiting_polls: int = 50_000
    """Polls that wait at the same time."""

    leased_items: int = 1_000_000
    """Items under lease at the same time: each costs memory until it is removed or its lease ends."""

    queues: int = 1_000_000
    """Queues with a name known to the server."""

    window_bytes: int = 64 * MIB
    """Items kept in memory at the heads of all queues together."""

    queue_window_bytes: int = 16 * MIB
    """The same at the head of one queue: dropping a tail sorts what is there, which must not take long."""

    window_item_overhead: int = 512
    """What an item in a window costs beside its contents, bytes."""

    refill_items: int = 1_000
    """Rows one refill of a window reads at most, so that a scan holds the interpreter for milliseconds only."""

    refill_bytes: int = 4 * MIB
    """Contents one refill reads at most, after at least one row."""

    expiry_slice: int = 500
    """Rows of ended leases that are read and moved at a time, so that polls are served in between."""

    commit_rows: int = 20_000
    """Rows of one commit, after at least one plan."""

    commit_bytes: int = 4 * MIB
    """Contents written by one commit, after at least one plan: the engine holds the interpreter while it takes them."""

    idle_close_ms: SpanMs = IDLE_CLOSE_MS
    """How long a peer whose connection is being closed may take to take its last replies."""


DEFAULTS = Limits()

# One item always fits a poll's reply, and that reply always fits a frame.
assert CONTENTS_BYTES_MAX <= ADD_BYTES_MAX
assert CONTENTS_BYTES_MAX <= POLL_BYTES_MAX
assert POLL_BYTES_MAX + DEFAULTS.poll_items * 64 + 4 * KIB <= FRAME_BYTES_MAX
assert ADD_BYTES_MAX + DEFAULTS.items_per_add * 64 + 4 * KIB <= FRAME_BYTES_MAX
