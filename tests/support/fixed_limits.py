"""The limits on peers that are not options of `Limits`, for the table in ``docs/protocol.md``."""

from attrs import frozen

from queueber.fixed_limits import (
    DEDUP_KEY_BYTES_MAX,
    ERROR_BYTES_MAX,
    HEADER_BYTES_MAX,
    HEADER_NAME_BYTES_MAX,
    HEADERS_MAX,
    LABEL_BYTES_MAX,
    LABELS_MAX,
    LISTED_MAX,
    POINTER_DEPTH_MAX,
    POLL_ANY_QUEUES_MAX,
    QUEUE_NAME_BYTES_MAX,
    SETTLEMENTS_MAX,
    TRANSFORM_OPS_MAX,
    WEIGHT_MAX,
)
from queueber.limits import Consequence
from queueber.units import Unit, quantity


@frozen
class FixedLimit:
    """A limit on peers that is not in `Limits` and has a row in the same table."""

    name: str
    figure: str
    description: str
    consequence: Consequence
    why: str
    """Why it is not one of `Limits`."""


FIXED_LIMITS = (
    FixedLimit(
        "free_space_reserve",
        "1 GiB, or 1/10 of a smaller disk",
        "free space on the disk",
        Consequence.OVERLOADED,
        "the option --free-space-reserve: it is a property of the disk, not of peers, although their adds are refused",
    ),
    FixedLimit(
        "pointer_depth",
        f"{POINTER_DEPTH_MAX}",
        "nested pointers in a message",
        Consequence.ABORT,
        "no option: only pointers in the schema are followed, and none of its messages is a tenth as deep",
    ),
    FixedLimit(
        "queue_name_bytes",
        f"{QUEUE_NAME_BYTES_MAX}",
        "bytes of UTF-8 in a queue's name, at least 1",
        Consequence.FAILED,
        "no option: names are part of keys on the disk",
    ),
    FixedLimit(
        "transform_ops",
        f"{TRANSFORM_OPS_MAX}",
        "steps of a transform",
        Consequence.FAILED,
        "no option: in Queueber's results capabilities are one step deep",
    ),
    FixedLimit(
        "headers",
        f"{HEADERS_MAX}",
        "headers of an item",
        Consequence.FAILED,
        "no option: what pointers add to short headers is bounded by their number",
    ),
    FixedLimit(
        "header_bytes",
        quantity(HEADER_BYTES_MAX, Unit.BYTES),
        f"names, of 1 to {HEADER_NAME_BYTES_MAX} bytes each, and values of an item's headers",
        Consequence.FAILED,
        "no option: larger values belong into the contents",
    ),
    FixedLimit(
        "dedup_key_bytes",
        f"{DEDUP_KEY_BYTES_MAX}",
        "bytes of an item's deduplication key",
        Consequence.FAILED,
        "no option: a digest serves where keys are longer",
    ),
    FixedLimit(
        "error_bytes",
        quantity(ERROR_BYTES_MAX, Unit.BYTES),
        "error of a settlement",
        Consequence.FAILED,
        "no option: it is kept with the item, and meant for people",
    ),
    FixedLimit(
        "settlements",
        f"{SETTLEMENTS_MAX:,}",
        "entries of a settle",
        Consequence.FAILED,
        "no option: bounds the plan of one call",
    ),
    FixedLimit(
        "poll_any_queues",
        f"{POLL_ANY_QUEUES_MAX}",
        f"queues of a `pollAny`, with weights of 1 to {WEIGHT_MAX:,}",
        Consequence.FAILED,
        "no option: each is a place in which the poll waits",
    ),
    FixedLimit(
        "labels",
        f"{LABELS_MAX}",
        f"labels of a queue, with names and values of at most {LABEL_BYTES_MAX} bytes",
        Consequence.FAILED,
        "no option: labels are for lists of queues",
    ),
    FixedLimit(
        "listed",
        f"{LISTED_MAX:,}",
        "queues, items or leases in a reply that lists them",
        Consequence.CLAMPED,
        "no option: the rest is had with the next call",
    ),
)
