"""The lengths of messages that a client and its server accept."""

from queueber import api
from queueber.client_core.arguments import (
    CALL_OVERHEAD_BYTES,
    FROM_ARGUMENT,
    FROM_DEFAULT,
    FROM_SERVER,
    call_too_long,
)
from queueber.errors import QueueberError, Unimplemented
from queueber.fixed_limits import FRAME_BYTES_LOWEST, FRAME_BYTES_MAX


class MessageLimits:
    """
    The longest messages that the client and its server accept, on one connection.

    Every server accepts `FRAME_BYTES_LOWEST`.  Before the first longer call the
    server is asked for its limit, and `answered` takes the answer.
    """

    def __init__(self, own: int | None) -> None:
        """*own* is the client's limit in bytes, or None for the server's."""
        self.own = own
        self.short = min(own or FRAME_BYTES_LOWEST, FRAME_BYTES_LOWEST) - CALL_OVERHEAD_BYTES
        """The longest content of a call that both are known to accept."""

        self._server: int | None = None
        self._server_source = FROM_SERVER

    def must_ask(self, length: int) -> bool:
        """
        Return whether the server's limit must be known before a call with *length* bytes of content.

        Raises:
            InvalidRequest: the call exceeds the client's own limit.
        """
        message = length + CALL_OVERHEAD_BYTES
        if self.own is not None and message > self.own:
            raise call_too_long(length, self.own, FROM_ARGUMENT)
        return self._server is None and message > FRAME_BYTES_LOWEST

    def check(self, length: int) -> None:
        """
        Check a call with *length* bytes of content against the server's limit, as far as that is known.

        Raises:
            InvalidRequest: the call exceeds the limit.
        """
        if self._server is not None and length + CALL_OVERHEAD_BYTES > self._server:
            raise call_too_long(length, self._server, self._server_source)

    def answered(self, outcome: api.ServerLimits | QueueberError) -> None:
        """Use the server's limits, or assume the default: the server is too old, or has no room for the question."""
        if isinstance(outcome, QueueberError):
            self._server, self._server_source = self.own or FRAME_BYTES_MAX, FROM_DEFAULT
        else:
            self._server, self._server_source = outcome.frame_bytes, FROM_SERVER

    def forget(self, outcome: api.ServerLimits | QueueberError) -> None:
        """Ask again for the next long call, if *outcome* was an error that passes."""
        if isinstance(outcome, QueueberError) and not isinstance(outcome, Unimplemented):
            self._server = None
