"""
All connections of a server and their common limits.

`Connections` decides whether one more connection is accepted, and holds the
timers, the memory budget and the TLS handshakes of all of them, the counts of
limit hits, and the log lines about peers with their rate limit.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from heapq import nsmallest
from typing import Any, Final, Protocol

from attrs import define, field
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber.broker import Peer
from queueber.errors import tls_reason
from queueber.limits import Limits
from queueber.rpc import ConnectionStats
from queueber.server.core.log_rate_limit import LogRateLimiter
from queueber.server.net.handshakes import HANDSHAKES, Handshakes
from queueber.server.net.listeners import address_text
from queueber.server.net.memory_budget import Holder, MemoryBudget
from queueber.server.net.states import ConnectionState
from queueber.server.net.timeouts import FIRST_MESSAGE, PeerTimeouts, TimedPeer
from queueber.units import counted

EVICTABLE_SECONDS: Final = 1.0
"""A connection that was active within this time is not evicted for a new one."""

SEARCH_SECONDS: Final = 0.25
"""The least time between two searches for idle connections, so that a new connection does not cost one."""

CANDIDATES: Final = 100
"""The idle connections that one search finds at most."""


class PeerConnection(TimedPeer, Holder, Protocol):
    """A connection, seen from the rest of the server."""

    host: str | None
    """The peer's host, if it has one."""

    address: str
    """The peer's address as text."""

    peer: Peer
    """Number of the connection since the start of the server."""

    @property
    def idle_since(self) -> float | None:
        """Time of the latest read or reply; None while a call, a message or a reply is under way, or at the end."""

    @property
    def held_bytes(self) -> int:
        """Bytes held for the peer: incomplete messages, unprocessed bytes, replies it has not taken, and tables."""

    @property
    def state(self) -> ConnectionState:
        """Where the connection is in its life."""

    def usage(self) -> ConnectionStats:
        """Return the sizes of the connection's tables."""

    def close(self) -> None:
        """Send the replies so far, then close the connection, as soon as the peer takes them."""

    def abort(self) -> None:
        """Close the connection at once, whatever the peer has not taken."""


@define(eq=False)
class Connections:
    """The open connections."""

    _limits: Limits
    seconds: Callable[[], float]
    limit_hits: Counter[str]
    """The number of hits of each limit on peers, by its name."""

    _call_later: Callable[..., Any]
    memory: MemoryBudget = field(init=False)
    handshakes: Handshakes = field(init=False)
    timeouts: PeerTimeouts[PeerConnection] = field(init=False)
    _rate_limiter: LogRateLimiter = field(init=False)
    _writers: dict[str, Callable[..., None]] = field(factory=dict, init=False)
    """The log method, and so the level, of each kind of line."""

    accepted: int = field(default=0, init=False)
    """Connections accepted since the start."""

    _all: dict[PeerConnection, float] = field(factory=dict, init=False)
    """The time at which each was accepted."""

    _from_host: Counter[str | None] = field(factory=Counter, init=False)
    _idle: deque[tuple[PeerConnection, float]] = field(factory=deque, init=False)
    """The idle connections that the latest search found, longest idle first."""

    _searched: float | None = field(default=None, init=False)
    """Time of the latest search."""

    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Make the parts that all connections share."""
        self.memory = MemoryBudget(self._limits.buffered_bytes, self.seconds, lambda: len(self._all))
        self.handshakes = Handshakes(self._limits, self.seconds, self._call_later, self.room)
        self.timeouts = PeerTimeouts(self.seconds, self._limits)
        self._rate_limiter = LogRateLimiter(self.seconds)

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[PeerConnection]:
        return iter(list(self._all))

    @property
    def hosts(self) -> int:
        """The number of hosts that the connections come from."""
        return len(self._from_host)

    def addresses(self) -> dict[Peer, str]:
        """Return the addresses of the peers, by their numbers."""
        return {each.peer: each.address for each in self._all}

    def room(self) -> int:
        """Return how many more connections are within the limit."""
        return self._limits.connections - len(self._all)

    def admit(self, host: str | None) -> bool:
        """
        Return whether one more connection, from *host*, is accepted.

        At the limit, it replaces the connection that has sent no message for
        longest, or else one that is idle.
        """
        each = self._limits.connections_per_peer
        if each and host is not None and self._from_host[host] >= each:
            self._refuse(host, "connections_per_peer", each)
            return False
        if self.room() > 0:
            return True
        silent = self.timeouts.oldest(FIRST_MESSAGE)
        if silent is not None:
            self.count_hit("connections")
            self.timeouts.clear_all(silent)
            silent.abort()
            return True
        idle = self._longest_idle()
        if idle is None:
            self._refuse(host, "connections", self._limits.connections)
            return False
        reason = "it has been idle for longest, and there are as many connections as there may be (connections)"
        idle.evict("connections", reason)
        return True

    def _longest_idle(self) -> PeerConnection | None:
        """Return the connection that has been idle for longest, from the host that has most connections."""
        now = self.seconds()
        if not self._idle and (self._searched is None or now - self._searched >= SEARCH_SECONDS):
            self._searched = now
            ((most, _),) = self._from_host.most_common(1)
            idle = [
                (connection, since)
                for connection in self._all
                if connection.host == most
                and (since := connection.idle_since) is not None
                and now - since >= EVICTABLE_SECONDS
            ]
            self._idle.extend(nsmallest(CANDIDATES, idle, key=lambda each: each[1]))
        while self._idle:
            connection, since = self._idle.popleft()
            if connection in self._all and connection.idle_since == since:
                return connection
        return None

    def _refuse(self, host: str | None, limit: str, value: int) -> None:
        self.count_hit(limit)
        self.warn(host, "Refusing a connection of {host}: there are {value} ({limit})", value=value, limit=limit)

    def add(self, connection: PeerConnection) -> None:
        """Add a connection that was accepted."""
        self.accepted += 1
        self._all[connection] = self.seconds()
        self._from_host[connection.host] += 1

    def age(self, connection: PeerConnection) -> float:
        """Return the seconds since *connection* was accepted."""
        return self.seconds() - self._all[connection]

    def count_hit(self, limit: str | None) -> None:
        """Count a hit of *limit*; None counts nothing."""
        if limit is not None:
            self.limit_hits[limit] += 1

    def handshake_abandoned(self, peer: object, limit: str) -> None:
        """Count and log that a TLS handshake was abandoned because of *limit*."""
        self.count_hit(limit)
        most = getattr(self._limits, limit)
        why = f"it was the oldest of {most:,}" if limit == HANDSHAKES else f"it is not finished after {most:,} ms"
        line = "Giving up the TLS handshake of {host}: {why} ({limit})"
        self.warn(getattr(peer, "host", None), line, why=why, limit=limit)

    def warn(self, host: str | None, line: str, **fields: object) -> None:
        """Log *line* as a warning, at most once a second for each *host*."""
        self._write(self.log.warn, host, line, fields)

    def debug(self, host: str | None, line: str, **fields: object) -> None:
        """Log *line* at level debug, with the same rate limit, because twistd writes lines of all levels."""
        self._write(self.log.debug, host, line, fields)

    def info(self, host: str | None, line: str, **fields: object) -> None:
        """Log *line* at level info, with the same rate limit."""
        self._write(self.log.info, host, line, fields)

    def log_loss(self, host: str | None, peer: IAddress, reason: Failure, *, unused: bool) -> None:
        """Log that a connection was lost, unless the peer closed it.  *unused*: it has brought nothing."""
        refused = tls_reason(reason.value) if unused else None
        if refused is not None:
            self.warn(host, "No TLS with {peer}: {why}", peer=peer, why=refused)
        elif reason.check(ConnectionDone) is None:
            self.debug(host, "Lost the connection of {host}: {why}", why=reason.getErrorMessage())

    def _write(self, writer: Callable[..., None], host: str | None, line: str, fields: dict[str, object]) -> None:
        self._writers[line] = writer
        more = self._rate_limiter.passes(host, line)
        if more is not None:
            if IAddress.providedBy(fields.get("peer")):
                fields["peer"] = address_text(fields["peer"])
            # Text from the peer could break lines or control the terminal.
            text = "".join(each if each.isprintable() else "?" for each in line.format(host=host, **fields))
            writer("{line}{more}", line=text, more=more)

    def log_left_out(self) -> None:
        """Log the numbers of lines that were left out and that no later line reports.  Call this every second."""
        for each in self._rate_limiter.expire():
            text = "{lines} of {of} {were} left out: {kind}"
            lines, were = counted(each.number, "line"), "was" if each.number == 1 else "were"
            self._writers[each.kind](text, lines=lines, were=were, number=each.number, of=each.of, kind=each.kind)

    def remove(self, connection: PeerConnection) -> None:
        """Remove a connection that was lost."""
        del self._all[connection]
        self.timeouts.clear_all(connection)
        self.memory.update(connection, 0)
        host = connection.host
        self._from_host[host] -= 1
        if not self._from_host[host]:
            del self._from_host[host]
