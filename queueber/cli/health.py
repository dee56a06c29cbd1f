"""
``queueber health``: whether a server serves, for whatever starts it again if not.

Asked is what only a server that works can answer and what changes nothing: to
extend a lease that was never given.  The answer, no, waits like every answer for
the commits under way, so a server whose disk stands still does not give it.
"""

from pathlib import Path
from time import monotonic
from typing import Any, Final, Protocol

import click

from queueber.cli.arguments import seconds
from queueber.cli.attendance import directory
from queueber.cli.control_socket import address_of
from queueber.cli.server_options import ServerCommand
from queueber.client import Client, Tls
from queueber.units import MS_PER_SECOND

NO_LEASE: Final = bytes(16)
"""Leases are random, and marked as such: none is all zeros."""


class Asked(Protocol):
    """The server that the command was told of."""

    address: str
    tls: Tls | None

    def run(self, address: str, work: Any, tls: Tls | None, seconds: float | None, /) -> Any:  # noqa: ANN401
        """The result of *work* with the server at *address*, if that takes no longer than *seconds*."""


async def _ask(client: Client) -> float:
    """How many seconds the answer took."""
    began = monotonic()
    # The shortest span there is: whatever limit the server has, this is within it.
    await client.default.extend(NO_LEASE, 1)
    return monotonic() - began


@click.command(cls=ServerCommand)
@click.option(
    "--data-dir",
    "-d",
    type=directory,
    metavar="DIRECTORY",
    help="Ask the server that holds this directory, by its control socket, wherever else it listens.",
)
@click.option(
    "--timeout", callback=seconds, default="5", show_default=True, metavar="SECONDS", help="How long it may take."
)
@click.pass_obj
def health(server: Asked, data_dir: Path | None, timeout: int) -> None:
    """
    Ask whether the server serves; exit status 1 if not.

    Nothing is changed, and it waits for the disk as every call does.
    """
    if not timeout:
        raise click.BadParameter("0 is no time for an answer.", param_hint="--timeout")
    here = data_dir is not None
    address = address_of(data_dir) if data_dir is not None else server.address
    took = server.run(address, _ask, None if here else server.tls, timeout / MS_PER_SECOND)
    click.echo(f"serving: answered in {took * MS_PER_SECOND:.1f} ms")
