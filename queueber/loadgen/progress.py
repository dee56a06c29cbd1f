"""How a load is shown while it runs: a bar with the time left on a terminal, plain lines everywhere."""

import sys
from typing import Any, Protocol

import click

from queueber.cli.prompts import PATIENCE_SECONDS, is_terminal

LINE_SECONDS = 5.0
"""How often figures are told."""


class ProgressReporter(Protocol):
    """Who is told how far a load is."""

    def begin(self, what: str, total: float, *, items: bool = False) -> None:
        """*what* begins, and will last about *total* seconds, or is about so many *items*."""

    def at(self, done: float, total: float | None = None) -> None:
        """So many of them have passed, or are done, of *total* if that is better known now."""

    def line(self, text: str) -> None:
        """Something to read."""

    def end(self) -> None:
        """What was begun is over."""


class Show:
    """Bars and lines on standard error, so that standard output has the result only."""

    def __init__(self, *, quiet: bool = False) -> None:
        """A *quiet* one shows a bar, but no lines: for what is read by programs."""
        self._quiet = quiet
        self._bar: Any = None

    def begin(self, what: str, total: float, *, items: bool = False) -> None:
        """Show a bar if that is worth it, and if there is somebody to see it."""
        self.end()
        if not total or (total <= PATIENCE_SECONDS and not items) or not is_terminal(sys.stderr):
            return
        # Half of a command's start is what it imports, and most commands have no bar of this kind.
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        done = (MofNCompleteColumn(),) if items else ()
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), *done, TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.add_task(what, total=total)
        self._bar.start()

    def at(self, done: float, total: float | None = None) -> None:
        """Move the bar; its time left begins anew with another *total*."""
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
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def table(title: str, heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print figures: a drawn table on a terminal, aligned columns otherwise."""
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
