"""Show something once, or again and again until Ctrl-C."""

import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar

import click

from queueber.cli.arguments import seconds_option
from queueber.cli.server_options import ServerSelection, in_seconds
from queueber.cli.terminal import is_terminal
from queueber.client import Client, Tls
from queueber.client.blocking import NoAnswer
from queueber.units import MS_PER_SECOND

T = TypeVar("T")

INTERVAL_MS = 2_000

_CLEAR = "\x1b[H\x1b[2J\x1b[3J"
"""Moves to the top, and clears the screen and what was scrolled off it."""


def watch_options(command: Callable[..., T]) -> Callable[..., T]:
    """Add ``--watch`` and ``--interval`` to a command.  Its argument *interval* has the milliseconds, or None."""

    @click.option("--watch", is_flag=True, help="Refresh until Ctrl-C.")
    @seconds_option("--interval", help="Time between two refreshes of --watch; by default 2.")
    @wraps(command)
    def with_interval(*, watch: bool, interval: int | None, **more: Any) -> T:  # noqa: ANN401
        if interval is not None and not watch:
            raise click.UsageError("--interval is for --watch only.")
        if interval == 0:
            raise click.BadParameter("0 is too short.", param_hint="--interval")
        return command(interval=(interval or INTERVAL_MS) if watch else None, **more)

    return with_interval


def show(
    server: ServerSelection,
    look: Callable[[Client], Awaitable[str]],
    interval: int | None,
    *,
    address: str | None = None,
    concurrent: bool = False,
) -> None:
    """
    Print the text that *look* returns: once, or every *interval* milliseconds.

    On a terminal, each look replaces the one before.  Each must end within the time limit.  *address* is that of a
    control socket, which has no TLS; None for the selected server.  A *concurrent* look makes several calls at a time.
    """
    to: str = server.address if address is None else address
    tls: Tls | None = server.tls if address is None else None
    if interval is None:
        click.echo(server.run(to, look, tls, in_seconds(server.timeout_ms), concurrent=concurrent))
        return
    server.run(to, lambda client: _watch(client, look, interval, server.timeout_ms), tls, concurrent=True)


async def _watch(
    client: Client, look: Callable[[Client], Awaitable[str]], interval: int, timeout_ms: int | None
) -> None:
    # Imported here, because a single look does without a reactor.
    from twisted.internet.defer import Deferred, ensureDeferred  # noqa: PLC0415
    from twisted.internet.defer import TimeoutError as Late  # noqa: PLC0415
    from twisted.internet.task import LoopingCall  # noqa: PLC0415

    async def look_once() -> None:
        looking: Deferred[str] = ensureDeferred(look(client))  # type: ignore[arg-type]  # that of an async function
        if timeout_ms is not None:
            looking.addTimeout(timeout_ms / MS_PER_SECOND, loop.clock)
        try:
            text = await looking
        except Late:
            raise NoAnswer(f"no answer within {in_seconds(timeout_ms):g} s") from None
        click.echo(_CLEAR + text if is_terminal(sys.stdout) else text)

    loop = LoopingCall(lambda: ensureDeferred(look_once()))
    await loop.start(interval / MS_PER_SECOND)
