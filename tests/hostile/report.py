"""
Runs every live attack for a few seconds and prints a table: the result, and what the healthy client saw.

``python tests/hostile/report.py [--seconds S] [NAME …]``: all attacks, or those with
one of these words in their names.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

# Run as a script, Python looks for modules in this file's folder only.
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.hostile.arena import Arena, Disturbed, Healthy, serve
from tests.hostile.attacks import ATTACKS

QUIET_SECONDS = 2.0

MULTIPLE = 4
"""
The healthy client's p99 may be this multiple of its figure in the catalogue before an attack counts as failed.

Generous, because machines are shared: the same attack on the same server was seen to take three times as long while
others worked there.  For the same reason it may always be as many times what it was while nothing attacked.
"""

HEAD = "| Entry | Attack | Result | p50 | p99 | max | quiet p99 | Peak MiB |\n|---|---|---|--:|--:|--:|--:|--:|"


def row(attack, seconds, directory):
    """Carry out one attack on a server of its own; return the row of the table."""
    server = serve(attack, Path(directory))
    try:
        healthy = Healthy(server.port)
        time.sleep(0.5)
        healthy.report()
        time.sleep(QUIET_SECONDS)
        quiet = healthy.report()
        arena = Arena(server, server.port, seconds, full=True)
        sockets = arena.settled()
        arena.forget_peak()
        try:
            outcome = attack.run(arena)
        finally:
            arena.close()
        seen = healthy.report()
        peak = arena.server.memory("VmHWM")
        left = arena.settled(sockets) - sockets
        if left:
            outcome += f"; {left} CONNECTIONS LEFT"
        healthy.end()
    finally:
        server.kill()
        server.process.stdout.close()
    figures = [seen["p50"], seen["p99"], seen["max"], quiet["p99"]]
    if attack.p99_ms is not None and seen["p99"] is not None:
        most = MULTIPLE * max(attack.p99_ms, quiet["p99"] or 0.0)
        if seen["p99"] > most:
            raise Disturbed(f"{outcome}; but the healthy client's p99 was {seen['p99']:.0f} ms, more than {most:.0f}")
    cells = " | ".join("-" if each is None else f"{each:.1f}" for each in figures)
    return f"| {', '.join(attack.entries)} | {attack.name} | {outcome} | {cells} | {peak:.0f} |"


def main():
    """Print the table; return the number of attacks that did not end as they must."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="how long an attack lasts if it has no end")
    parser.add_argument("--without", action="append", default=[], metavar="WORD", help="leave these out; repeatable")
    parser.add_argument("words", nargs="*", metavar="NAME", help="only attacks with one of these in their names")
    asked = parser.parse_args()
    print(HEAD, flush=True)
    failed = tried = left_out = 0
    for attack in ATTACKS.values():
        if asked.words and not any(word in attack.name for word in asked.words):
            continue
        if any(word in attack.name for word in asked.without):
            continue
        if attack.why_not:
            print(f"| {', '.join(attack.entries)} | {attack.name} | not run: {attack.why_not} | | | | | |", flush=True)
            left_out += 1
            continue
        tried += 1
        with tempfile.TemporaryDirectory() as directory:
            try:
                print(row(attack, asked.seconds, directory), flush=True)
            except Exception as why:  # noqa: BLE001  (the others are to be seen all the same)
                failed += 1
                print(f"| {', '.join(attack.entries)} | {attack.name} | FAILED: {why!r:.200} | | | | | |", flush=True)
    bound = "unknown" if failed or not tried else f"at most {3 / tried:.3g} (3/n)"
    # As `tests/proof/run.py` adds it up.
    print(f"hostile: {tried:,} attacks, {failed:,} failures, bound on the rate {bound}; voids {left_out}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
