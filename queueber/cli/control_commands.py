"""
Commands that look into a running server: ``queueber health``, ``stats`` and ``check``.

The last two use its control socket, which permits administrative calls.
"""

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Final, TypeVar

import click
from attrs import asdict

from queueber.cli.arguments import PATH, seconds
from queueber.cli.data_directory import control_address, data_dir_option
from queueber.cli.output import bytes_of
from queueber.cli.server_options import ServerCommand, ServerSelection
from queueber.client import Client
from queueber.units import MS_PER_SECOND, counted, rounded_span

T = TypeVar("T")

EXIT_FINDINGS = 1

NO_LEASE: Final = bytes(16)
"""Not a lease: lease ids are random UUIDs and never all zeros."""


def run_on_control_socket(
    server: ServerSelection, data_dir: Path, work: Callable[[Client], Awaitable[T]], *, concurrent: bool = False
) -> T:
    """
    Run *work* with the server on *data_dir* and return its result; *concurrent* as for `queueber.cli.session.run`.

    Raises:
        click.ClickException: no server runs on it.
    """
    result: T = server.run(control_address(data_dir), work, concurrent=concurrent)
    return result


@click.command()
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_obj
def stats(server: ServerSelection, data_dir: Path, as_json: bool) -> None:
    """Print a running server's numbers of queues, items, leases, connections and more."""
    found = asdict(run_on_control_socket(server, data_dir, lambda client: client.admin.stats()))
    if as_json:
        click.echo(json.dumps(found))
        return
    hits = found.pop("limit_hits")
    for name, value in found.items():
        click.echo(f"{name.removesuffix('_ms').removesuffix('_bytes'):<16} {_value_text(name, value)}")
    for name, count in sorted(hits.items()):
        click.echo(f"limit {name} was reached {counted(count, 'time')}")


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
@click.option("--force", is_flag=True, help="Check a server with many items too, however long it takes.")
@click.pass_obj
def check(server: ServerSelection, data_dir: Path, force: bool) -> None:
    """
    Check the memory of a running server for consistency.  The exit status is 1 if there are findings.

    During the check the server serves no calls: for at most a tenth of a second, or with --force without a limit, which
    means seconds with a million leased items.
    """
    checked = run_on_control_socket(server, data_dir, lambda client: client.admin.check(force=force))
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
    help="Ask the server on this data directory, through its control socket.",
)
@click.option(
    "--timeout", callback=seconds, default="5", show_default=True, metavar="SECONDS", help="Longest wait for an answer."
)
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
