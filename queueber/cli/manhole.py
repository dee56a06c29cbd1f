"""``queueber manhole``: connect a terminal to the debugging console of a server."""

from contextlib import suppress
from typing import Any

import click
from twisted.internet.task import react

from queueber.errors import QueueberError


@click.command()
@click.argument("address", metavar="ADDRESS")
def manhole(address: str) -> None:
    """
    Connect this terminal to the debugging console of a server that runs with --manhole.

    ADDRESS is unix:PATH, HOST:PORT or another Twisted endpoint.  Ctrl-D ends the session, Ctrl-] leaves a server that
    does not answer.
    """
    # Imported here, because no other command needs it.
    from queueber.cli.terminal import raw_terminal, session  # noqa: PLC0415

    failures: list[QueueberError] = []
    complete = True

    async def main(reactor: Any) -> None:  # noqa: ANN401
        nonlocal complete
        try:
            complete = await session(reactor, address)
        except QueueberError as why:
            failures.append(why)

    with raw_terminal(), suppress(SystemExit):
        react(main)
    if failures:
        raise failures[0]
    if not complete:
        # Twisted keeps the reason to itself; written to once more, the stream fails with it.
        click.echo()
