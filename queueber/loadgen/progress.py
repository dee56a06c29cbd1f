"""Display of a running load: a bar with the time left on a terminal, and plain lines."""

import sys
from typing import Any, Protocol

import click

from queueber.cli.prompts import PATIENCE_SECONDS, is_terminal

LINE_SECONDS = 5.0
"""Interval between lines of figures."""


class ProgressReporter(Protocol):
    """The receiver of a load's progress."""

    def begin(self, what: str, total: float, *, items: bool = False) -> None:
        """Begin the phase *what*, of about *total* seconds, or of *total* items if *items*."""

    def at(self, done: float, total: float | None = None) -> None:
        """Show that *done* seconds or items are complete; *total* is a new estimate."""

    def line(self, text: str) -> None:
        """Show a line of text."""

    def end(self) -> None:
        """End the phase."""


class Show:
    """Bars and lines on standard error.  Standard output has only the results."""

    def __init__(self, *, quiet: bool = False) -> None:
        """Create a display; a *quiet* one shows a bar but no lines, for output that programs read."""
        self._quiet = quiet
        self._bar: Any = None

    def begin(self, what: str, total: float, *, items: bool = False) -> None:
        """Show a bar for a long phase, if standard error is a terminal."""
        self.end()
        if not total or (total <= PATIENCE_SECONDS and not items) or not is_terminal(sys.stderr):
            return
        # Imported here, because imports are half of a command's start and most commands show no such bar.
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        done = (MofNCompleteColumn(),) if items else ()
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), *done, TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.add_task(what, total=total)
        self._bar.start()

    def at(self, done: float, total: float | None = None) -> None:
        """Move the bar.  A new *total* changes the time left."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)

    def line(self, text: str) -> None:
        """Print above the bar."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            click.echo(text, err=True)

    def end(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def table(title: str, heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table with borders on a terminal, and aligned columns elsewhere."""
    if is_terminal(sys.stdout):
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415

        drawn = Table(title=title)
        for index, name in enumerate(heading):
            drawn.add_column(name, justify="right" if index else "left")
        for row in rows:
            drawn.add_row(*row)
        Console().print(drawn)
        return
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    for first, *rest in (heading, *rows):
        cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        click.echo("  ".join((first.ljust(widths[0]), *cells)).rstrip())
