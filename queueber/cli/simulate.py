"""``queueber simulate``: a simulation of producers and thousands of workers that accounts for every task."""

import json
import secrets
import sys
from collections.abc import Mapping
from typing import Any

import click

from queueber.cli.arguments import FiniteFloat, number_option, seconds_option
from queueber.cli.load import queue_for, run_load
from queueber.cli.server_options import ResultsCommand, ServerSelection
from queueber.cli.terminal import LoadDisplay
from queueber.limits import DEFAULTS
from queueber.loadgen.clients import Fleet
from queueber.loadgen.ledger import balanced
from queueber.loadgen.results import percentiles_text
from queueber.loadgen.simulation import Simulation, SimulationOptions
from queueber.units import MS_PER_SECOND, counted

WORKERS_MAX = 50_000
EXIT_UNBALANCED = 1

EXPLAINED = {
    "adds unknown": "tasks whose add was not answered: they may be stored or not",
    "duplicates": "deliveries of a task that had been delivered before, for example after an expired lease",
    "extended": "leases that a worker extended before a task",
    "extended too late": "leases that had ended when a worker extended them, or whose extension was not answered",
    "foreign": "items that are not tasks of this simulation",
    "forgotten": "tasks whose worker let the lease expire on purpose",
    "found": "tasks that were still there at the end",
    "produced": "tasks whose add was acknowledged",
    "refused": "tasks whose add was refused, for example by an overloaded server",
    "removed": "tasks whose remove was acknowledged",
    "taken": "deliveries of tasks to workers",
    "too late": "removes that changed nothing, because the lease had ended",
    "unacknowledged": "tasks that are stored although their add was not answered",
    "unknown": "tasks that are gone after a remove that was not answered",
}
"""Explanations of the counters, by name."""

_probability = FiniteFloat(0, 1)


@click.command(cls=ResultsCommand)
@number_option("--workers", kind=click.IntRange(1, WORKERS_MAX), default=100, help="Number of workers.")
@number_option(
    "--tasks-per-worker",
    kind=click.IntRange(1, DEFAULTS.poll_items),
    default=1,
    help="Most tasks that a worker takes in one poll.",
)
@number_option("--producers", kind=click.IntRange(1, WORKERS_MAX), default=4, help="Number of producers.")
@number_option(
    "--production-rate",
    kind=FiniteFloat(0, 1e6, min_open=True),
    default=50,
    help="Tasks per second of all producers together.",
)
@seconds_option("--min-exec-time", "min_exec", default="0.1", help="Shortest work on a task.")
@seconds_option("--max-exec-time", "max_exec", default="2", help="Longest work on a task.")
@number_option(
    "--extend-prob", kind=_probability, default=0.1, help="Probability that a worker extends its lease before a task."
)
@number_option(
    "--expiry-prob", kind=_probability, default=0.05, help="Probability that a worker lets its lease expire."
)
@seconds_option("--duration", default="30", help="Time to run.")
@seconds_option("--lease-validity", "lease", default="5", help="Length of leases.")
@click.option(
    "--seed", type=int, metavar="NUMBER", help="Seed of the random numbers, to repeat a run; printed with the results."
)
@click.pass_obj
def simulate(server: ServerSelection, /, **options: Any) -> None:  # noqa: ANN401  (click checks them)
    """
    Simulate producers and workers, and account for every task.

    Workers take tasks, work on each for a while, extend some leases and let some expire.  The queue is a new one, or
    the one given by --queue, which must be empty and not in use.

    At the end each task must be removed, waiting or leased.  The exit status is 1 if the sums differ, if a promise was
    broken, or if the server is gone and the tasks cannot be counted.  Each row of the results explains its count.

    At Ctrl-C or SIGTERM the simulation ends without an account, and its tasks are removed, for at most 8 seconds.
    """
    parameters = _parameters(**options)

    def make(fleet: Fleet, display: LoadDisplay) -> Simulation:
        return Simulation(fleet, parameters, display, f"{secrets.token_hex(4)}-")

    def show(run: Simulation) -> bool:
        return _print_results(run, as_json=server.as_json)

    if not show(run_load(server, queue_for(server, "simulate"), make, show)):
        sys.exit(EXIT_UNBALANCED)


def _parameters(*, seed: int | None, **options: Any) -> SimulationOptions:  # noqa: ANN401
    if options["min_exec"] > options["max_exec"]:
        raise click.UsageError("--min-exec-time is longer than --max-exec-time.")
    if not options["lease"]:
        raise click.BadParameter("0 is too short for a lease.", param_hint="--lease-validity")
    for name in ("min_exec", "max_exec", "duration"):
        options[name] /= MS_PER_SECOND
    return SimulationOptions(seed=secrets.randbits(32) if seed is None else seed, **options)


def _print_results(run: Simulation, *, as_json: bool) -> bool:
    """Print the results, as far as they are known.  Return whether the account balances without faults."""
    account, ledger = run.account, run.ledger
    met = bool(account) and balanced(account) and not ledger.faults
    if as_json:
        found = {
            "seed": run.options.seed,
            "account": account or None,
            "balanced": met if account else None,
            "faults": dict(ledger.faults),
            "counts": dict(ledger.counts),
            "latency_ms": {name: latency.milliseconds() for name, latency in run.latencies.items()},
        }
        click.echo(json.dumps(found))
        return met
    for name, value in sorted(ledger.counts.items()):
        click.echo(f"{name:<20} {value:>12,}   {EXPLAINED[name]}")
    for name, latency in run.latencies.items():
        click.echo(f"{name:<20} {percentiles_text(latency)}   (from a call to its answer)")
    for fault, number in ledger.faults.items():
        click.echo(f"BROKEN: {number:,} {fault}: {', '.join(ledger.samples[fault])}")
    click.echo(_account_text(account) if account else _counts_text(ledger.counts), nl=False)
    click.echo(f"; seed {run.options.seed}")
    return met


def _repeated(number: int) -> str:
    return f"{counted(number, 'delivery', 'deliveries')} {_were(number)} not the first"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _account_text(account: Mapping[str, int]) -> str:
    """Return the account as text."""
    came = account["produced"] + account["unacknowledged"]
    return (
        f"{came:,} produced {'=' if balanced(account) else 'is not'} {account['removed']:,} removed"
        f" + {account['waiting']:,} waiting + {account['leased']:,} leased + {account['unknown']:,} unknown;"
        f" {_repeated(account['duplicates'])}"
        + (
            f"; {counted(account['foreign'], 'item')} {_were(account['foreign'])} not its own"
            if account["foreign"]
            else ""
        )
    )


def _counts_text(counts: Mapping[str, int]) -> str:
    """Return the known counts as text, for a run that ended before its account."""
    return (
        f"the account is not closed: {counts['produced']:,} produced, {counts['removed']:,} removed;"
        f" {_repeated(counts['duplicates'])}"
    )
