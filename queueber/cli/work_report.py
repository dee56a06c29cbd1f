"""Output of ``queueber work``: coloured lines on a terminal, and plain ones elsewhere."""

import logging
import sys
from datetime import datetime
from typing import Final

import click

from queueber.cli.terminal import is_terminal
from queueber.errors import one_line

_COLOURS: Final = {logging.DEBUG: "bright_black", logging.WARNING: "yellow", logging.ERROR: "red"}


class Reporter:
    """Print lines on standard error, each with the time and the process it is from."""

    def __init__(self, name: str = "") -> None:
        """Print lines of the process *name*, such as ``worker 2``; empty for the only one."""
        self._name = name

    def say(self, text: str, level: int = logging.INFO) -> None:
        """Print *text*."""
        time = datetime.now().astimezone().strftime("%H:%M:%S")
        prefix = f"{time} {self._name}: " if self._name else f"{time} "
        click.echo(click.style(prefix, dim=True) + click.style(text, fg=_COLOURS.get(level)), err=True)

    def banner(self, work: str, server: str, queues: str) -> None:
        """Print what is run, in a frame on a terminal."""
        lines = [("work", work), ("server", server), ("queues", queues)]
        if not is_terminal(sys.stderr):
            self.say("; ".join(f"{name} {text}" for name, text in lines))
            return
        # Imported here, because it takes long and only a terminal needs it.
        from rich.console import Console  # noqa: PLC0415
        from rich.panel import Panel  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        grid = Table.grid(padding=(0, 2))
        for name, text in lines:
            grid.add_row(Text(name, "dim"), Text(one_line(text)))
        panel = Panel(grid, title="queueber work", subtitle="Ctrl-C stops", expand=False, border_style="green")
        Console(stderr=True).print(panel)


class ReportHandler(logging.Handler):
    """Print records of `logging` with a `Reporter`."""

    def __init__(self, reporter: Reporter) -> None:
        """Print with *reporter*."""
        super().__init__()
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        """Print *record*; a traceback follows on lines of its own."""
        try:
            # Errors of commands and tracebacks have text of items.
            lines = map(one_line, self.format(record).splitlines())
            self._reporter.say("\n".join(lines), record.levelno)
        except Exception:  # noqa: BLE001  (as the handlers of the standard library do)
            self.handleError(record)


def log_to(reporter: Reporter, level: int) -> None:
    """Let records of `logging` go to *reporter*, unless the program has set up logging itself."""
    root = logging.getLogger()
    if root.handlers:
        return
    root.addHandler(ReportHandler(reporter))
    root.setLevel(level)
