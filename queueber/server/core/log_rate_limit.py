"""
Rate limit for log lines that peers can cause.

Each peer has one line of a kind in a second, and each kind has
`LINES_PER_SECOND` over all peers, from however many addresses they come.  The
next line of the kind says how many were left out before it.  If none follows,
`LogRateLimiter.expire` returns the number.
"""

from collections.abc import Callable
from typing import Final

from attrs import define, field, frozen

from queueber.units import counted

SPAN_SECONDS: Final = 1.0

LINES_PER_SECOND: Final = 50
"""Lines of one kind over all peers: enough to see who they are, and few enough to read and to store."""


@define(eq=False)
class _Kind:
    """One kind of line in the current second."""

    began: float
    lines: int = 0
    """Lines written."""

    left_out: int = 0
    peers: set[object] = field(factory=set)
    """The peers of the lines left out; dropped each second."""


@frozen
class LeftOut:
    """Lines that were left out, and that no later line reports."""

    kind: str
    number: int
    of: str
    """The peer, or how many peers."""


@define(eq=False)
class LogRateLimiter:
    """Passes a line, or counts it as left out."""

    _seconds: Callable[[], float]
    _lines: dict[tuple[object, str], list[float]] = field(factory=dict, init=False)
    """For each peer and kind: the time of the latest line, and the number left out since.  Oldest first."""

    _kinds: dict[str, _Kind] = field(factory=dict, init=False)
    _unreported: list[LeftOut] = field(factory=list, init=False)
    """Of peers that were dropped from `_lines` since the latest `expire`."""

    def __len__(self) -> int:
        """Return how many peers and kinds of lines are remembered, those of a line that was written each for itself."""
        return len(self._lines) + len(self._kinds)

    def passes(self, peer: object, kind: str) -> str | None:
        """
        Return None if the line is to be left out, and otherwise the text to append to it.

        The text is empty, or reports how many lines like it were left out
        before.  A peer without a line for two seconds is dropped, so memory is
        bounded by the rate of the attack.
        """
        now = self._seconds()
        entry = self._lines.get((peer, kind))
        if entry is not None and now - entry[0] < SPAN_SECONDS:
            entry[1] += 1
            return None
        of_all = self._passes_kind(peer, kind, now)
        if of_all is None:
            return None
        left_out = int(entry[1]) if entry is not None else 0
        self._lines.pop((peer, kind), None)
        self._lines[peer, kind] = [now, 0]
        self._drop_quiet(now)
        return (f" (and {left_out:,} more like it)" if left_out else "") + of_all

    def _passes_kind(self, peer: object, kind: str, now: float) -> str | None:
        """Return None if the kind has had its lines in this second, and otherwise the report of the last one."""
        known = self._kinds.get(kind)
        report = ""
        if known is None or now - known.began >= SPAN_SECONDS:
            if known is not None and known.left_out:
                report = f" (and {known.left_out:,} more of this kind from {counted(len(known.peers), 'peer')})"
            known = self._kinds[kind] = _Kind(now)
        if known.lines >= LINES_PER_SECOND:
            known.left_out += 1
            known.peers.add(peer)
            return None
        known.lines += 1
        return report

    def expire(self) -> list[LeftOut]:
        """
        Return the lines left out of peers and kinds that have been quiet since; each is returned once.

        Call this every `SPAN_SECONDS`.
        """
        now = self._seconds()
        self._drop_quiet(now)
        left_out, self._unreported = self._unreported, []
        for kind, known in list(self._kinds.items()):
            if now - known.began > 2 * SPAN_SECONDS:
                if known.left_out:
                    left_out.append(LeftOut(kind, known.left_out, counted(len(known.peers), "peer")))
                del self._kinds[kind]
        return left_out

    def _drop_quiet(self, now: float) -> None:
        # Twice the span, so that the next line can still report how many were left out.
        while self._lines:
            oldest = peer, kind = next(iter(self._lines))
            began, left_out = self._lines[oldest]
            if now - began <= 2 * SPAN_SECONDS:
                break
            if left_out:
                self._unreported.append(LeftOut(kind, int(left_out), str(peer or "local peers")))
            del self._lines[oldest]
