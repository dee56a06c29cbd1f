"""``queueber top``: shows the queues of a server live in the terminal."""

import json
from contextlib import suppress
from time import monotonic
from typing import Any, Final

import click

from queueber.cli import queue_output as output
from queueber.cli.arguments import number_option, seconds_option, time_limit
from queueber.cli.server_options import ResultsCommand, ServerSelection, in_seconds
from queueber.cli.top_questions import TopCalls
from queueber.cli.top_state import Rates, Top
from queueber.cli.watch import show
from queueber.client import Client
from queueber.fixed_limits import LISTED_MAX
from queueber.units import MS_PER_SECOND

ANSWER_SECONDS: Final = 5.0
"""Time limit of one refresh, unless another is given."""

RETRY_SECONDS: Final = 1.0
"""Time between two attempts to reach a server that cannot be reached."""


@click.command(cls=ResultsCommand)
@click.argument("prefix", default="")
@seconds_option("--interval", default="1", help="Time between two refreshes.")
@number_option(
    "-n", "--limit", kind=click.IntRange(1), default=LISTED_MAX, help="Most queues to show, from the first by name."
)
@click.option(
    "--timeout",
    callback=time_limit,
    envvar="QUEUEBER_TIMEOUT",
    show_envvar=True,
    metavar="SECONDS",
    help=f"Time to wait for an answer; by default {ANSWER_SECONDS:g}, with --json without limit.",
)
@click.pass_obj
def top(server: ServerSelection, prefix: str, interval: int, limit: int, timeout: int | None) -> None:
    """
    Show the queues live: depth, rates, age, leases and workers.

    Only queues whose names begin with PREFIX, if it is given.  Keys sort and filter the list, open a queue, show the
    workers, and pause or resume a queue after a confirmation; h lists the keys.  --json prints a line per sample, and
    needs no terminal.
    """
    if not interval:
        raise click.BadParameter("0 is too short.", param_hint="--interval")
    if server.as_json:
        _print_samples(server, prefix, limit, interval, timeout)
    else:
        _run(server, prefix, limit, interval, timeout)


def _print_samples(server: ServerSelection, prefix: str, limit: int, interval: int, timeout: int | None) -> None:
    """Print a line of JSON for each sample."""
    rates = Rates()

    async def look(client: Client) -> str:
        found = await TopCalls(client, prefix, limit, monotonic).sample()
        rates.note(found)
        queues = []
        for each in found.queues:
            added, gone = rates.of(each.name)
            queues.append({**output.summary_json(each), "addedPerSecond": added, "removedPerSecond": gone})
        return json.dumps({"atMs": found.wall_ms, "queues": queues, "more": found.more})

    show(server._replace(timeout_ms=timeout), look, interval)


def _run(server: ServerSelection, prefix: str, limit: int, interval: int, timeout: int | None) -> None:
    # Imported here, because rich and Twisted take long, and --help uses neither.
    from twisted.internet.defer import TimeoutError as Late  # noqa: PLC0415

    from queueber.cli.session import Session  # noqa: PLC0415
    from queueber.cli.top_loop import TopLoop  # noqa: PLC0415
    from queueber.cli.top_terminal import Terminal, check_terminal  # noqa: PLC0415
    from queueber.client import connect  # noqa: PLC0415

    check_terminal()
    terminal = Terminal()

    async def main(reactor: Any) -> None:  # noqa: ANN401  (reactors have no common type)
        client = connect(reactor, server.address, tls=server.tls, attempts=1, retry_policy=lambda _: RETRY_SECONDS)
        questions = TopCalls(client, prefix, limit, reactor.seconds)
        state = Top(address=server.address, interval=interval / MS_PER_SECOND)
        try:
            await TopLoop(reactor, state, questions, terminal, in_seconds(timeout) or ANSWER_SECONDS).run()
        finally:
            # A silent server does not hold up the end.
            with suppress(Late):
                await client.close().addTimeout(RETRY_SECONDS, reactor)

    try:
        Session(main).run()
    finally:
        terminal.leave()
