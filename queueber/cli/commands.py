"""
The command ``queueber``: add, poll, remove and extend from a shell.

Every error is one line on standard error and exit status 1.
Scripts run the command once for each item, so a command imports only the modules that it uses.
"""

import errno
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from queueber import __version__
from queueber.cli import output
from queueber.cli.arguments import contents_of, number_option, seconds_option, uuid_bytes
from queueber.cli.server_options import SERVER_OPTIONS, CallCommand, ServerSelection
from queueber.cli.session import Interrupted, run
from queueber.cli.streams import EXIT_ERROR
from queueber.client import GIVE_BACK_MS, Queue
from queueber.errors import QueueberError, one_line, reason
from queueber.values import id_text

EXIT_EMPTY = 3
"""A poll ended without an item."""

EXIT_INTERRUPTED = 130
"""Ended by a signal before there was an outcome: the status of shells for Ctrl-C."""


_LAZY: Final = {
    "config": "config",
    "control_commands": "health stats check",
    "maintenance": "backup restore verify recover",
    "inspect": "inspect",
    "manhole": "manhole",
    "stress": "stress",
    "simulate": "simulate",
    "bench": "bench",
    "settle_commands": "fail defer reject",
    "queue_views": "queues peek dead get leases settings",
    "queue_changes": "configure pause resume purge delete",
    "top": "top",
    "work": "work",
    "item_changes": "cancel kick reschedule redrive end-lease",
}

MODULES: Final = {command: module for module, commands in _LAZY.items() for command in commands.split()}
"""
The modules in `queueber.cli` of commands that are imported on first use.

A command has its name in its module, with underscores for dashes.
"""


SECTIONS: Final = {
    "Producers and workers": "work add poll remove extend fail defer reject",
    "Queues and their items": "queues top stats peek dead get leases "
    "cancel kick reschedule redrive end-lease purge delete",
    "Settings of queues": "settings configure pause resume",
    "The server": "health check config manhole",
    "Data directories": "inspect verify backup restore recover",
    "Load": "bench stress simulate",
}
"""The commands by the headings under which the help lists them."""


_HELP_HINT: Final = "All commands: queueber --help"


class LazyGroup(click.Group):
    """A group of commands with one-line errors, some of which are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *MODULES})

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their short descriptions under the headings of `SECTIONS`."""
        width = formatter.width - max(map(len, self.list_commands(ctx))) - 6
        for title, names in SECTIONS.items():
            found = [(name, self.get_command(ctx, name)) for name in names.split()]
            with formatter.section(title):
                formatter.write_dl([(name, each.get_short_help_str(width)) for name, each in found if each])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, importing it if necessary; None if there is none."""
        if cmd_name in MODULES and cmd_name not in self.commands:
            module = import_module(f"queueber.cli.{MODULES[cmd_name]}")
            self.add_command(getattr(module, cmd_name.replace("-", "_")))
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown name, raise a usage error with the most similar one, or with the help."""
        names = self.list_commands(ctx)
        if args[0] not in names:
            # click itself suggests only commands that are imported already.
            from difflib import get_close_matches  # noqa: PLC0415  (only a mistake needs it)

            for close in get_close_matches(args[0], names, n=1):
                raise click.UsageError(f"No such command {args[0]!r}. Did you mean {close!r}?", ctx)
            raise click.UsageError(f"No such command {args[0]!r}. {_HELP_HINT}", ctx)
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401  (click's signature)
        """Run the command and exit."""
        extra["standalone_mode"] = False
        try:
            sys.exit(super().main(*args, **extra))
        except click.ClickException as why:
            text = why.format_message() + _advice(why)
        except BrokenPipeError:
            raise  # of standard output
        except (QueueberError, OSError) as why:
            text = _error_text(why)
        except (Interrupted, click.Abort):
            sys.exit(EXIT_INTERRUPTED)
        click.echo(f"queueber: {one_line(' '.join(text.split()))}", err=True)
        sys.exit(EXIT_ERROR)


def _error_text(why: Exception) -> str:
    if isinstance(why, FileNotFoundError) and why.filename is None:
        try:
            Path.cwd()
        except OSError:
            return "the working directory was deleted: relative paths cannot be used"
    return reason(why) or type(why).__name__


def _advice(why: click.ClickException) -> str:
    """Return advice for an argument that was parsed as an option, such as ``-5``."""
    if not isinstance(why, click.NoSuchOption) or why.possibilities or why.ctx is None:
        return ""
    command = why.ctx.command
    arguments = [each.human_readable_name for each in command.params if isinstance(each, click.Argument)]
    if not arguments:
        return ""
    return f" If it is {' or '.join(arguments)}, put -- before it: {why.ctx.command_path} -- {why.option_name}"


@click.group(
    cls=LazyGroup, invoke_without_command=True, subcommand_metavar="COMMAND [ARGS]...", params=[*SERVER_OPTIONS]
)
@click.version_option(__version__, prog_name="queueber")
@click.pass_context
def queueber(ctx: click.Context, /, **options: Any) -> None:  # noqa: ANN401  (those of `ServerSelection`)
    """
    Use a Queueber server from the shell.

    Ids of items and leases are printed and accepted as UUIDs.

    Options that select the server and the queue may precede or follow the command, or be set in the environment.
    """
    if ctx.invoked_subcommand is None:
        raise click.UsageError(f"Missing command. {_HELP_HINT}", ctx)
    ctx.obj = ServerSelection(run=ctx.obj or run, **options)


@queueber.command(cls=CallCommand)
@click.argument("contents", nargs=-1)
@click.option(
    "--file", "files", type=click.File("rb"), multiple=True, metavar="PATH", help="Add a file's contents; repeatable."
)
@seconds_option("--delay", default="0", help="Deliver the items after this time at the earliest.")
@click.pass_obj
def add(server: ServerSelection, contents: tuple[str, ...], files: tuple[BinaryIO, ...], delay: int) -> None:
    """
    Add an item for each of CONTENTS, and print their ids.

    Without CONTENTS and files, one item is read from standard input.  Empty input is an error, because the command that
    writes it may have failed.  CONTENTS that begin with a dash follow --, as in: queueber add -- -5
    """
    items = contents_of(contents, files, sys.stdin.buffer)
    ids = server.do(lambda queue: queue.add(*items, delay_ms=delay, timeout_ms=server.timeout_ms))
    texts = [id_text(item_id) for item_id in ids]
    server.show({"ids": texts}, "\n".join(texts))


@queueber.command(cls=CallCommand)
@number_option("-n", "number", kind=click.IntRange(1, 0xFFFFFFFF), default=1, help="Most items to take.")
@seconds_option("--lease", default="30", help="Length of the lease.")
@seconds_option("--wait", help="Longest wait for an item; by default without a limit.")
@click.option("--no-wait", is_flag=True, help="Do not wait for an item.")
@click.option(
    "--raw",
    is_flag=True,
    help="Write only the contents of one item to standard output, byte for byte; "
    "the lease and the item's id go to standard error.",
)
@click.pass_obj
def poll(server: ServerSelection, number: int, lease: int, wait: int | None, no_wait: bool, raw: bool) -> None:
    """
    Take ready items under a new lease, and print them.

    The exit status is 3 if --no-wait or --wait ended without an item.  Items that cannot be printed return to the queue
    at once.
    """
    if no_wait and wait is not None:
        raise click.UsageError("--wait and --no-wait contradict each other.")
    if raw and server.as_json:
        raise click.UsageError("--raw and --json contradict each other.")
    if raw and number != 1:
        raise click.UsageError(
            f"--raw writes the contents of 1 item, and -n is {number:,}: several could not be kept apart; use --json."
        )
    wait_ms = 0 if no_wait else wait
    timeout_ms = None if server.timeout_ms is None or wait_ms is None else server.timeout_ms + wait_ms

    async def poll_and_print(queue: Queue) -> bool:
        batch = await queue.poll(number, lease_ms=lease, wait_ms=wait_ms, timeout_ms=timeout_ms)
        try:
            if raw:
                _print(b"".join(item.contents for item in batch.items), newline=False)
                click.echo(output.batch_text(batch, contents=False), err=True)
            else:
                _print(output.batch_json(batch) if server.as_json else output.batch_text(batch))
        except Exception:
            # Without the printed lease these items cannot be removed.
            if batch.items:
                await queue.extend(batch.lease, GIVE_BACK_MS)
            raise
        return bool(batch.items)

    if not server.do(poll_and_print):
        sys.exit(EXIT_EMPTY)


@queueber.command(cls=CallCommand)
@click.argument("item_id", metavar="ITEM", callback=uuid_bytes)
@click.argument("lease", callback=uuid_bytes)
@click.pass_obj
def remove(server: ServerSelection, item_id: bytes, lease: bytes) -> None:
    """Remove ITEM, held under LEASE.  The exit status is 1 if LEASE has ended or does not hold ITEM."""
    did = server.do(lambda queue: queue.remove(item_id, lease, timeout_ms=server.timeout_ms))
    problem = "not removed: the lease has ended, or does not hold this item"
    server.show_outcome({"removed": did}, "removed" if did else None, problem)


@queueber.command(cls=CallCommand)
@click.argument("lease", callback=uuid_bytes)
@seconds_option("--lease", "span", default="30", help="New length, from now.")
@click.pass_obj
def extend(server: ServerSelection, lease: bytes, span: int) -> None:
    """Set LEASE to end some seconds from now.  The exit status is 1 if it has ended."""
    did = server.do(lambda queue: queue.extend(lease, span, timeout_ms=server.timeout_ms))
    problem = "not extended: the lease has ended, or is not of this queue"
    server.show_outcome({"extended": did}, "extended" if did else None, problem)


def _print(text: str | bytes, *, newline: bool = True) -> None:
    """
    Print *text* on standard output.

    Raises:
        OSError: standard output is closed or full.
    """
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    click.echo(text, nl=newline)
