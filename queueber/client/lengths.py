"""Limits on the length of messages, and the error for a call that is too long."""

from typing import Final

from queueber.errors import InvalidRequest
from queueber.limits import PEER_LIMITS
from queueber.units import SpanMs

CALL_OVERHEAD_BYTES: Final = 1_024
"""Upper bound for a call's message without its content."""

SURE_BYTES: Final = next(limit.low for limit in PEER_LIMITS if limit.name == "frame_bytes")
"""A length that every server accepts in any configuration."""

FROM_ARGUMENT: Final = "set by the argument limits of connect"
FROM_SERVER: Final = "set by the server's option --limit-frame-bytes"
FROM_DEFAULT: Final = "by default: this server does not state its limit; if it is higher, pass limits to connect"
"""Sources of the limit, for error texts."""

GIVE_BACK_MS: Final = SpanMs(1)
"""The shortest span.  `extend` by it ends a lease, so that its items go to the next worker."""


def too_long(length: int, frame_bytes: int, by: str) -> InvalidRequest:
    """Return the error for a call with *length* bytes of content."""
    limit = frame_bytes - CALL_OVERHEAD_BYTES
    return InvalidRequest(f"the call is {length:,} bytes; the limit is {limit:,}, {by}", limit="frame_bytes")
