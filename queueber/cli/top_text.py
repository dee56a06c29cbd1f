"""Lines of text for ``queueber top``: tables that drop columns which do not fit, and short numbers."""

from collections.abc import Sequence
from typing import Final

from attrs import frozen
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from queueber.units import MS_PER_SECOND, Unit, rounded_span

FIRST_WIDTH: Final = 12
"""The least width of the first column of a table."""

GAP: Final = "  "


@frozen
class Cell:
    """Text in a table, with its style."""

    text: str
    style: str = ""


@frozen
class Column:
    """A column of a table."""

    title: str
    least: int = 0
    """The least width, so that columns do not move whenever a number grows."""

    left: bool = False
    """Align to the left; otherwise to the right."""


def grid(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    width: int,
    *,
    cursor: int | None = None,
) -> list[Text]:
    """
    Return a table as lines of *width* cells: a heading, and the *rows*, with a mark at the one at *cursor*.

    The first column takes the width that is left.  Columns are left out from the right until it has `FIRST_WIDTH`.
    """
    widths = [
        max(each.least, cell_len(each.title), *(cell_len(row[at].text) for row in rows), 0)
        for at, each in enumerate(columns)
    ]
    number = len(columns)
    while number > 1 and width - _taken(widths[1:number]) < FIRST_WIDTH:
        number -= 1
    widths[0] = max(1, width - _taken(widths[1:number]))
    heading = [Cell(each.title, "bold underline") for each in columns]
    return [
        _line(columns, widths, row[:number], marked=at == cursor) for at, row in enumerate([heading, *rows], start=-1)
    ]


def _taken(widths: Sequence[int]) -> int:
    return sum(len(GAP) + each for each in widths)


def _line(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[Cell], *, marked: bool) -> Text:
    line = Text(style="reverse" if marked else "")
    for at, (column, width, cell) in enumerate(zip(columns, widths, cells, strict=False)):
        blanks = max(0, width - cell_len(cell.text))
        text = set_cell_size(cell.text, width) if not blanks else cell.text
        line.append(GAP if at else "")
        line.append("" if column.left else " " * blanks).append(text, cell.style)
        line.append(" " * blanks if column.left else "")
    return line


def facts(pairs: Sequence[tuple[str, str]], width: int) -> list[Text]:
    """Return names and values, as many on a line of *width* cells as fit."""
    lines = [Text()]
    for name, value in pairs:
        if lines[-1].cell_len and lines[-1].cell_len + len(name) + cell_len(value) + 4 > width:
            lines.append(Text())
        lines[-1].append("   " if lines[-1].cell_len else "").append(name, "dim").append(f" {value}")
    return lines


def rate(value: float | None) -> str:
    """Return a rate: with one decimal, or whole from a hundred on; ``-`` if it is not known yet."""
    if value is None:
        return "-"
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"  # noqa: PLR2004  (from then on a tenth is noise)


def size(value: int) -> str:
    """Return a number of bytes in the largest unit that it reaches."""
    for name, unit in Unit.BYTES.value:
        if value >= unit > 1:
            return f"{value / unit:,.1f} {name}"
    return f"{value} B"


def since(then_ms: int, now_ms: int) -> str:
    """Return the time that has passed since *then_ms*: ``12.5 s``, or ``in 3.0 min`` if that is to come."""
    return rounded_span(now_ms - then_ms) if now_ms >= then_ms else f"in {rounded_span(then_ms - now_ms)}"


def seconds_text(seconds: float) -> str:
    """Return a span in seconds as text."""
    return rounded_span(seconds * MS_PER_SECOND)
