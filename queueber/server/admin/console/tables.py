"""Tables and messages for a terminal."""

from collections.abc import Sequence

from attrs import frozen

NAME_LETTERS_MAX = 40


class PlainText(str):
    """A message that the prompt shows without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@frozen(repr=False)
class Table:
    """Rows with headings, shown as text with numbers aligned to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""
    """A line after the rows, such as the number of omitted rows."""

    def __repr__(self) -> str:
        cells = [[_cell(value) for value in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(self.columns, *cells, strict=True)]
        right = [
            all(isinstance(row[at], int | float) for row in self.rows) and bool(self.rows)
            for at in range(len(self.columns))
        ]
        lines = [_line(self.columns, widths, right), _line(["-" * width for width in widths], widths, right)]
        lines += [_line(row, widths, right) for row in cells]
        return "\n".join([*lines, self.note] if self.note else lines)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    placed = (
        cell.rjust(width) if number else cell.ljust(width)
        for cell, width, number in zip(cells, widths, right, strict=True)
    )
    return "  ".join(placed).rstrip()


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def printable_name(name: str) -> str:
    """Return a name chosen by a peer for a terminal: shortened, and without control characters."""
    shown = name if name.isprintable() else ascii(name)
    return shown if len(shown) <= NAME_LETTERS_MAX else f"{shown[: NAME_LETTERS_MAX - 3]}..."
