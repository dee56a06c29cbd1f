"""How long messages may be, and what becomes of what is longer."""

from typing import Final

from queueber.errors import InvalidRequest
from queueber.limits import PEER_LIMITS
from queueber.units import SpanMs

CALL_OVERHEAD_BYTES: Final = 1_024
"""The most that a call's message holds next to its content."""

SURE_BYTES: Final = next(limit.low for limit in PEER_LIMITS if limit.name == "frame_bytes")
"""A message that every server takes, however it is configured."""

FROM_ARGUMENT: Final = "set by the argument limits of connect"
FROM_SERVER: Final = "set by the server's option --limit-frame-bytes"
FROM_DEFAULT: Final = (
    "by default: this server does not say what it takes; if that is more, connect needs limits of its own"
)
"""Where the limit of a message comes from."""

GIVE_BACK_MS: Final = SpanMs(1)
"""The shortest span: `extend` by it ends a lease, so that its items go to the next worker."""


def too_long(length: int, frame_bytes: int, by: str) -> InvalidRequest:
    """The error for a call with so many bytes of content."""
    limit = frame_bytes - CALL_OVERHEAD_BYTES
    return InvalidRequest(f"the call is {length:,} bytes; the limit is {limit:,}, {by}", limit="frame_bytes")
