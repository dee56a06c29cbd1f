"""The plans of one commit."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from queueber.broker import Plan, Write
from queueber.broker.model import LeaseId
from queueber.broker.storage import PutLease

Reply: TypeAlias = tuple[Plan[Any], Callable[[Any], None]]
"""A plan, and the callback that takes its reply."""


class Batch(NamedTuple):
    """The plans of one commit."""

    replies: list[Reply]
    plans: list[Plan[Any]]
    """The plans with writes."""

    writes: list[Write]
    rows: int
    """Rows of items and leases among *writes*."""

    bytes: int
    """Contents among *writes*."""


def only_leases(writes: Sequence[Write]) -> dict[LeaseId, PutLease] | None:
    """Return the leases' records if *writes* are nothing else, as those of an extend or a claim; None otherwise."""
    leases: dict[LeaseId, PutLease] = {}
    for write in writes:
        if type(write) is not PutLease or write.id in leases:
            return None
        leases[write.id] = write
    return leases
