"""Refusals of calls, and the bytes that the calls of each connection hold until they are answered."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from attrs import define, field

from queueber import rpc
from queueber.broker import Peer, Waiter
from queueber.errors import Kind, Overloaded, QueueberError
from queueber.limits import Limits
from queueber.server.core.stats import CallStats
from queueber.units import counted


class ReplySink(Protocol):
    """The connection that takes the replies of its calls."""

    peer: Peer
    """The connection's number, never reused."""

    def results(self, answers: Sequence[rpc.AnswerId], contents: Sequence[bytes]) -> None:
        """Return one of *contents* for each of *answers*."""

    def capabilities(self, answer: rpc.AnswerId, content: bytes, objects: Sequence[object]) -> None:
        """Return *content*, whose capability pointers are indices into *objects*."""

    def error(self, answer: rpc.AnswerId, kind: Kind, reason: str) -> None:
        """Return an exception."""

    def canceled(self, answer: rpc.AnswerId) -> None:
        """Return that the call was cancelled."""

    def waits(self, answer: rpc.AnswerId, waiter: Waiter) -> None:
        """Note that the call is a waiting poll, until it is returned."""

    def keep_session(self, on_loss: Callable[[], None]) -> None:
        """Call *on_loss* when the connection is lost, as one is that brings nothing for `session_silence_ms`."""

    def supersede(self) -> None:
        """Close the connection, because its session was attached over another one."""


Handler: TypeAlias = Callable[[ReplySink, Any, rpc.Calls], None]
"""
Carries out calls of one method of one object.

It may raise a `QueueberError` before anything is changed, which refuses all the calls, and `RemoteProtocolError` if the
parameters cannot be read.
"""

Methods: TypeAlias = Mapping[tuple[int, int], Handler]
"""Handlers by the interface and the number of their method."""


@define(eq=False)
class Replies:
    """Counts calls by method and outcome, and the bytes that the calls of each connection hold."""

    _limits: Limits
    _limit_hits: Counter[str]
    stats: CallStats = field(factory=CallStats)
    request_bytes: dict[Peer, int] = field(factory=dict, init=False)
    """Bytes of calls that wait for a commit, of each connection that has such calls."""

    def refuse(self, sink: ReplySink, answer: rpc.AnswerId, why: QueueberError, method: str) -> None:
        """Return *why* as the outcome of a call."""
        self.stats.refused[method, why.kind] += 1
        if why.limit is not None:
            self._limit_hits[why.limit] += 1
        sink.error(answer, why.kind, str(why))

    def charge(self, peer: Peer, size: int) -> None:
        """
        Count *size* for a call of *peer* until `release`.

        Raises:
            Overloaded: with the calls of the connection that wait already, it is too much.  One call always fits.
        """
        self.require_room(peer, size)
        if size:
            self.request_bytes[peer] = self.request_bytes.get(peer, 0) + size

    def has_room(self, peer: Peer, size: int) -> bool:
        """Whether a call of *peer* may count *size* with those that wait already.  One call always fits."""
        waiting = self.request_bytes.get(peer, 0)
        return not waiting or waiting + size <= self._limits.request_bytes

    def require_room(self, peer: Peer, size: int) -> None:
        """Raise `Overloaded` if a call of *peer* may not count *size*."""
        if not self.has_room(peer, size):
            raise self._too_much(self.request_bytes[peer] + size)

    def release(self, peer: Peer, size: int) -> None:
        """Count *size* no longer: the call is answered."""
        if size:
            left = self.request_bytes.pop(peer) - size
            if left:
                self.request_bytes[peer] = left

    def _too_much(self, size: int) -> Overloaded:
        """Return the refusal of a call with which the calls of its connection would hold *size* bytes."""
        limit = self._limits.request_bytes
        return Overloaded(
            f"calls of this connection that wait for the disk would be {counted(size, 'byte')};"
            f" the limit is {limit:,} (request_bytes)",
            limit="request_bytes",
        )
