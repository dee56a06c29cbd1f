"""
Limits that no option changes, with their reasons, and those of one connection.

Clients import this module in place of `queueber.limits`, which has the options of servers.
"""

from typing import NamedTuple

from queueber.units import GIB, KIB, MIB

# A frame carries one call or one return.  The C++ and Go libraries refuse more
# than 64 MiB by default; a quarter of that is ample for a work queue and bounds
# the memory that one hostile peer can occupy.
FRAME_BYTES_MAX = 16 * MIB

FRAME_BYTES_LOWEST = 64 * KIB
FRAME_BYTES_HIGHEST = GIB
"""The least and the most to which a server's limit on the length of a message can be set."""

QUEUE_NAME_BYTES_MAX = 255

ID_BYTES = 16
"""Length of the id of an item or a lease."""

HEADERS_MAX = 64
HEADER_BYTES_MAX = 4 * KIB
"""Names and values of an item's headers together.  Their number bounds what pointers add to them in a reply."""

HEADER_NAME_BYTES_MAX = 255
DEDUP_KEY_BYTES_MAX = 255

ERROR_BYTES_MAX = 4 * KIB
"""The longest error of a settlement, which is kept with the item."""

SETTLEMENTS_MAX = 1_000
"""Bounds the plan of one settle."""

POLL_ANY_QUEUES_MAX = 64
WEIGHT_MAX = 1_000

LABELS_MAX = 16
LABEL_BYTES_MAX = 63
"""The longest name of a label, and the longest value."""

LISTED_MAX = 1_000
"""Bounds the elements of a reply that lists queues, items or leases, and the ids of a redrive."""

ATTACH_BYTES = 256 * KIB
"""Bounds the leases in a response of `attach`, after one lease: a session may have as many as `leased_items`."""

# A transform leads from a result to a capability in it.  In Queueber's results these are one field deep.
TRANSFORM_OPS_MAX = 16

# Bounds generic readers.  A server follows only pointers in its schema, whose messages are not a tenth as deep.
POINTER_DEPTH_MAX = 64


class ConnectionLimits(NamedTuple):
    """
    The limits of one connection, at either end of it.

    Those of a server are options: `queueber.limits.Limits` has the same names, with the reasons.
    """

    frame_bytes: int = FRAME_BYTES_MAX
    segments: int = 512
    traversal_factor: int = 2
    outstanding_calls: int = 1_024
    open_answers: int = 100_000
    exports: int = 10_000


CONNECTION = ConnectionLimits()
"""The defaults."""
