"""Output for a person at a terminal, and confirmation: progress bars, tables, and a question before a change."""

import sys
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Self, TextIO

import click

from queueber.cli.output import aligned

PROGRESS_DELAY_SECONDS: Final = 2.0
"""Time after which a command shows its progress."""

_NOTHING_DONE: Final = "nothing was done"

yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def is_terminal(stream: TextIO) -> bool:
    """Return whether *stream* is a terminal."""
    return stream.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """
    Ask the user to confirm, unless *yes*.

    Raises:
        click.UsageError: there is no terminal to ask on.
        click.ClickException: the answer is no.
        click.Abort: the answer is Ctrl-C or Ctrl-D.
    """
    if yes:
        return
    if not is_terminal(sys.stdin):
        raise click.UsageError(f"{question}  There is no terminal to ask on; --yes confirms it.")
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        click.echo(f"\nqueueber: {_NOTHING_DONE}", err=True)
        raise
    if not agreed:
        raise click.ClickException(_NOTHING_DONE)


def check_can_confirm(*, yes: bool) -> None:
    """
    Check that a later `confirm` can be answered.

    Raises:
        click.UsageError: there is no terminal to ask on.
    """
    if not yes and not is_terminal(sys.stdin):
        raise click.UsageError("There is no terminal to ask for confirmation; --yes gives it.")


class ByteProgressBar:
    """A bar for copied or verified bytes, shown after a delay: a `ProgressCallback` of the store."""

    def __init__(self, label: str, seconds: Callable[[], float] = monotonic) -> None:
        """Start the delay.  *seconds* is the clock."""
        self._label = label
        self._seconds = seconds
        self._began = seconds()
        self._bar: Any = None
        self._done = 0

    def __call__(self, done: int, total: int) -> None:
        """Show that *done* of *total* bytes are complete."""
        if self._bar is None:
            waited = self._seconds() - self._began
            if not total or waited < PROGRESS_DELAY_SECONDS or not is_terminal(sys.stderr):
                return
            self._bar = click.progressbar(length=total, label=self._label, file=sys.stderr)
        self._bar.length = total
        self._bar.update(done - self._done)
        self._done = done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the line of the bar."""
        if self._bar is not None:
            self._bar.render_finish()


class LoadDisplay:
    """
    Bars and lines about a load on standard error; a `queueber.loadgen.clients.ProgressReporter`.

    Standard output has only the results.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        """Create a display; a *quiet* one shows a bar but no lines, for output that programs read."""
        self._quiet = quiet
        self._bar: Any = None

    def begin(self, what: str, total: float, *, items: bool = False) -> None:
        """Show a bar for a long phase, if standard error is a terminal."""
        self.end()
        if not total or (total <= PROGRESS_DELAY_SECONDS and not items) or not is_terminal(sys.stderr):
            return
        # Imported here, because it takes long and only a terminal needs it.
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


def print_table(title: str, heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
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
    click.echo(aligned([heading, *rows], "<" + ">" * (len(heading) - 1)))
