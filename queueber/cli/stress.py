"""``queueber stress``: load a server with adds and polls, at full speed or at a given rate."""

import json
from typing import Any

import click

from queueber.cli.arguments import FiniteFloat, number_option, seconds_option
from queueber.cli.load import queue_for, run_load
from queueber.cli.server_options import ResultsCommand, ServerSelection
from queueber.cli.terminal import print_table
from queueber.limits import DEFAULTS
from queueber.loadgen.stress import RATES, Stress, StressOptions
from queueber.units import MS_PER_SECOND, counted

CLIENTS_MAX = 5_000


@click.command(cls=ResultsCommand)
@number_option(
    "--polling-clients", kind=click.IntRange(0, CLIENTS_MAX), default=4, help="Connections that poll and remove."
)
@number_option("--adding-clients", kind=click.IntRange(0, CLIENTS_MAX), default=4, help="Connections that add.")
@number_option(
    "--rate",
    kind=FiniteFloat(0, 1e9),
    default=0,
    help="Items to add per second, by all clients together; 0 for full speed.",
)
@seconds_option("--duration", default="30", help="Time to run.")
@number_option(
    "--batch",
    kind=click.IntRange(1, DEFAULTS.items_per_add),
    default=1,
    help="Items per add, and most items per poll.",
)
@number_option("--size", kind=click.IntRange(0, DEFAULTS.contents_bytes), default=64, help="Bytes per item.")
@click.pass_obj
def stress(server: ServerSelection, /, duration: int, **given: Any) -> None:  # noqa: ANN401
    """
    Load a server with adds and polls, at full speed or at a given rate.

    Every client has a connection of its own.  The queue is a new one, or the one given by --queue, which must be empty.
    Only items of this load are removed.

    After --duration, or at Ctrl-C or SIGTERM, the measurement ends and the remaining items are removed over other
    connections.  That ends when no item has arrived for half a minute, 8 seconds after a signal, or at a second signal.
    The number of items that remain then is printed.

    Adds, polls and removes are counted in items, extends in leases, and times per call.
    """
    options = StressOptions(duration=duration / MS_PER_SECOND, **given)
    if not options.polling_clients + options.adding_clients:
        raise click.UsageError("There are no clients: one of --polling-clients and --adding-clients must be above 0.")
    if not duration:
        raise click.BadParameter("0 is too short for a load.", param_hint="--duration")
    # Checked before anything of that size is allocated.
    size = options.batch * options.size
    if size > DEFAULTS.add_bytes:
        raise click.UsageError(
            f"--batch times --size is {size:,} bytes; the limit is {DEFAULTS.add_bytes:,} (add_bytes)."
        )

    def show(run: Stress) -> None:
        if run.seconds:
            _print_results(run, as_json=server.as_json)

    show(run_load(server, queue_for(server, "stress"), lambda fleet, display: Stress(fleet, options, display), show))


def _print_results(run: Stress, *, as_json: bool) -> None:
    lasted, counts = run.seconds, run.counted
    totals = {name: counts[name] for name in (*RATES, "refused", "overloaded")}
    rates = {name: round(counts[name] / lasted, 1) for name in RATES}
    if as_json:
        found: dict[str, Any] = {
            "seconds": round(lasted, 3),
            "totals": totals,
            "queue": run.fleet.queue,
            "left": run.left,
            "per_second": rates,
            "latency_ms": {name: latency.milliseconds() for name, latency in run.latencies.items()},
            "sharing": run.commit_sharing(),
        }
        click.echo(json.dumps(found))
        return
    click.echo(f"in {lasted:,.1f} s: " + ", ".join(f"{value:,.0f} {name}/s" for name, value in rates.items()))
    click.echo("in total: " + ", ".join(f"{value:,} {name}" for name, value in totals.items()))
    click.echo("(adds, polls and removes count items; extends count leases)")
    rows = []
    for name, latency in run.latencies.items():
        times = [f"{value:,.2f}" for value in latency.milliseconds().values()]
        rows.append((name, f"{latency.count:,}", *times))
    print_table("Latency of calls", ("call", "calls", "p50 ms", "p99 ms", "p99.9 ms", "max ms"), rows)
    shared = run.commit_sharing()
    click.echo(
        f"{counted(run.polled, 'poll')} returned items, in {counted(len(run.polls_by_deadline), 'commit')}: "
        f"{shared['polls_per_commit']:,} per commit; "
        f"{shared['shared']:.0%} shared a commit (estimated from the millisecond in which their leases began)"
    )
    if run.left:
        click.echo(
            f"{counted(run.left, 'item')} {'is' if run.left == 1 else 'are'} left in the queue {run.fleet.queue}"
        )
