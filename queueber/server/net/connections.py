"""
All connections of a server, and what they may take together.

Who may still connect, how long peers may keep us waiting, how much is held
for them, how often a limit was hit, and what may be written to the log about
it: everything that a single connection cannot know.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from heapq import nsmallest
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from queueber.broker import Peer
from queueber.limits import Limits
from queueber.rpc import ConnectionStats
from queueber.server.net.handshakes import CROWDED, Handshakes
from queueber.server.net.listeners import address_text
from queueber.server.net.log_rate_limit import LogRateLimiter
from queueber.server.net.memory_budget import Holder, MemoryBudget
from queueber.server.net.timeouts import FIRST_MESSAGE, Awaited, PeerTimeouts
from queueber.units import counted

IDLE_SECONDS = 1.0
"""Whoever has been silent for less is at work."""

LOOK_SECONDS = 0.25
"""Between two looks at all connections for those that could give way; a newcomer must not cost one."""

GIVING_WAY = 100
"""Of those as many as one look remembers."""


class Connected(Awaited, Holder, Protocol):
    """A connection, as its server sees it."""

    host: str | None
    """The peer's address, if it has one."""

    peer: Peer
    """Its number."""

    request_bytes: int
    """Length of its adds that wait for the disk."""

    @property
    def idle_since(self) -> float | None:
        """When its peer last said or was told something; None while anything is under way."""

    @property
    def held_bytes(self) -> int:
        """What is held for the peer: of a message that has begun, and of replies that it has not taken."""

    @property
    def paused(self) -> bool:
        """Whether nothing is read from it because it takes no replies."""

    def usage(self) -> ConnectionStats:
        """What the peer's calls take up at the moment."""

    def close(self) -> None:
        """Send what was said, and end it."""

    def give_way(self) -> None:
        """End it for somebody who needs the place more."""

    def cut(self) -> None:
        """End it at once, whatever its peer has not taken."""


@define(eq=False)
class Connections:
    """The connections there are."""

    _limits: Limits
    seconds: Callable[[], float]
    limit_hits: Counter[str]
    """How often each limit on peers was hit, by its name."""

    _call_later: Callable[..., Any]
    """The reactor's."""

    buffers: MemoryBudget = field(init=False)
    handshakes: Handshakes = field(init=False)
    patience: PeerTimeouts[Connected] = field(init=False)
    _throttle: LogRateLimiter = field(init=False)
    _said: dict[str, Callable[..., None]] = field(factory=dict, init=False)
    """What writes each kind of line, which says how grave it is."""
    made: int = field(default=0, init=False)
    """Connections that were let in, since the start."""

    _all: dict[Connected, float] = field(factory=dict, init=False)
    """When each was made."""

    _from_host: Counter[str | None] = field(factory=Counter, init=False)
    _idle: deque[tuple[Connected, float]] = field(factory=deque, init=False)
    """Those that may give way, longest idle first, as of the last look."""

    _looked: float | None = field(default=None, init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Make what watches over all of them."""
        self.buffers = MemoryBudget(self._limits.buffered_bytes, self.seconds, lambda: len(self._all))
        self.handshakes = Handshakes(self._limits, self.seconds, self._call_later, lambda: len(self._all))
        self.patience = PeerTimeouts(self.seconds, self._limits)
        self._throttle = LogRateLimiter(self.seconds)

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Connected]:
        return iter(list(self._all))

    def admits(self, host: str | None) -> bool:
        """Whether one more may come, from *host*.  One that has not spoken yet makes room, or one that is idle."""
        each = self._limits.connections_per_peer
        if each and host is not None and self._from_host[host] >= each:
            self._refused(host, "connections_per_peer", each)
            return False
        if len(self._all) < self._limits.connections:
            return True
        silent = self.patience.oldest(FIRST_MESSAGE)
        if silent is not None:
            # Whoever connects and says nothing must not keep others out.
            self.hit("connections")
            self.patience.forget(silent)
            silent.cut()
            return True
        idle = self._longest_idle()
        if idle is None:
            self._refused(host, "connections", self._limits.connections)
            return False
        self.hit("connections")
        idle.give_way()
        return True

    def _longest_idle(self) -> Connected | None:
        """Of the address with the most connections the one that has had nothing to say for longest."""
        now = self.seconds()
        if not self._idle and (self._looked is None or now - self._looked >= LOOK_SECONDS):
            self._looked = now
            ((most, _),) = self._from_host.most_common(1)
            idle = [
                (connection, since)
                for connection in self._all
                if connection.host == most
                and (since := connection.idle_since) is not None
                and now - since >= IDLE_SECONDS
            ]
            self._idle.extend(nsmallest(GIVING_WAY, idle, key=lambda each: each[1]))
        while self._idle:
            connection, since = self._idle.popleft()
            if connection in self._all and connection.idle_since == since:
                return connection
        return None

    def gave_up_handshake(self, peer: object, limit: str) -> None:
        """A TLS handshake had to end."""
        self.hit(limit)
        most = getattr(self._limits, limit)
        why = f"it was the oldest of {most:,}" if limit == CROWDED else f"it is not finished after {most:,} ms"
        line = "Giving up the TLS handshake of {host}: {why} ({limit})"
        self.warn(getattr(peer, "host", None), line, why=why, limit=limit)

    def _refused(self, host: str | None, limit: str, value: int) -> None:
        self.hit(limit)
        self.warn(host, "Refusing a connection of {host}: there are {value} ({limit})", value=value, limit=limit)

    def warn(self, host: str | None, line: str, **fields: object) -> None:
        """Write *line* to the log, but not more than once a second about *host*."""
        self._write(self.log.warn, host, line, fields)

    def debug(self, host: str | None, line: str, **fields: object) -> None:
        """The same for what is no fault; it is bounded too, because twistd's log has lines of every level."""
        self._write(self.log.debug, host, line, fields)

    def info(self, host: str | None, line: str, **fields: object) -> None:
        """The same for what an operator wants to know of."""
        self._write(self.log.info, host, line, fields)

    def _write(self, say: Callable[..., None], host: str | None, line: str, fields: dict[str, object]) -> None:
        self._said[line] = say
        more = self._throttle.passes(host, line)
        if more is not None:
            if IAddress.providedBy(fields.get("peer")):
                fields["peer"] = address_text(fields["peer"])
            # A peer's own words may be among them, and must control neither the terminal nor the lines.
            text = "".join(each if each.isprintable() else "?" for each in line.format(host=host, **fields))
            say("{line}{more}", line=text, more=more)

    def tell_left_out(self) -> None:
        """Write how many lines were left out of peers that have gone quiet.  To be called every second."""
        for each in self._throttle.forgotten():
            text = "{lines} of {of} {were} left out: {kind}"
            lines, were = counted(each.number, "line"), "was" if each.number == 1 else "were"
            self._said[each.kind](text, lines=lines, were=were, number=each.number, of=each.of, kind=each.kind)

    def hit(self, limit: str | None) -> None:
        """Count that *limit* was hit, if it was one."""
        if limit is not None:
            self.limit_hits[limit] += 1

    def joined(self, connection: Connected) -> None:
        """It has been made."""
        self.made += 1
        self._all[connection] = self.seconds()
        self._from_host[connection.host] += 1

    def age(self, connection: Connected) -> float:
        """Seconds since it was made."""
        return self.seconds() - self._all[connection]

    def left(self, connection: Connected) -> None:
        """It has ended: it is forgotten."""
        del self._all[connection]
        self.patience.forget(connection)
        self.buffers.hold(connection, 0)
        host = connection.host
        self._from_host[host] -= 1
        if not self._from_host[host]:
            del self._from_host[host]
