"""Tables for people at a terminal."""

from collections.abc import Sequence

from attrs import frozen

NAME_LETTERS_MAX = 40


class Message(str):
    """An answer in words, shown as they are."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@frozen(repr=False)
class Table:
    """Rows under headings; shown as text, numbers to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""
    """What the table leaves out."""

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


def named(name: str) -> str:
    """A name that a peer has chosen, fit for a terminal: nothing in it moves the cursor, and it has an end."""
    shown = name if name.isprintable() else ascii(name)
    return shown if len(shown) <= NAME_LETTERS_MAX else f"{shown[: NAME_LETTERS_MAX - 3]}..."
