"""
The gain of each optimization: the server without it, next to the server with its defaults.

Every variant differs in one thing.  Some are options that anyone may set; others put
something back that the code does, by changing it in the server's process before it
starts.  Rounds go through all variants, a figure is the median over the rounds, and a
ratio is to the server as it comes in the same run: above 1 the variant is faster.

The column `commit` is for how much of the time a commit was under way: what the storage
threads are busy with under a load of this kind.
"""

import argparse
import sys
import tempfile
import urllib.request
from pathlib import Path
from statistics import median

from attrs import frozen
from peers import PEERS
from peers.queueber import Queueber
from scenarios import parsed
from servers import Failed, free_port, load, running
from targets import figures

LOADS = ("add-4x64x1", "add-64x1x1", "add-4x16x100", "take-16x16x10", "add-1x1x1")

AS_IT_COMES = "as it comes"


@frozen
class Patch:
    """A name of the server's that has another value; a name that is not there is an error."""

    module: str
    name: str
    """Dotted within the module."""

    value: str
    """A Python expression in which `module` is that module."""

    @property
    def program(self) -> str:
        """Python that applies it."""
        owner, _, last = f"module.{self.name}".rpartition(".")
        return (
            f"import importlib; module = importlib.import_module({self.module!r});"
            f" {owner}.{last}; {owner}.{last} = {self.value}"
        )


@frozen
class Variant:
    """The server with one thing changed."""

    name: str
    options: tuple[str, ...] = ()
    patch: Patch | None = None
    """Applied in the server's process before it starts."""


VARIANTS = (
    Variant(AS_IT_COMES),
    Variant("durability os", ("--durability", "os")),
    Variant("durability none", ("--durability", "none")),
    Variant("every call read in full", patch=Patch("queueber.rpc.fastpath", "FastPath.take", "lambda self: None")),
    Variant(
        "replies through the transport's buffer",
        patch=Patch("queueber.server.net.send_buffer", "socket_transport", "lambda transport: None"),
    ),
    Variant(
        "Python's own collector thresholds",
        patch=Patch("queueber.server.app.service", "GC_THRESHOLDS", "(700, 10, 10)"),
    ),
    Variant("Python's own switch interval", patch=Patch("queueber.server.app.service", "SWITCH_SECONDS", "0.005")),
    Variant("no gathering before a cut", patch=Patch("queueber.server.core.committer", "GATHER_SECONDS", "0.0")),
    Variant("packed values", ("--storage-encoding", "packed")),
    Variant("commits wait 1 ms for more", ("--coalesce-batch-window-ms", "1")),
    Variant("no compression", ("--storage-compression", "none")),
    Variant("1 worker", ("--workers", "1")),
    Variant("4 workers", ("--workers", "4")),
    Variant("16 workers", ("--workers", "16")),
)


class Varied(Queueber):
    """A server that is started as its variant says."""

    def __init__(self, variant):
        self.variant = variant
        self.http = free_port()

    def command(self, port, directory):
        usual = super().command(port, directory)
        options = [*usual[3:], "--http", f"tcp:{self.http}:interface=127.0.0.1", *self.variant.options]
        patch = self.variant.patch.program if self.variant.patch is not None else "pass"
        start = "import runpy, sys; sys.argv[0] = 'twist'; runpy.run_module('twisted', run_name='__main__')"
        return [sys.executable, "-c", f"{patch}\n{start}", *options]

    def commit_seconds(self):
        """The time for which commits have been under way so far; None if that is not known."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return None
        return next((float(line.split()[1]) for line in lines if line.startswith("queueber_commit_seconds_sum")), None)


def measured(variant, scenario, scratch, options):
    """The figures of *scenario* on a fresh server of that *variant*."""
    peer = PEERS[variant.name] = Varied(variant)
    with running(variant.name, scratch) as (port, pid):
        found = figures(load(Queueber.name, port, pid, scenario, seconds=options.seconds, warmup=options.warmup))
        seconds = peer.commit_seconds()
    found["commit"] = None if seconds is None else seconds / (options.seconds + options.warmup)
    return found


def tables(runs, scenarios):
    """The lines of a Markdown table for each load."""
    for scenario in scenarios:
        yield from (f"### {scenario.name}", "", "| variant | items/s | ratio | p50 ms | p99 ms | thread us | commit |")
        yield "|---|---:|---:|---:|---:|---:|---:|"
        usual = median(run["rate"] for run in runs[scenario, AS_IT_COMES])
        for (of, name), found in runs.items():
            if of is scenario:
                rate, p50, p99, thread = (
                    median(run[key] for run in found) for key in ("rate", "p50_ms", "p99_ms", "thread_us")
                )
                commits = [run["commit"] for run in found if run["commit"] is not None]
                busy = f"{median(commits):.0%}" if commits else "-"
                yield f"| {name} | {rate:,.0f} | {rate / usual:.2f} | {p50:.2f} | {p99:.2f} | {thread:.1f} | {busy} |"
        yield ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long one run measures")
    parser.add_argument("--warmup", type=float, default=0.5, help="how long it runs before that")
    parser.add_argument("--repeats", type=int, default=3, help="how many rounds")
    parser.add_argument(
        "--load", action="append", metavar="NAME", help=f"only this one of {', '.join(LOADS)}, or another"
    )
    parser.add_argument("--only", action="append", metavar="WORDS", help="only variants whose names have these in them")
    options = parser.parse_args()
    variants = [
        each
        for each in VARIANTS
        if not options.only or each.name == AS_IT_COMES or any(word in each.name for word in options.only)
    ]
    scenarios = [parsed(name) for name in options.load or LOADS]
    runs, status = {}, 0
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as scratch:
        for round_ in range(options.repeats):
            for scenario in scenarios:
                for variant in variants:
                    print(f"round {round_ + 1}: {scenario.name}, {variant.name}", file=sys.stderr, flush=True)
                    try:
                        run = measured(variant, scenario, Path(scratch), options)
                    except Failed as why:
                        print(f"{scenario.name}, {variant.name}: {why}", file=sys.stderr, flush=True)
                        status = 1
                    else:
                        runs.setdefault((scenario, variant.name), []).append(run)
    print("\n".join(tables(runs, scenarios)))
    return status


if __name__ == "__main__":
    sys.exit(main())
