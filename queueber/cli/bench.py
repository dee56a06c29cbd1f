"""``queueber bench``: measure a server through the client that programs use."""

import json
import sys
from pathlib import Path

import click

from queueber.cli.arguments import LocalPath, seconds
from queueber.cli.server_options import ServerCommand
from queueber.cli.session import Interrupted
from queueber.errors import QueueberError
from queueber.loadgen.clients import Fleet, Target, queue_for, refuse_unless_empty, with_fleet
from queueber.loadgen.plot import Group, svg
from queueber.loadgen.progress import Show, table
from queueber.loadgen.scenarios import TRIALS, Bench, Result
from queueber.units import MS_PER_SECOND

HEADING = ("scenario", "items/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms")


@click.command(cls=ServerCommand)
@click.option(
    "--duration",
    "each",
    callback=seconds,
    default="3",
    show_default=True,
    metavar="SECONDS",
    help="Duration of each scenario.",
)
@click.option("--seconds", "old", callback=seconds, hidden=True)
@click.option(
    "--plot",
    type=LocalPath(path_type=Path, dir_okay=False),
    metavar="FILE.svg",
    help="Write a chart of the results to this file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_obj
def bench(server: Target, each: int, old: int | None, plot: Path | None, as_json: bool) -> None:
    """
    Measure a server with a few fixed scenarios.

    All clients are in one process that uses Queueber's Python client, so the results are those of a Python program,
    below the server's capacity.  The scenarios fill and empty queues whose names begin with --queue, or with a new
    name.  Those queues must be empty before.
    """
    each = each if old is None else old
    if not each:
        raise click.BadParameter("0 is too short to measure anything.", param_hint="--duration")
    if plot is not None:
        _try_to_write(plot)
    name, show = queue_for(server, "bench"), Show(quiet=as_json)
    results: list[Result] = []

    async def work(fleet: Fleet) -> None:
        await refuse_unless_empty(fleet, server, *(f"{name}-{number}" for number in range(len(TRIALS))))
        await Bench(fleet, each / MS_PER_SECOND, show, name, results).run()

    try:
        with_fleet(server, name, work)
    except (Interrupted, QueueberError):
        # The scenarios that are finished are worth having.
        show.end()
        if results:
            _print_results(results, as_json=as_json)
        raise
    _print_results(results, as_json=as_json)
    if plot is not None:
        plot.write_text(picture(results))


def _try_to_write(plot: Path) -> None:
    """Check that *plot* can be written, before the measurement.  An existing file is not changed."""
    there = plot.exists()
    try:
        plot.open("ab").close()
        if not there:
            plot.unlink()
    except OSError as why:
        raise click.BadParameter(f"{plot} cannot be written: {why.strerror}", param_hint="--plot") from None


def _print_results(results: list[Result], *, as_json: bool) -> None:
    if as_json:
        found = [
            {
                "scenario": result.trial.name,
                "items_per_second": round(result.rate, 1),
                "latency_ms": result.latency.milliseconds(),
            }
            for result in results
        ]
        json.dump(found, sys.stdout)
        click.echo()
        return
    rows = []
    for result in results:
        times = [f"{value:,.2f}" for value in result.latency.milliseconds().values()]
        rows.append((result.trial.name, f"{result.rate:,.0f}", *times))
    table("queueber bench", HEADING, rows)


def picture(results: list[Result]) -> str:
    """Return a chart of rates and p99 latencies of all scenarios as SVG."""
    rates = {result.trial.name: result.rate for result in results}
    p99 = {result.trial.name: result.latency.milliseconds()["p99"] for result in results}
    return svg("queueber bench", [Group("items in a second", rates), Group("99 % of the calls within", p99, "ms")])
