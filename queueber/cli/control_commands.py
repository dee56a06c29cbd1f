"""
Commands that look into a running server: ``queueber health``, ``stats`` and ``check``.

The last two use its control socket, which permits administrative calls.
"""

import json
import sys
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final, TypeVar

import click
from attrs import asdict
from click.core import ParameterSource

from queueber.cli.arguments import PATH, seconds_option
from queueber.cli.data_directory import control_address, data_dir_option
from queueber.cli.output import bytes_of
from queueber.cli.server_options import QueueCommand, ServerCommand, ServerSelection, select_queue
from queueber.cli.terminal import is_terminal
from queueber.cli.watch import show, watch_options
from queueber.client import Client
from queueber.units import MS_PER_SECOND, counted, rounded_span

T = TypeVar("T")

EXIT_FINDINGS = 1

NO_LEASE: Final = bytes(16)
"""Not a lease: lease ids are random UUIDs and never all zeros."""


@click.command(cls=QueueCommand)
@click.argument("name", metavar="[QUEUE]", required=False)
@data_dir_option
@click.option("--exact", is_flag=True, help="Count all items of QUEUE, which reads them, instead of showing bounds.")
@watch_options
@click.pass_context
def stats(ctx: click.Context, name: str | None, data_dir: Path, exact: bool, interval: int | None) -> None:
    """
    Print the numbers of QUEUE, or of the whole server.

    Those of a queue come from the server at --addr, or with --data-dir from its control socket.  A number that is not
    known exactly is shown by its bounds, as in 12-40.

    Those of the server, about all queues, items, leases, connections and more, come from the control socket.
    QUEUEBER_QUEUE and a --queue before the command are ignored here.
    """
    here = ctx.get_parameter_source("data_dir") is ParameterSource.COMMANDLINE
    if name is None and ctx.get_parameter_source("queue") is not ParameterSource.COMMANDLINE:
        if exact:
            raise click.UsageError("--exact is for the items of a QUEUE.")
        look = partial(_look_at_server, as_json=ctx.obj.as_json)
        show(ctx.obj, look, interval, address=control_address(data_dir))
        return
    # Imported here, because a call without a queue is not an operator's.
    from queueber.cli.queue_views import look_at_counts  # noqa: PLC0415

    server = select_queue(ctx, name)
    # Progress is for a terminal.  One call alone needs no reactor.
    progress = exact and interval is None and is_terminal(sys.stderr)
    of_queue = partial(look_at_counts, server=server, exact=exact, progress=progress, once=interval is None)
    there = control_address(data_dir) if here else None
    show(server, of_queue, interval, address=there, concurrent=progress)


async def _look_at_server(client: Client, *, as_json: bool) -> str:
    found = asdict(await client.admin.stats())
    if as_json:
        return json.dumps(found)
    hits = found.pop("limit_hits")
    lines = [
        f"{name.removesuffix('_ms').removesuffix('_bytes'):<16} {_value_text(name, found[name])}" for name in found
    ]
    lines += [f"limit {name} was reached {counted(count, 'time')}" for name, count in sorted(hits.items())]
    return "\n".join(lines)


def _value_text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int):
        return str(value)
    if name.endswith("_ms"):
        return rounded_span(value)
    return bytes_of(value) if name.endswith("_bytes") else f"{value:,}"


@click.command()
@data_dir_option
@click.option("--force", is_flag=True, help="Check a server even if it has many items, however long that takes.")
@click.pass_obj
def check(server: ServerSelection, data_dir: Path, force: bool) -> None:
    """
    Check the memory of a running server for consistency.  The exit status is 1 if there are findings.

    During the check the server serves no calls: for at most a tenth of a second, or with --force without a limit, which
    means seconds with a million leased items.
    """
    checked = server.run(control_address(data_dir), lambda client: client.admin.check(force=force))
    for finding in checked.findings:
        click.echo(finding)
    if checked.findings:
        sys.exit(EXIT_FINDINGS)
    click.echo(f"nothing is wrong; the check took {checked.took_ms / 1_000:.3f} s")


async def _timed_call(client: Client) -> float:
    """
    Return the seconds until the server has answered a call that changes nothing, an extension of no lease.

    Like every answer it waits for the commits under way, so a server whose disk does not respond does not answer.
    """
    began = monotonic()
    # The shortest span, which is within any server's limit.
    await client.default.extend(NO_LEASE, 1)
    return monotonic() - began


@click.command(cls=ServerCommand)
@click.option(
    "--data-dir",
    "-d",
    type=PATH,
    metavar="DIRECTORY",
    help="Check the server on this data directory, through its control socket.",
)
@seconds_option("--timeout", default="5", help="Longest wait for an answer.")
@click.pass_obj
def health(server: ServerSelection, data_dir: Path | None, timeout: int) -> None:
    """
    Check that the server serves.  The exit status is 1 if it does not.

    The check changes nothing, and waits for the disk as every call does.
    """
    if not timeout:
        raise click.BadParameter("0 is too short for an answer.", param_hint="--timeout")
    here = data_dir is not None
    address = control_address(data_dir) if data_dir is not None else server.address
    took = server.run(address, _timed_call, None if here else server.tls, timeout / MS_PER_SECOND)
    click.echo(f"serving: answered in {took * MS_PER_SECOND:.1f} ms")
