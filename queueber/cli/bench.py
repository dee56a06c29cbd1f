"""``queueber bench``: measure a server through the client that programs use."""

import json
import sys
from functools import partial
from pathlib import Path

import click

from queueber.cli.arguments import LocalPath, seconds, seconds_option
from queueber.cli.load import queue_for, run_load
from queueber.cli.server_options import ResultsCommand, ServerSelection
from queueber.cli.terminal import LoadDisplay, print_table
from queueber.loadgen.clients import Fleet
from queueber.loadgen.results import BarGroup, bar_chart
from queueber.loadgen.scenarios import SCENARIOS, Bench, ScenarioResult
from queueber.units import MS_PER_SECOND

HEADING = ("scenario", "items/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms")


@click.command(cls=ResultsCommand)
@seconds_option("--duration", "each", default="3", help="Duration of each scenario.")
@click.option("--seconds", "old", callback=seconds, hidden=True)
@click.option(
    "--plot",
    type=LocalPath(path_type=Path, dir_okay=False),
    metavar="FILE.svg",
    help="Write a chart of the results to this file.",
)
@click.pass_obj
def bench(server: ServerSelection, each: int, old: int | None, plot: Path | None) -> None:
    """
    Measure a server with a few fixed scenarios.

    All clients are in one process that uses Queueber's Python client, so the results are those of a Python program,
    below the server's capacity.  The scenarios fill and empty queues whose names begin with --queue, or with a new
    name.  Those queues must be empty before.

    At Ctrl-C or SIGTERM the queue in use is emptied, for at most 8 seconds; a second one ends the command at once.
    """
    each = each if old is None else old
    if not each:
        raise click.BadParameter("0 is too short to measure anything.", param_hint="--duration")
    if plot is not None:
        _check_writable(plot)
    name = queue_for(server, "bench")
    queues = [f"{name}-{number}" for number in range(len(SCENARIOS))]

    def make(fleet: Fleet, display: LoadDisplay) -> Bench:
        return Bench(fleet, each / MS_PER_SECOND, display, name)

    show_unfinished = partial(_print_unfinished, as_json=server.as_json)
    results = run_load(server, name, make, show_unfinished, names=queues).results
    _print_results(results, as_json=server.as_json)
    if plot is not None:
        plot.write_text(chart(results))


def _check_writable(plot: Path) -> None:
    """Check that *plot* can be written, before the measurement.  An existing file is not changed."""
    there = plot.exists()
    try:
        plot.open("ab").close()
        if not there:
            plot.unlink()
    except OSError as why:
        raise click.BadParameter(f"{plot} cannot be written: {why.strerror}", param_hint="--plot") from None


def _print_unfinished(run: Bench, *, as_json: bool) -> None:
    """Print the results of the scenarios that were finished, and the queue in which items may be left."""
    if run.results:
        _print_results(run.results, as_json=as_json)
    if run.queue_in_use is not None:
        click.echo(f"queueber: items of this run may be left in the queue {run.queue_in_use}", err=True)


def _print_results(results: list[ScenarioResult], *, as_json: bool) -> None:
    if as_json:
        found = [
            {
                "scenario": result.scenario.name,
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
        rows.append((result.scenario.name, f"{result.rate:,.0f}", *times))
    print_table("queueber bench", HEADING, rows)


def chart(results: list[ScenarioResult]) -> str:
    """Return a chart of rates and p99 latencies of all scenarios as SVG."""
    rates = {result.scenario.name: result.rate for result in results}
    p99 = {result.scenario.name: result.latency.milliseconds()["p99"] for result in results}
    return bar_chart(
        "queueber bench", [BarGroup("items per second", rates), BarGroup("99 % of the calls within", p99, "ms")]
    )
