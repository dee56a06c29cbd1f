"""
The benchmark: Queueber next to its peers, each as a process of its own, one at a time, driven by one load generator.

`--targets` prints the ratios that are aimed at, and nothing else.  `--baseline-commit` compares plain loads with an
earlier server.  Otherwise there is a table of every
load on every server, and `--out` writes a page, a picture and all figures.  A server
that is not installed is reported as missing.  The status is 1 when one answered anything unexpected.

The column `client` is how busy the load generator was: near 100 % the server
was not the bottleneck, and a figure is a lower bound.
"""

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

import report
import scenarios
import unused
from matrix import measure_matrix, print_rows
from peers import PEERS
from servers import NOT_A_DISK, Failed, filesystem
from targets import measure_targets

USUAL = {"seconds": 1.0, "warmup": 0.3, "repeats": 5, "minutes": 14}
QUICK = {"seconds": 0.5, "warmup": 0.2, "repeats": 1, "minutes": 2.5}


def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", action="store_true", help="measure what is aimed at, and nothing else")
    parser.add_argument(
        "--baseline-commit",
        metavar="COMMIT",
        help="measure plain loads on the server of that commit, too, and nothing else; make installs it",
    )
    parser.add_argument("--quick", action="store_true", help="a few loads, once, within three minutes")
    parser.add_argument("--full", action="store_true", help="all loads there are; takes hours")
    parser.add_argument("--minutes", type=float, help="begin no round that would end later (14; with --quick 2.5)")
    parser.add_argument("--seconds", type=float, help="how long one run measures")
    parser.add_argument("--warmup", type=float, help="how long it runs before that")
    parser.add_argument("--repeats", type=int, help="how many rounds at most")
    parser.add_argument("--peer", action="append", choices=PEERS, help="only this server; repeatable")
    parser.add_argument("--scenario", action="append", metavar="NAME", help="only this load, such as take-16x16x10")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write peers.md, peers.svg and peers.json there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    options = parser.parse_args(arguments)
    few_loads = options.targets or options.baseline_commit
    usual = {"seconds": 4.0, "warmup": 1.0, "repeats": 3} if few_loads else USUAL
    for name, value in (QUICK if options.quick else usual).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.full:
        options.minutes = float("inf")
    try:
        options.scenario = [scenarios.parsed(each) for each in options.scenario or ()]
    except ValueError as why:
        parser.error(f"--scenario: {why}")
    return options


def chosen(options):
    """The loads that were asked for."""
    if options.scenario:
        return options.scenario
    if options.full:
        return scenarios.all_scenarios()
    return scenarios.QUICK if options.quick else scenarios.USUAL


def main(arguments=None):
    options = parsed(arguments)
    if filesystem(Path.cwd()) in NOT_A_DISK:
        print("The current directory is in memory; start this on a disk.", file=sys.stderr)
        return 1
    if options.baseline_commit:
        try:
            unused.install(options.baseline_commit)
        except Failed as why:
            print(why, file=sys.stderr)
            return 1
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as scratch:
        kind = filesystem(Path(scratch)) or "an unknown file system"
        print(f"{options.seconds:g} s after {options.warmup:g} s of warm-up; {report.machine()}; data on {kind}")
        if options.baseline_commit:
            rows = unused.compare(options, Path(scratch))
        elif options.targets:
            rows = measure_targets(options, Path(scratch))
        else:
            rows, rounds = measure_matrix(chosen(options), options.peer or list(PEERS), options, Path(scratch))
            print_rows(rows)
            for row in rows:
                if "failed" in row:
                    print(f"{row['scenario']} on {row['server']}: {row['failed']}", file=sys.stderr)
            if options.out:
                report.write(options.out, rows, rounds, options, kind)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if any("failed" in row for row in rows) else 0


if __name__ == "__main__":
    # Ended from outside, it still ends its server and removes the data.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
