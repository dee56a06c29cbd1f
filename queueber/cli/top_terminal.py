"""The terminal of ``queueber top``: its other screen, its keys one by one, and its former state at every end."""

import os
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.control import Control
from rich.screen import Screen as RichScreen
from rich.text import Text

from queueber.cli.terminal import is_terminal

COLUMNS_MAX = 1_000
ROWS_MAX = 500
"""A terminal that says it is larger is drawn on up to here."""

READ_BYTES = 4_096


def check_terminal() -> None:
    """
    Check that there is a terminal for keys and for the screen.

    Raises:
        click.UsageError: there is none, or it cannot move its cursor.
    """
    without = "`queueber queues --watch` and `queueber top --json` need none."
    if not is_terminal(sys.stdin) or not is_terminal(sys.stdout):
        raise click.UsageError(f"Standard input and output must be a terminal; {without}")
    kind = os.environ.get("TERM", "")
    if kind in {"", "dumb", "unknown"}:
        raise click.UsageError(f"The terminal is of the type {kind!r} (TERM), which cannot be drawn on; {without}")


class Terminal:
    """
    The terminal of this process, in use within its context: keys are read as they are pressed and not shown.

    At the end of the context, whatever the reason, the screen and the settings are those from before.
    """

    def __init__(self) -> None:
        """Take the terminal of standard input and output."""
        self.keyboard = sys.stdin.fileno()
        self._console = console()
        self._before: list[object] | None = None

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def enter(self) -> None:
        """Switch to the other screen, and to single keys.  Ctrl-C and Ctrl-Z still send their signals."""
        if self._before is None:
            self._before = termios.tcgetattr(self.keyboard)
            tty.setcbreak(self.keyboard)
            self._console.control(Control.alt_screen(True), Control.show_cursor(False))

    def leave(self) -> None:
        """Restore the terminal."""
        if self._before is None:
            return
        before, self._before = self._before, None
        try:
            self._console.control(Control.alt_screen(False), Control.show_cursor(True))
            sys.stdout.flush()
        finally:
            termios.tcsetattr(self.keyboard, termios.TCSADRAIN, before)  # type: ignore[arg-type]  # its own result

    def suspend(self) -> None:
        """Restore the terminal and stop the process, as Ctrl-Z does; come back once it is continued."""
        self.leave()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self.enter()

    def size(self) -> tuple[int, int]:
        """Return columns and rows."""
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
        return min(columns or 80, COLUMNS_MAX), min(rows or 24, ROWS_MAX)

    def read(self) -> bytes:
        """Return what was typed; empty if the terminal is gone."""
        try:
            return os.read(self.keyboard, READ_BYTES)
        except OSError:
            return b""

    def draw(self, lines: Sequence[Text]) -> None:
        """Show *lines*, which fill the screen."""
        if self._before is None:
            return
        self._console.size = self.size()
        self._console.control(Control.home())
        # Each cell is written anew, and the screen is never cleared: it does not flicker.
        self._console.print(RichScreen(*lines), end="")


def console() -> Console:
    """Return a console on standard output that shows at least the cursor's line, also on a terminal without colours."""
    found = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if found.color_system is None:
        found = Console(
            file=sys.stdout, highlight=False, markup=False, emoji=False, color_system="standard", no_color=True
        )
    return found
