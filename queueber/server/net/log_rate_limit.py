"""
Lines in the log that a peer can cause: bounded for each peer and kind of line, and for each kind over all peers.

However many addresses they come from, a kind has `LINES_PER_SECOND` and one more that counts the rest.  How many were
left out is told by the next line like them or, when none comes, by `forgotten`.
"""

from collections.abc import Callable

from attrs import define, field, frozen

from queueber.units import counted

SPAN_SECONDS = 1.0

LINES_PER_SECOND = 50
"""Of one kind, over all peers: enough to see who they are, and few enough to read and to keep."""


@define(eq=False)
class _Kind:
    """What was written of one kind of line in the present second, and what was left out for that."""

    began: float
    lines: int = 0
    left_out: int = 0
    peers: set[object] = field(factory=set)
    """Those that had no line at all; cleared each second, and no more than were refused in it."""


@frozen
class LeftOut:
    """Lines that were not written, and that no later line has told of."""

    kind: str
    number: int
    of: str
    """Whose they were."""


@define(eq=False)
class LogRateLimiter:
    """Lets a line through, or counts it."""

    _seconds: Callable[[], float]
    _lines: dict[tuple[object, str], list[float]] = field(factory=dict, init=False)
    _kinds: dict[str, _Kind] = field(factory=dict, init=False)
    _untold: list[LeftOut] = field(factory=list, init=False)
    """Of peers that were forgotten since the last `forgotten`."""

    def passes(self, peer: object, kind: str) -> str | None:
        """
        None when the line is not to be written.

        Otherwise what to add to it: nothing, how many like it were left out
        since the last one, or how many of all peers were.  Of peers that have
        been quiet for a second nothing is remembered, so this stays as small
        as the attack.
        """
        now = self._seconds()
        entry = self._lines.get((peer, kind))
        if entry is not None and now - entry[0] < SPAN_SECONDS:
            entry[1] += 1
            return None
        of_all = self._of_all(peer, kind, now)
        if of_all is None:
            return None
        left_out = int(entry[1]) if entry is not None else 0
        self._lines.pop((peer, kind), None)
        self._lines[peer, kind] = [now, 0]
        self._forget(now)
        return (f" (and {left_out:,} more like it)" if left_out else "") + of_all

    def _of_all(self, peer: object, kind: str, now: float) -> str | None:
        """The same for the kind as a whole: None, or what the first line of a second adds about the one before."""
        known = self._kinds.get(kind)
        said = ""
        if known is None or now - known.began >= SPAN_SECONDS:
            if known is not None and known.left_out:
                said = f" (and {known.left_out:,} more of this kind from {counted(len(known.peers), 'peer')})"
            known = self._kinds[kind] = _Kind(now)
        if known.lines >= LINES_PER_SECOND:
            known.left_out += 1
            known.peers.add(peer)
            return None
        known.lines += 1
        return said

    def forgotten(self) -> list[LeftOut]:
        """
        What was left out of those who have been quiet since, so that no line will tell; each is given once.

        To be called every `SPAN_SECONDS`.
        """
        now = self._seconds()
        self._forget(now)
        told, self._untold = self._untold, []
        for kind, known in list(self._kinds.items()):
            if now - known.began > 2 * SPAN_SECONDS:
                if known.left_out:
                    told.append(LeftOut(kind, known.left_out, counted(len(known.peers), "peer")))
                del self._kinds[kind]
        return told

    def _forget(self, now: float) -> None:
        # Twice the span, so that the next line can still tell how many were left out.
        while self._lines:
            oldest = peer, kind = next(iter(self._lines))
            began, left_out = self._lines[oldest]
            if now - began <= 2 * SPAN_SECONDS:
                break
            if left_out:
                self._untold.append(LeftOut(kind, int(left_out), str(peer or "local peers")))
            del self._lines[oldest]
