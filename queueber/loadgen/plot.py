"""Bar charts as SVG, without the dependency on a plotting library."""

from collections.abc import Mapping, Sequence
from html import escape

from attrs import frozen

WIDTH = 900
LABEL = 150
VALUE = 90
BAR, GAP, HEAD = 18, 4, 34
COLOURS = ("#2563ab", "#6aa3d8", "#b9d4ec", "#c2571a", "#e39a6b", "#3d8a4e", "#8fc79b", "#7a4a9e", "#b8a1cc", "#777777")


@frozen
class Group:
    """Bars with a common scale."""

    title: str
    bars: Mapping[str, float]
    """Values by name, 0 or more."""

    unit: str = ""


def svg(title: str, groups: Sequence[Group]) -> str:
    """Return a chart of all *groups*, one below the other.  A name has the same colour in all groups."""
    names = list(dict.fromkeys(name for group in groups for name in group.bars))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    parts, top = [_text(10, 24, title, size=18, weight="bold")], HEAD
    for group in groups:
        top += HEAD
        parts.append(_text(10, top - 8, group.title, size=13, weight="bold"))
        most = max(group.bars.values(), default=0) or 1
        for name, value in group.bars.items():
            length = (WIDTH - LABEL - VALUE - 20) * value / most
            parts.append(_text(LABEL, top + BAR - 5, name, anchor="end"))
            parts.append(
                f'<rect x="{LABEL + 8}" y="{top}" width="{length:.1f}" height="{BAR}" fill="{colours[name]}"/>'
            )
            parts.append(_text(LABEL + 14 + length, top + BAR - 5, f"{_short(value)} {group.unit}".strip()))
            top += BAR + GAP
    height = top + 20
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif"><rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    )
    return "\n".join((head, *parts, "</svg>\n"))


def _text(x: float, y: float, text: str, *, size: int = 12, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _short(value: float) -> str:
    """Return *value* with three significant digits, or as an integer from 100 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004
