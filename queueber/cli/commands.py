"""
The command ``queueber``: add, poll, remove and extend from a shell.

Whatever goes wrong ends in one line on standard error and exit status 1.
"""

import errno
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click
from attrs import frozen

from queueber import __version__
from queueber.cli import output
from queueber.cli.arguments import PATH, contents_of, identity, seconds
from queueber.cli.session import Interrupted, run
from queueber.client import GIVE_BACK_MS, Client, Queue, Tls
from queueber.errors import QueueberError

T = TypeVar("T")

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
"""Ended by a signal before there was an outcome; what shells give for Ctrl-C."""

Runner = Callable[..., Any]
"""What runs work against the server at an address: `queueber.cli.session.run`, or a test's own that takes the same."""


class OneLineErrors(click.Group):
    """A group of commands whose errors are one line each."""

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401  (click's signature)
        """Run the command and exit."""
        extra["standalone_mode"] = False
        try:
            sys.exit(super().main(*args, **extra))
        except click.ClickException as why:
            complaint = why.format_message()
        except BrokenPipeError:
            raise  # of standard output
        except (QueueberError, OSError) as why:
            complaint = _complaint(why)
        except (Interrupted, click.Abort):
            sys.exit(EXIT_INTERRUPTED)
        click.echo(f"queueber: {' '.join(complaint.split())}", err=True)
        sys.exit(EXIT_ERROR)


def _complaint(why: Exception) -> str:
    if isinstance(why, FileNotFoundError) and why.filename is None:
        try:
            Path.cwd()
        except OSError:
            return "the working directory is gone: a relative path leads nowhere"
    return str(why) or type(why).__name__


@frozen
class _Server:
    """Where the command's work goes."""

    address: str
    queue: str | None
    run: Runner
    tls: Tls | None = None

    def do(self, work: Callable[[Queue], Awaitable[T]]) -> T:
        """The result of *work* with the queue that was asked for."""

        async def with_client(client: Client) -> T:
            return await work(client.default if self.queue is None else client.queue(self.queue))

        result: T = self.run(self.address, with_client, self.tls)
        return result


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.group(cls=OneLineErrors, no_args_is_help=False)
@click.version_option(__version__, prog_name="queueber")
@click.option(
    "--addr",
    default="127.0.0.1:9090",
    show_default=True,
    metavar="ADDRESS",
    help="The server: HOST:PORT, [IPv6]:PORT or a Twisted endpoint.",
)
@click.option("--queue", metavar="NAME", help="The queue; without it the default one.")
@click.option("--tls", is_flag=True, help="Use TLS, trusting the authorities that this machine trusts.")
@click.option("--tls-ca", type=PATH, metavar="FILE", help="Use TLS, trusting the authorities in this file.")
@click.option("--tls-certificate", type=PATH, metavar="FILE", help="Show this certificate.")
@click.option("--tls-key", type=PATH, metavar="FILE", help="Its key, if it is not in the same file.")
@click.option(
    "--tls-server-name", metavar="NAME", help="The name in the server's certificate, if it is not the host's."
)
@click.pass_context
def queueber(
    ctx: click.Context,
    addr: str,
    queue: str | None,
    tls: bool,
    tls_ca: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_server_name: str | None,
) -> None:
    """
    Use a Queueber server from the shell.

    Ids of items and leases are printed as UUIDs and taken as such.
    """
    files = Tls(ca=tls_ca, certificate=tls_certificate, key=tls_key, server_name=tls_server_name)
    ctx.obj = _Server(addr, queue, ctx.obj or run, files if tls or files != Tls() else None)


@queueber.command()
@click.argument("contents", nargs=-1)
@click.option(
    "--file", "files", type=click.File("rb"), multiple=True, metavar="PATH", help="Add a file's contents; repeatable."
)
@click.option(
    "--delay", callback=seconds, default="0", metavar="SECONDS", help="How long until the items may be handed out."
)
@_json
@click.pass_obj
def add(server: _Server, contents: tuple[str, ...], files: tuple[BinaryIO, ...], delay: int, as_json: bool) -> None:
    """
    Add an item with each of CONTENTS, and print their ids.

    Without CONTENTS and files, one item is read from standard input.
    """
    items = contents_of(contents, files, sys.stdin.buffer)
    ids = server.do(lambda queue: queue.add(*items, delay_ms=delay))
    click.echo(output.added_json(ids) if as_json else output.added_text(ids))


@queueber.command()
@click.option("-n", "number", type=click.IntRange(1, 0xFFFFFFFF), default=1, show_default=True, help="The most items.")
@click.option(
    "--lease", callback=seconds, metavar="SECONDS", default="30", show_default=True, help="How long they are yours."
)
@click.option(
    "--wait",
    callback=seconds,
    metavar="SECONDS",
    help="How long to wait for the first; without it as long as it takes.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait at all.")
@_json
@click.pass_obj
def poll(server: _Server, number: int, lease: int, wait: int | None, no_wait: bool, as_json: bool) -> None:
    """
    Take ready items under a new lease, and print them.

    What cannot be printed is given back at once.
    """
    if no_wait and wait is not None:
        raise click.UsageError("--wait and --no-wait contradict each other.")
    wait_ms = 0 if no_wait else wait

    async def poll_and_print(queue: Queue) -> None:
        batch = await queue.poll(number, lease_ms=lease, wait_ms=wait_ms)
        try:
            _print(output.batch_json(batch) if as_json else output.batch_text(batch))
        except Exception:
            # Without its lease printed these items can neither be worked on nor removed.
            if batch.items:
                await queue.extend(batch.lease, GIVE_BACK_MS)
            raise

    server.do(poll_and_print)


@queueber.command()
@click.argument("item_id", metavar="ITEM", callback=identity)
@click.argument("lease", callback=identity)
@_json
@click.pass_obj
def remove(server: _Server, item_id: bytes, lease: bytes, as_json: bool) -> None:
    """Remove ITEM, held under LEASE, for ever; exit status 1 if it is not held under it any more."""
    _report("removed", server.do(lambda queue: queue.remove(item_id, lease)), as_json=as_json)


@queueber.command()
@click.argument("lease", callback=identity)
@click.option(
    "--lease", "span", callback=seconds, metavar="SECONDS", default="30", show_default=True, help="How long from now."
)
@_json
@click.pass_obj
def extend(server: _Server, lease: bytes, span: int, as_json: bool) -> None:
    """Let LEASE end some seconds from now; exit status 1 if it has ended."""
    _report("extended", server.do(lambda queue: queue.extend(lease, span)), as_json=as_json)


def _print(text: str) -> None:
    """
    Print *text*, or fail.

    Raises:
        OSError: standard output is closed, or takes no more.
    """
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    click.echo(text)


def _report(done: str, did: bool, *, as_json: bool) -> None:
    """Say whether a call did what its name says."""
    if as_json:
        click.echo(json.dumps({done: did}))
    elif did:
        click.echo(done)
    else:
        click.echo(f"queueber: not {done}: the lease has ended, or was never for this", err=True)
    if not did:
        sys.exit(EXIT_ERROR)
