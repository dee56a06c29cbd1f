# ruff: noqa: RUF009  (a call makes each field, as attrs has it)
"""
Every bound Queueber puts on its peers and on itself, with its reason.

What can never fit is `failed`, what passes with time is `overloaded`, and what
makes a byte stream untrustworthy ends its connection.  A limit on peers is an
option of the server, a counter, and a row of the table in
``docs/protocol.md``; all of that is made from, or held against, `PEER_LIMITS`.
"""

from enum import StrEnum
from typing import Any

from attrs import field, fields, frozen

from queueber.units import DAY, GIB, KIB, MIB, SECOND, YEAR, SpanMs, Unit, quantity

# A frame carries one call or one return.  The C++ and Go libraries refuse more
# than 64 MiB by default; a quarter of that is ample for a work queue and keeps
# one hostile peer from holding much memory.
FRAME_BYTES_MAX = 16 * MIB

QUEUE_NAME_BYTES_MAX = 255

# Transforms walk from a result to a capability in it.  Ours lie one field deep.
TRANSFORM_OPS_MAX = 16

# A server follows only pointers that its schema knows, and no message of that schema is a tenth as deep.  It bounds
# generic readers.
POINTER_DEPTH_MAX = 64

# What the RPC headers and pointers around the items of a message may take.
_ENVELOPE_BYTES = 4 * KIB
_ITEM_ENVELOPE_BYTES = 64


class Beyond(StrEnum):
    """What happens to whoever goes beyond a limit."""

    ABORT = "abort"
    """The connection ends: its stream cannot be trusted, or its peer does not get on."""

    FAILED = "failed"
    """The call ends with that exception: it can never fit."""

    OVERLOADED = "overloaded"
    """The call ends with that exception: it may fit later."""

    CLAMPED = "clamped"
    """The limit is taken in place of what was asked for."""

    FEWER = "fewer items, at least one"
    """The reply holds less than was asked for."""

    PAUSED = "not read, its polls wait"
    """Nothing more is read from the peer, and none of its waiting polls is served, until it has caught up."""

    REFUSED = "closed at once"
    """A connection is closed as soon as it was made."""


@frozen
class PeerLimit:
    """What there is to know about one limit on peers, beside its reason."""

    name: str
    default: int
    unit: Unit
    low: int
    high: int
    beyond: Beyond
    says: str
    """What is limited, to follow the figure."""

    zero: str | None = None
    """What 0 means, where it is allowed."""

    @property
    def figure(self) -> str:
        """The default, for a person."""
        return self.zero if self.default == 0 and self.zero else quantity(self.default, self.unit)


def _peer(default: int, unit: Unit, low: int, high: int, beyond: Beyond, says: str, zero: str | None = None) -> Any:  # noqa: ANN401
    return field(default=default, metadata={"peer": (default, unit, low, high, beyond, says, zero)})


class UnusableLimits(ValueError):
    """Limits that contradict each other, or one out of its range."""


@frozen(kw_only=True)
class Limits:
    """
    The bounds a server runs with.  A figure of 0 stands for no limit where that is allowed.

    Raises:
        UnusableLimits: from `check`.
    """

    # One message

    frame_bytes: int = _peer(
        FRAME_BYTES_MAX, Unit.BYTES, 64 * KIB, GIB, Beyond.ABORT, "in a message, its table included"
    )
    """Checked when the table has come, before the body is waited for."""

    segments: int = _peer(512, Unit.COUNT, 1, 65_536, Beyond.ABORT, "in a message")
    """What C++ accepts in one stream message; Go stops one later."""

    traversal_factor: int = _peer(2, Unit.COUNT, 1, 64, Beyond.ABORT, "times a message's length may be read out of it")
    """What aliased pointers can cost."""

    # One call

    items_per_add: int = _peer(1_000, Unit.COUNT, 1, 10_000, Beyond.FAILED, "items in an add")
    """Checked before the list is walked: a million items of no size fit in 32 bytes."""

    contents_bytes: int = _peer(8 * MIB, Unit.BYTES, 1, GIB, Beyond.FAILED, "in an item's contents")
    """A call with the largest item still needs room for pointers and RPC headers."""

    add_bytes: int = _peer(15 * MIB, Unit.BYTES, 1, GIB, Beyond.FAILED, "of contents in an add")
    """So that what fits these fits a frame."""

    poll_items: int = _peer(1_000, Unit.COUNT, 1, 10_000, Beyond.CLAMPED, "items in a poll's reply")
    """So that one poll's lease is one record of moderate size."""

    poll_bytes: int = _peer(15 * MIB, Unit.BYTES, 1, GIB, Beyond.FEWER, "of contents in a poll's reply")
    """So that every client can read it.  One item always fits."""

    lease_ms: SpanMs = _peer(SpanMs(7 * DAY), Unit.MS, 1, SpanMs(10 * YEAR), Beyond.FAILED, "that a lease may last")
    """A lost worker's items are not lost for longer."""

    delay_ms: SpanMs = _peer(
        SpanMs(10 * YEAR), Unit.MS, 0, SpanMs(100 * YEAR), Beyond.FAILED, "of an item's delay", "none"
    )
    """Sums of points and spans stay far from the ends of 64 bits."""

    wait_ms: SpanMs = _peer(SpanMs(10 * YEAR), Unit.MS, 1, SpanMs(100 * YEAR), Beyond.CLAMPED, "that a poll may wait")
    """Which no process outlives; a poll without a time-out waits for ever all the same."""

    # One connection

    outstanding_calls: int = _peer(
        1_024, Unit.COUNT, 1, 1_000_000, Beyond.OVERLOADED, "unanswered calls of a connection"
    )
    """Reading goes on: the Finish that would free one must get in."""

    open_answers: int = _peer(
        100_000, Unit.COUNT, 1, 10_000_000, Beyond.ABORT, "answers of a connection, returned and not finished"
    )
    """Peers that collect garbage late leave thousands open; one that never sends Finish must cost megabytes at most."""

    exports: int = _peer(10_000, Unit.COUNT, 1, 1_000_000, Beyond.OVERLOADED, "capabilities of a connection")
    """Queues that one peer has asked for by name."""

    request_bytes: int = _peer(
        16 * MIB,
        Unit.BYTES,
        1,
        GIB,
        Beyond.OVERLOADED,
        "in adds and extends of a connection that wait for the disk",
    )
    """One peer's share of what a slow disk makes everybody wait for.  One message always fits."""

    unsent_bytes: int = _peer(8 * MIB, Unit.BYTES, 64 * KIB, GIB, Beyond.PAUSED, "of replies that a peer has not taken")
    """Asking for ever more than one takes must not fill our memory."""

    first_message_ms: SpanMs = _peer(
        SpanMs(10 * SECOND), Unit.MS, 1, DAY, Beyond.ABORT, "until a connection's first message has come whole"
    )
    """Real clients speak first and at once.  A TLS handshake is part of it."""

    stalled_message_ms: SpanMs = _peer(
        SpanMs(30 * SECOND), Unit.MS, 1, DAY, Beyond.ABORT, "without a byte of a message that has begun"
    )
    """Half a message holds memory and can only end in silence."""

    stalled_replies_ms: SpanMs = _peer(
        SpanMs(30 * SECOND), Unit.MS, 1, DAY, Beyond.ABORT, "in which a peer takes none of the replies it has waiting"
    )
    """Also for a connection that is being closed."""

    idle_ms: SpanMs = _peer(
        SpanMs(0), Unit.MS, 0, YEAR, Beyond.ABORT, "without a byte and without a call under way", "unlimited"
    )
    """Off: a worker may well have nothing to say for days, and TCP's own keepalive finds the dead."""

    # All connections

    connections: int = _peer(10_000, Unit.COUNT, 1, 1_000_000, Beyond.REFUSED, "connections")
    """Before it counts against a newcomer, one that has not spoken yet makes room, or one that is idle."""

    connections_per_peer: int = _peer(
        0, Unit.COUNT, 0, 1_000_000, Beyond.REFUSED, "connections from one address", "unlimited"
    )
    """Off: whole clusters come from behind one address."""

    handshakes: int = _peer(1_000, Unit.COUNT, 1, 1_000_000, Beyond.ABORT, "TLS handshakes that are not finished")
    """Each costs 75 KiB.  It is the oldest that ends."""

    pending_bytes: int = _peer(
        256 * MIB, Unit.BYTES, MIB, 64 * GIB, Beyond.OVERLOADED, "in all calls that wait for the disk"
    )
    """What a disk that stands still may cost: contents, rows of 512 bytes, and 640 a call, be there rows or not."""

    buffered_bytes: int = _peer(
        256 * MIB,
        Unit.BYTES,
        MIB,
        64 * GIB,
        Beyond.ABORT,
        "of messages begun and replies not taken, in all",
    )
    """Those end that held the most of it over the last minute, but nobody with no more than an even share."""

    waiting_polls: int = _peer(50_000, Unit.COUNT, 1, 10_000_000, Beyond.OVERLOADED, "polls that wait")
    """Each is an object and a call that is open.  The last places are shared out, so that those who come find one."""

    leased_items: int = _peer(1_000_000, Unit.COUNT, 1, 100_000_000, Beyond.OVERLOADED, "items under lease")
    """Each costs memory until it is removed or its lease ends."""

    queues: int = _peer(1_000_000, Unit.COUNT, 1, 10_000_000, Beyond.OVERLOADED, "queues that hold or held items")
    """Each costs memory for good."""

    # The server itself

    window_bytes: int = 64 * MIB
    """Items kept in memory at the heads of all queues together."""

    queue_window_bytes: int = 16 * MIB
    """The same at the head of one queue: dropping a tail sorts what is there, which must not take long."""

    item_overhead: int = 512
    """What an item in memory costs beside its contents, bytes."""

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

    def check(self) -> None:
        """
        See to it that each peer limit is in its range, and that what one allows another does not make impossible.

        Raises:
            UnusableLimits: naming all limits that are not.
        """
        wrong = self.complaints()
        if wrong:
            raise UnusableLimits("; ".join(reason for _, reason in wrong))

    def complaints(self) -> list[tuple[tuple[str, ...], str]]:
        """What `check` objects to: the names of the limits concerned, and the reason, which names them too."""
        wrong: list[tuple[tuple[str, ...], str]] = [
            (
                (limit.name,),
                f"{limit.name} is {getattr(self, limit.name):,}; it must be {limit.low:,} to {limit.high:,}",
            )
            for limit in PEER_LIMITS
            if not limit.low <= getattr(self, limit.name) <= limit.high
        ]
        figures = {limit.name: quantity(getattr(self, limit.name), limit.unit) for limit in PEER_LIMITS}
        add = self.add_bytes + self.items_per_add * _ITEM_ENVELOPE_BYTES + _ENVELOPE_BYTES
        poll = self.poll_bytes + self.poll_items * _ITEM_ENVELOPE_BYTES + _ENVELOPE_BYTES
        for holds, names, reason in (
            (
                self.contents_bytes <= self.add_bytes,
                ("contents_bytes", "add_bytes"),
                "{} is larger than {}: no add could hold it",
            ),
            (
                self.contents_bytes <= self.poll_bytes,
                ("contents_bytes", "poll_bytes"),
                "{} is larger than {}: no poll could get it",
            ),
            (
                add <= self.frame_bytes,
                ("frame_bytes", "add_bytes", "items_per_add"),
                f"{{}} is smaller than the largest add by {{}} and {{}}, {add:,} bytes",
            ),
            (
                poll <= self.frame_bytes,
                ("frame_bytes", "poll_bytes", "poll_items"),
                f"{{}} is smaller than the largest poll's reply by {{}} and {{}}, {poll:,} bytes",
            ),
            (
                self.frame_bytes <= self.buffered_bytes,
                ("frame_bytes", "buffered_bytes"),
                "{} is larger than {}: a message of that size could not be taken in",
            ),
        ):
            if not holds:
                wrong.append((names, reason.format(*(f"{name} ({figures[name]})" for name in names))))
        return wrong


PEER_LIMITS = tuple(PeerLimit(each.name, *each.metadata["peer"]) for each in fields(Limits) if "peer" in each.metadata)
"""All limits on peers, in the order of their table."""


@frozen
class FixedLimit:
    """A limit on peers that is none of `Limits`: a row of the same table."""

    name: str
    figure: str
    says: str
    beyond: Beyond
    why: str
    """Why it is where it is."""


FIXED_LIMITS = (
    FixedLimit(
        "free_space_reserve",
        "1 GiB, or 1/10 of a smaller disk",
        "free on the disk",
        Beyond.OVERLOADED,
        "the option --free-space-reserve: it is about the disk and not about peers, who meet it all the same",
    ),
    FixedLimit(
        "pointer_depth",
        f"{POINTER_DEPTH_MAX}",
        "pointers below each other in a message",
        Beyond.ABORT,
        "no option: only pointers that the schema knows are followed, and none of its messages is a tenth as deep",
    ),
    FixedLimit(
        "queue_name_bytes",
        f"{QUEUE_NAME_BYTES_MAX}",
        "bytes of UTF-8 in a queue's name, and at least 1",
        Beyond.FAILED,
        "no option: names are part of keys on the disk",
    ),
    FixedLimit(
        "transform_ops",
        f"{TRANSFORM_OPS_MAX}",
        "steps of a transform",
        Beyond.FAILED,
        "no option: what Queueber returns has capabilities one step deep",
    ),
)

DEFAULTS = Limits()
DEFAULTS.check()
