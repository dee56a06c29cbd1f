# ruff: noqa: RUF009  (a call makes each field, as attrs has it)
"""
The bounds that a server puts on its peers and on itself, with their reasons.

A request that can never fit is `failed`, one that may fit later is `overloaded`,
and bytes that make a stream untrustworthy end its connection.  Each limit on
peers is an option of the server, a counter, and a row of the table in
``docs/protocol.md``.  `PEER_LIMITS` generates the options and counters; a test
compares the table with it.  `fixed_limits` has the bounds that are no options.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from attrs import field, fields, frozen

from queueber.fixed_limits import CONNECTION, FRAME_BYTES_HIGHEST, FRAME_BYTES_LOWEST, ConnectionLimits
from queueber.units import DAY, GIB, KIB, MIB, SECOND, YEAR, SpanMs, Unit, quantity

# Upper bounds for the RPC headers of a message and the pointers around each item.
_ENVELOPE_BYTES = 4 * KIB
_ITEM_ENVELOPE_BYTES = 64


class Consequence(StrEnum):
    """The consequence for a peer or a call that exceeds a limit."""

    ABORT = "abort"
    """The connection ends: its stream cannot be trusted, or its peer makes no progress."""

    FAILED = "failed"
    """The call ends with that exception: it can never fit."""

    OVERLOADED = "overloaded"
    """The call ends with that exception: it may fit later."""

    CLAMPED = "clamped"
    """The limit replaces the requested value."""

    FEWER = "fewer items, at least one"
    """The reply holds fewer items than requested."""

    PAUSED = "not read, its polls wait"
    """The peer is not read, and its waiting polls are not served, until it has received its replies."""

    REFUSED = "closed at once"
    """A new connection is closed at once."""


@frozen
class PeerLimit:
    """One limit on peers: default, range, unit and texts.  `Limits` has the reasons."""

    name: str
    default: int
    unit: Unit
    low: int
    high: int
    consequence: Consequence
    description: str
    """The limited quantity, a noun phrase for help and tables."""

    zero: str | None = None
    """The meaning of 0, where 0 is allowed."""

    @property
    def figure(self) -> str:
        """The default as text."""
        return self.zero if self.default == 0 and self.zero else quantity(self.default, self.unit)


def _peer(
    default: int, unit: Unit, low: int, high: int, consequence: Consequence, description: str, zero: str | None = None
) -> Any:  # noqa: ANN401
    return field(default=default, metadata={"peer": (default, unit, low, high, consequence, description, zero)})


@frozen(kw_only=True)
class Limits:
    """The bounds a server runs with.  Where 0 is allowed, it means no limit."""

    # One message

    frame_bytes: int = _peer(
        CONNECTION.frame_bytes,
        Unit.BYTES,
        FRAME_BYTES_LOWEST,
        FRAME_BYTES_HIGHEST,
        Consequence.ABORT,
        "length of a message, segment table included",
    )
    """Checked when the segment table has arrived, before the body."""

    segments: int = _peer(CONNECTION.segments, Unit.COUNT, 1, 65_536, Consequence.ABORT, "segments of a message")
    """The limit of the C++ library for one stream message; Go allows one more."""

    traversal_factor: int = _peer(
        CONNECTION.traversal_factor,
        Unit.COUNT,
        1,
        64,
        Consequence.ABORT,
        "words read from a message, in multiples of its length",
    )
    """Bounds the cost of pointers that share a target."""

    # One call

    items_per_add: int = _peer(1_000, Unit.COUNT, 1, 10_000, Consequence.FAILED, "items in an add")
    """Checked before the list is read: a million empty items fit in 32 bytes."""

    contents_bytes: int = _peer(8 * MIB, Unit.BYTES, 1, GIB, Consequence.FAILED, "contents of an item")
    """A call with the largest item still needs room for pointers and RPC headers."""

    add_bytes: int = _peer(15 * MIB, Unit.BYTES, 1, GIB, Consequence.FAILED, "contents of an add")
    """Small enough for a frame to hold them."""

    poll_items: int = _peer(1_000, Unit.COUNT, 1, 10_000, Consequence.CLAMPED, "items in a poll's reply")
    """Bounds the record of a poll's lease."""

    poll_bytes: int = _peer(15 * MIB, Unit.BYTES, 1, GIB, Consequence.FEWER, "contents in a poll's reply")
    """Small enough for every client to read the reply.  One item always fits."""

    lease_ms: SpanMs = _peer(SpanMs(7 * DAY), Unit.MS, 1, SpanMs(10 * YEAR), Consequence.FAILED, "length of a lease")
    """Bounds the time for which a lost worker blocks its items."""

    delay_ms: SpanMs = _peer(
        SpanMs(10 * YEAR), Unit.MS, 0, SpanMs(100 * YEAR), Consequence.FAILED, "delay of an item", "none"
    )
    """Keeps sums of points and spans far below 64 bits."""

    wait_ms: SpanMs = _peer(SpanMs(10 * YEAR), Unit.MS, 1, SpanMs(100 * YEAR), Consequence.CLAMPED, "wait of a poll")
    """Longer than any process runs.  A poll without a time-out still waits for ever."""

    # One connection

    outstanding_calls: int = _peer(
        CONNECTION.outstanding_calls,
        Unit.COUNT,
        1,
        1_000_000,
        Consequence.OVERLOADED,
        "unanswered calls of a connection",
    )
    """Reading continues above it, because the Finish that frees a call must be read."""

    open_answers: int = _peer(
        CONNECTION.open_answers,
        Unit.COUNT,
        1,
        10_000_000,
        Consequence.ABORT,
        "returned but unfinished answers of a connection",
    )
    """Peers with late garbage collection leave thousands open; one that never sends Finish may cost megabytes only."""

    exports: int = _peer(
        CONNECTION.exports, Unit.COUNT, 1, 1_000_000, Consequence.OVERLOADED, "capabilities of a connection"
    )
    """One for each queue that the peer has requested by name."""

    request_bytes: int = _peer(
        16 * MIB, Unit.BYTES, 1, GIB, Consequence.OVERLOADED, "calls of a connection that wait for the disk"
    )
    """Bounds how much one peer can add to the wait of all others on a slow disk.  One message always fits."""

    unsent_bytes: int = _peer(8 * MIB, Unit.BYTES, 64 * KIB, GIB, Consequence.PAUSED, "replies queued for a connection")
    """Bounds the memory of a peer that requests more than it receives."""

    first_message_ms: SpanMs = _peer(
        SpanMs(10 * SECOND), Unit.MS, 1, DAY, Consequence.ABORT, "time until a connection's first message is complete"
    )
    """Real clients send first and at once.  The time includes the TLS handshake."""

    stalled_message_ms: SpanMs = _peer(
        SpanMs(30 * SECOND), Unit.MS, 1, DAY, Consequence.ABORT, "silence within a message"
    )
    """An incomplete message occupies memory."""

    stalled_replies_ms: SpanMs = _peer(
        SpanMs(30 * SECOND),
        Unit.MS,
        1,
        DAY,
        Consequence.ABORT,
        "time in which a peer receives none of its queued replies",
    )
    """Applies to a closing connection too."""

    idle_ms: SpanMs = _peer(
        SpanMs(0), Unit.MS, 0, YEAR, Consequence.ABORT, "silence of a connection without a call under way", "unlimited"
    )
    """Off: a worker may have nothing to send for days, and TCP keepalive finds dead peers."""

    session_silence_ms: SpanMs = _peer(
        SpanMs(30 * SECOND), Unit.MS, 1_000, DAY, Consequence.ABORT, "silence of a connection with an attached session"
    )
    """Found by a ping that does not come: a peer that vanished sends no FIN."""

    # All connections

    connections: int = _peer(10_000, Unit.COUNT, 1, 1_000_000, Consequence.REFUSED, "connections")
    """A newcomer first evicts a connection that has sent nothing yet, or an idle one."""

    connections_per_peer: int = _peer(
        0, Unit.COUNT, 0, 1_000_000, Consequence.REFUSED, "connections from one address", "unlimited"
    )
    """Off: a whole cluster may share one address."""

    handshakes: int = _peer(1_000, Unit.COUNT, 1, 1_000_000, Consequence.ABORT, "unfinished TLS handshakes")
    """Each costs 60 KiB.  Above the limit the oldest is closed."""

    pending_bytes: int = _peer(
        256 * MIB, Unit.BYTES, MIB, 64 * GIB, Consequence.OVERLOADED, "calls of all connections that wait for the disk"
    )
    """
    Memory of calls while the disk does not respond.

    A row counts its contents and 512 bytes.  A plan, which answers a batch of calls, counts 640 bytes and 160 for each
    call after the first.
    """

    buffered_bytes: int = _peer(
        256 * MIB,
        Unit.BYTES,
        MIB,
        64 * GIB,
        Consequence.ABORT,
        "incomplete messages and queued replies of all connections",
    )
    """Closes the connections that held the most over the last minute, and none with at most an even share."""

    waiting_polls: int = _peer(50_000, Unit.COUNT, 1, 10_000_000, Consequence.OVERLOADED, "waiting polls")
    """Each is an object and an open call.  The last places are rationed, so that new connections find one."""

    sessions: int = _peer(50_000, Unit.COUNT, 1, 10_000_000, Consequence.OVERLOADED, "sessions of workers")
    """Each is an object while it is attached or has leases."""

    leased_items: int = _peer(1_000_000, Unit.COUNT, 1, 100_000_000, Consequence.OVERLOADED, "leased items")
    """Each occupies memory until it is removed or its lease ends."""

    queues: int = _peer(1_000_000, Unit.COUNT, 1, 10_000_000, Consequence.OVERLOADED, "queues that hold or held items")
    """Each occupies memory for the lifetime of the data directory."""

    # The server itself

    window_bytes: int = 64 * MIB
    """Memory for items at the heads of all queues together."""

    queue_window_bytes: int = 16 * MIB
    """Memory for items at the head of one queue.  Dropping a tail sorts them, which must be quick."""

    item_overhead: int = 512
    """Memory of an item in addition to its contents, bytes."""

    refill_items: int = 1_000
    """Most rows that one refill of a window reads, so that a scan holds the interpreter for milliseconds only."""

    refill_bytes: int = 4 * MIB
    """Most contents that one refill reads, after at least one row."""

    expiry_slice: int = 500
    """Rows of expired leases that one slice reads and moves.  Polls are served between slices."""

    commit_rows: int = 20_000
    """Most rows of one commit, after at least one plan."""

    commit_bytes: int = 4 * MIB
    """Most contents of one commit, after at least one plan: the engine holds the interpreter while it copies them."""

    @property
    def connection(self) -> ConnectionLimits:
        """The limits of each connection."""
        return ConnectionLimits(*(getattr(self, name) for name in ConnectionLimits._fields))

    def conflicts(self) -> Iterator[str]:
        """Yield a sentence for each limit that another makes impossible to reach.  They are named as options."""
        shown = {}
        for limit in PEER_LIMITS:
            value = quantity(getattr(self, limit.name), limit.unit)
            shown[limit.name] = f"--limit-{limit.name.replace('_', '-')} ({value})"
        frame, contents = shown["frame_bytes"], shown["contents_bytes"]
        add, poll = shown["add_bytes"], shown["poll_bytes"]
        if self.contents_bytes > self.add_bytes:
            yield f"{contents} is larger than {add}: no add could hold it"
        if self.contents_bytes > self.poll_bytes:
            yield f"{contents} is larger than {poll}: no poll could return it"
        largest = self.add_bytes + self.items_per_add * _ITEM_ENVELOPE_BYTES + _ENVELOPE_BYTES
        if largest > self.frame_bytes:
            yield f"{frame} is smaller than the largest add by {add} and {shown['items_per_add']}, {largest:,} bytes"
        largest = self.poll_bytes + self.poll_items * _ITEM_ENVELOPE_BYTES + _ENVELOPE_BYTES
        if largest > self.frame_bytes:
            reply = f"the largest poll's reply by {poll} and {shown['poll_items']}"
            yield f"{frame} is smaller than {reply}, {largest:,} bytes"
        if self.frame_bytes > self.buffered_bytes:
            yield f"{frame} is larger than {shown['buffered_bytes']}: a message of that size could not be received"


PEER_LIMITS = tuple(PeerLimit(each.name, *each.metadata["peer"]) for each in fields(Limits) if "peer" in each.metadata)
"""All limits on peers, in the order of the table in the docs."""

DEFAULTS = Limits()
