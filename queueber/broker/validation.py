"""What a call may ask for: each function raises `InvalidRequest`, naming field, limit and value, or lets it pass."""

from collections.abc import Sequence

from queueber.broker.model import LeaseId
from queueber.errors import InvalidRequest, too_large
from queueber.limits import ID_BYTES, Limits
from queueber.units import SpanMs, counted


def validate_add(limits: Limits, items: Sequence[tuple[bytes, SpanMs]]) -> int:
    """The size of the contents of all *items*, none of which is too large or delayed for too long."""
    if len(items) > limits.items_per_add:
        raise _above(limits, "items_per_add", "items", len(items), "items")
    total = 0
    for contents, delay in items:
        size = len(contents)
        total += size
        if size > limits.contents_bytes:
            raise _above(limits, "contents_bytes", "contents", size, "bytes")
        if delay > limits.delay_ms:
            raise _above(limits, "delay_ms", "visibilityTimeoutMs", delay, "ms")
    if total > limits.add_bytes:
        raise _above(limits, "add_bytes", "contents of all items", total, "bytes")
    return total


def validate_lease_duration(limits: Limits, lease_duration: SpanMs) -> None:
    """A lease lasts for some time, and not for too long."""
    if lease_duration <= 0:
        raise InvalidRequest("leaseValiditySecs and leaseValidityMs are both 0; a lease must last longer (> 0)")
    if lease_duration > limits.lease_ms:
        raise _above(limits, "lease_ms", "leaseValidityMs", lease_duration, "ms")


def validate_lease_id(lease_id: LeaseId) -> None:
    """A lease is 16 bytes."""
    if len(lease_id) != ID_BYTES:
        raise InvalidRequest(f"lease is {counted(len(lease_id), 'byte')}; it must be {ID_BYTES}")


def _above(limits: Limits, name: str, what: str, value: int, unit: str) -> InvalidRequest:
    return too_large(what, value=value, limit=getattr(limits, name), unit=unit, name=name)
