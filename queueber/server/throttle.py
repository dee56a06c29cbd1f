"""Lines in the log that a peer can cause: one a second for each peer and kind of line, however much it tries."""

from collections.abc import Callable

from attrs import define, field

SPAN_SECONDS = 1.0


@define(eq=False)
class Throttle:
    """Lets a line through, or counts it."""

    _seconds: Callable[[], float]
    _lines: dict[tuple[object, str], list[float]] = field(factory=dict, init=False)

    def passes(self, peer: object, kind: str) -> str | None:
        """
        None when the line is not to be written.

        Otherwise what to add to it: nothing, or how many like it were left out
        since the last one.  Of peers that have been quiet for a second nothing
        is remembered, so this stays as small as the attack.
        """
        now = self._seconds()
        entry = self._lines.get((peer, kind))
        if entry is not None and now - entry[0] < SPAN_SECONDS:
            entry[1] += 1
            return None
        left_out = int(entry[1]) if entry is not None else 0
        self._lines.pop((peer, kind), None)
        self._lines[peer, kind] = [now, 0]
        self._forget(now)
        return f" (and {left_out:,} more like it)" if left_out else ""

    def _forget(self, now: float) -> None:
        # Twice the span, so that the next line can still tell how many were left out.
        while (oldest := next(iter(self._lines))) and now - self._lines[oldest][0] > 2 * SPAN_SECONDS:
            del self._lines[oldest]
