"""
Features that are not used must cost nothing: plain adds, polls and removes on this server and on an earlier one.

Each load runs on both, in turns: noise of the machine that lasts longer than a
run meets both.  The spread of the rounds is printed with each ratio, because a
ratio within it says nothing.
"""

import subprocess
import sys

from peers import PEERS
from scenarios import parsed
from servers import ROOT, Failed
from targets import OURS, measured, middle

LOADS = [
    parsed(name)
    for name in (
        "add-1x1x1-mixed",
        "add-64x1x1-mixed",
        "add-4x64x1-mixed",
        "add-4x64x1",
        "add-4x16x100-mixed",
        "take-1x1x1-mixed",
        "take-64x1x1-mixed",
        "take-16x16x10-mixed",
        "cycle-128x1x1-mixed",
    )
]
BASELINE = "baseline"
LEAST = 0.95
"""Of the earlier server's rate."""

ROW = "{:<22} {:>11} {:>11} {:>7} {:>8} {:>10} {:>10} {:>9} {:>9}"


def install(commit):
    """Have `make` install the server of *commit*, and measure that as the baseline from now on."""
    PEERS[BASELINE].commit = commit
    known = ["git", "rev-parse", "--quiet", "--verify", f"{commit}^{{commit}}"]
    make = ["make", "--silent", "baseline", f"BASELINE_COMMIT={commit}"]
    for command in (known, make):
        if subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode:
            raise Failed(f"the server of commit {commit} cannot be installed")


def compare(options, scratch):
    """Measure each load on both servers; print what was found, and return it as values."""
    chosen = options.scenario or LOADS
    runs = {(scenario, name): [] for scenario in chosen for name in (OURS, BASELINE)}
    for round_ in range(options.repeats):
        for scenario in chosen:
            # In turns, and each second round the other way around.
            for name in (OURS, BASELINE)[:: -1 if round_ % 2 else 1]:
                print(f"round {round_ + 1}: {scenario.name} on {name}", file=sys.stderr, flush=True)
                runs[scenario, name].append(measured(name, scenario, scratch, options))
    print(ROW.format("load", "items/s", "before", "ratio", "spread", "thread us", "before", "p99 ms", "before"))
    return [compared(scenario, runs[scenario, OURS], runs[scenario, BASELINE]) for scenario in chosen]


def compared(scenario, ours, theirs):
    """Print a row; return it as values."""
    spread = max(max(rates) / min(rates) for each in (ours, theirs) for rates in [[run["rate"] for run in each]]) - 1
    now, before = middle(ours), middle(theirs)
    ratio = now["rate"] / before["rate"]
    figures = [
        f"{now['thread_us']:.1f}",
        f"{before['thread_us']:.1f}",
        f"{now['p99_ms']:.2f}",
        f"{before['p99_ms']:.2f}",
    ]
    rates = [f"{each['rate']:,.0f}" for each in (now, before)]
    met = ratio >= LEAST
    note = "" if met else f"  MISSED (at least {LEAST:g})"
    print(ROW.format(scenario.name, *rates, f"{ratio:.2f}", f"{spread:.0%}", *figures) + note, flush=True)
    return {"load": scenario.name, "ratio": ratio, "spread": spread, "met": met, "ours": now, "theirs": before}
