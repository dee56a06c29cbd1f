"""
The benchmark: Queueber next to its peers, each as a process of its own, one at a time, driven by one load generator.

`--targets` prints the ratios that are aimed at.  The status is 1 when a server answered anything unexpected.

The column `client` is how busy the load generator was: near 100 % the server
was not the bottleneck, and a figure is a lower bound.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from servers import NOT_A_DISK, filesystem
from targets import measure_targets


def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", action="store_true", help="measure what is aimed at, and nothing else")
    parser.add_argument("--quick", action="store_true", help="one repeat of a second")
    parser.add_argument("--seconds", type=float, help="how long one repeat measures (4; with --quick 1)")
    parser.add_argument("--warmup", type=float, help="how long it runs before that (1; with --quick 0.3)")
    parser.add_argument("--repeats", type=int, help="how often (3; with --quick 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    options = parser.parse_args(arguments)
    for name, usual, quick in (("seconds", 4.0, 1.0), ("warmup", 1.0, 0.3), ("repeats", 3, 1)):
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else usual)
    return options


def main(arguments=None):
    options = parsed(arguments)
    if filesystem(Path.cwd()) in NOT_A_DISK:
        print("The current directory is in memory; start this on a disk.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as scratch:
        kind = filesystem(Path(scratch)) or "an unknown file system"
        print(
            f"{options.repeats} x {options.seconds:g} s after {options.warmup:g} s of warm-up; "
            f"{len(os.sched_getaffinity(0))} cores; data on {kind}"
        )
        rows = measure_targets(options, Path(scratch))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if any("failed" in row for row in rows) else 0


if __name__ == "__main__":
    # Ended from outside, it still ends its server and removes the data.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
