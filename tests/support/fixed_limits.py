"""The limits on peers that are not options of `Limits`, for the table in ``docs/protocol.md``."""

from attrs import frozen

from queueber.limits import POINTER_DEPTH_MAX, QUEUE_NAME_BYTES_MAX, TRANSFORM_OPS_MAX, Consequence


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
)
