"""Helpers for long and destructive commands: confirmation, progress and exit statuses."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from time import monotonic
from typing import Any, Final, Self, TextIO, TypeVar

import click
from click.core import ParameterSource

from queueber.cli.arguments import PATH
from queueber.errors import StorageError, one_line, reason

EXIT_UNREADABLE: Final = 74
"""The status for a directory that cannot be used or read, ``EX_IOERR`` of ``sysexits.h``."""

_NOTHING: Final = "nothing was done"

PATIENCE_SECONDS: Final = 2.0
"""Time after which a command shows its progress."""

data_dir_option = click.option(
    "--data-dir",
    "-d",
    type=PATH,
    default="./queueber-data",
    show_default=True,
    envvar="QUEUEBER_DATA_DIR",
    show_envvar=True,
    help="The server's data directory.",
)

T = TypeVar("T")


def directory_argument(command: Callable[..., T]) -> Callable[..., T]:
    """Add DIR and ``--data-dir`` to a command that reads a directory.  Either becomes its argument *data_dir*."""

    @click.argument("path", metavar="[DIR]", type=directory, required=False)
    @data_dir_option
    @click.pass_context
    @wraps(command)
    def with_directory(ctx: click.Context, /, path: Path | None, data_dir: Path, **more: Any) -> T:  # noqa: ANN401
        if path is not None and ctx.get_parameter_source("data_dir") is ParameterSource.COMMANDLINE:
            raise click.UsageError(one_line(f"DIR is {path} and --data-dir is {data_dir}: give one of them."))
        return command(data_dir=data_dir if path is None else path, **more)

    return with_directory


yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")

directory = PATH


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
        raise click.UsageError(f"{question}  There is no terminal to ask on; --yes is the answer.")
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        click.echo(f"\nqueueber: {_NOTHING}", err=True)
        raise
    if not agreed:
        raise click.ClickException(_NOTHING)


def refuse_without_an_answer(*, yes: bool) -> None:
    """
    Check that a later `confirm` can be answered.

    Raises:
        click.UsageError: there is no terminal to ask on.
    """
    if not yes and not is_terminal(sys.stdin):
        raise click.UsageError("There is no terminal to ask on before it is done; --yes is the answer.")


@contextmanager
def unreadable_ends_with_74() -> Iterator[None]:
    """Report a directory that cannot be used in one line, and exit with status 74."""
    try:
        yield
    except BrokenPipeError:
        raise  # of standard output
    except (StorageError, OSError) as why:
        click.echo(f"queueber: {one_line(reason(why))}", err=True)
        sys.exit(EXIT_UNREADABLE)


class Progress:
    """A progress bar on a terminal, shown after a delay; a `queueber.store.maintenance.copying.Progress`."""

    def __init__(self, label: str, seconds: Callable[[], float] = monotonic) -> None:
        """Start the delay.  *seconds* is the clock."""
        self._label = label
        self._seconds = seconds
        self._began = seconds()
        self._bar: Any = None
        self._done = 0

    def __call__(self, done: int, total: int) -> None:
        """Show that *done* of *total* is complete."""
        if self._bar is None:
            if not total or self._seconds() - self._began < PATIENCE_SECONDS or not is_terminal(sys.stderr):
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


def moment(ms: int | None) -> str:
    """Return a point in queue time as text."""
    if ms is None:
        return "no known time"
    try:
        return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"


def stamp() -> str:
    """Return the current time as a suffix for unique file names."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
