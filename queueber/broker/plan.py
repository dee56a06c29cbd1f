"""
What one call will do, decided but not yet done.

Memory advances when a plan is made, so nothing may fail between the first
mutation and the plan: an exception out of the broker is a bug and ends the
process, as a failed write does.  Nothing may see the reply until the writes,
and those of every plan made before, are durable: a crash in between must look
to the client like a call that never arrived.  That holds for a plan without
writes too, since its reply may tell of something that is not on disk yet.
"""

from typing import Generic, TypeVar

from attrs import define

from queueber.broker.model import QueueRecord
from queueber.broker.port import Write

T_co = TypeVar("T_co", covariant=True)


@define(eq=False)
class Plan(Generic[T_co]):
    """Writes, and the reply that may be given once they are durable."""

    writes: list[Write]
    """In the order in which they apply; no plan's are ever split over two commits."""

    record: QueueRecord | None
    """The queue's row after this plan; of all the plans in one commit only the last need be written."""

    reply: T_co

    size: int = 0
    """Contents among the writes, bytes."""
