"""
``queueber health``: check that a server serves, for supervisors that restart it.

The command extends a lease that does not exist, a call that only a working server
can answer and that changes nothing.  Like every answer, this one waits for the
commits under way, so a server whose disk does not respond does not answer.
"""

from pathlib import Path
from time import monotonic
from typing import Final

import click

from queueber.cli.arguments import PATH, seconds
from queueber.cli.data_directory import control_address
from queueber.cli.server_options import ServerCommand, ServerSelection
from queueber.client import Client
from queueber.units import MS_PER_SECOND

NO_LEASE: Final = bytes(16)
"""Not a lease: lease ids are random UUIDs and never all zeros."""


async def _call(client: Client) -> float:
    """Return the seconds until the answer."""
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
    took = server.run(address, _call, None if here else server.tls, timeout / MS_PER_SECOND)
    click.echo(f"serving: answered in {took * MS_PER_SECOND:.1f} ms")
