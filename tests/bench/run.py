"""
The benchmark: Queueber with each durability next to pycapnp's own RPC server, driven by the same client.

Every scenario starts fresh servers, one at a time, as processes of their own;
`load.py` makes the calls from another.  What is printed is the median of the
repeats by rate; `--json` keeps them all.  The status is 1 when a server answered
anything unexpected.

The column `client` is how busy the load generator was: near 100 % the server
was not the bottleneck, and a figure is a lower bound.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

BASELINE = "pycapnp"
DURABILITIES = ("fsync", "os", "none")
CONNECTIONS = 4
SCENARIOS = {
    f"{kind}-{window}x{items}": (kind, window, items)
    for kind in ("add", "take")
    for window in (1, 64)
    for items in (1, 10)
}
WORDS = {"add": "add", "take": "poll + remove"}

PRELOAD_PER_SECOND = {1: 10_000, 64: 25_000}
"""Items to take for each second, by the window; a load that finds no more ends early."""

START_SECONDS = 30
STOP_SECONDS = 30
NOT_A_DISK = {"tmpfs", "ramfs", "devtmpfs"}


class Failed(Exception):
    """A server did not start, or did not answer as it should."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def command(server, port, data):
    if server == BASELINE:
        return [sys.executable, str(HERE / "baseline.py"), str(port)]
    listen = ["--listen", f"127.0.0.1:{port}"]
    return [sys.executable, "-m", "twisted", "queueber", *listen, "--data-dir", str(data), "--durability", server]


@contextlib.contextmanager
def running(server, scratch):
    """A fresh server of the kind *server*: its port and its process."""
    port, data, log = free_port(), scratch / "data", scratch / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command(server, port, data), stdout=out, stderr=out, cwd=ROOT)
    try:
        wait_for(port, process, log)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(data, ignore_errors=True)


def wait_for(port, process, log):
    """Return when somebody listens on *port*."""
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.05)
    raise Failed(f"the server did not start: {log.read_text()[-2000:]}")


def load(port, pid, scenario, seconds, warmup):
    kind, window, items = SCENARIOS[scenario]
    wanted = {
        "port": port,
        "pid": pid,
        "kind": kind,
        "connections": CONNECTIONS,
        "window": window,
        "items": items,
        "preload": int(PRELOAD_PER_SECOND[window] * (seconds + warmup)) if kind == "take" else 0,
        "warmup": warmup,
        "seconds": seconds,
    }
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    client = subprocess.run(
        [sys.executable, str(HERE / "load.py"), json.dumps(wanted)],
        stdout=subprocess.PIPE,
        env=environment,
        check=False,
    )
    if client.returncode:
        raise Failed(f"the load generator ended with status {client.returncode}")
    answer = json.loads(client.stdout)
    if "error" in answer:
        raise Failed(answer["error"])
    return answer


def figures(scenario, run):
    """What is reported of one run."""
    counted = run["calls"] if SCENARIOS[scenario][0] == "add" else run["items"]
    return {
        "rate": counted / run["seconds"],
        "p50_ms": run["p50_ms"],
        "p99_ms": run["p99_ms"],
        "cpu_us": run["server_cpu"] / run["calls"] * 1e6,
        "client": run["client_cpu"] / run["seconds"],
    }


def measure(scenario, server, scratch, options):
    """All repeats of one scenario on one server, and their median."""
    with running(server, scratch) as (port, pid):
        repeats = [
            figures(scenario, load(port, pid, scenario, options.seconds, options.warmup))
            for _ in range(options.repeats)
        ]
    median = sorted(repeats, key=lambda each: each["rate"])[len(repeats) // 2]
    return {"scenario": scenario, "server": server, **median, "repeats": repeats}


COLUMNS = "{:<14} {:>3} {:>5}  {:<8} {:>9} {:<7} {:>8} {:>8} {:>9} {:>6} {:>6}"


def heading():
    return COLUMNS.format(
        "calls", "fly", "items", "server", "rate", "", "p50 ms", "p99 ms", "us/call", "ratio", "client"
    )


def line(row):
    kind, window, items = SCENARIOS[row["scenario"]]
    if "error" in row:
        return COLUMNS.format(WORDS[kind], window, items, row["server"], "failed", *[""] * 6).rstrip()
    return COLUMNS.format(
        WORDS[kind],
        window,
        items,
        row["server"],
        f"{row['rate']:,.0f}",
        "calls/s" if kind == "add" else "items/s",
        f"{row['p50_ms']:.2f}",
        f"{row['p99_ms']:.2f}",
        f"{row['cpu_us']:.1f}",
        f"{row['ratio']:.2f}" if row["ratio"] else "-",
        f"{row['client']:.0%}",
    )


def filesystem(path):
    """The type of the file system that *path* is on; empty where that cannot be known."""
    try:
        mounts = [each.split() for each in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    holds = [(len(mount[1]), mount[2]) for mount in mounts if path.is_relative_to(mount[1])]
    return max(holds, default=(0, ""))[1]


def measure_all(options, scratch):
    """The rows of the table, printed as they come."""
    rows = []
    print(heading(), flush=True)
    for scenario in options.scenario or SCENARIOS:
        baseline = None
        for server in (BASELINE, *(options.durability or DURABILITIES)):
            try:
                row = measure(scenario, server, scratch, options)
            except Failed as why:
                row = {"scenario": scenario, "server": server, "error": str(why)}
                print(f"{scenario} on {server}: {why}", file=sys.stderr)
            else:
                if server == BASELINE:
                    baseline = row["rate"]
                row["ratio"] = row["rate"] / baseline if baseline else None
            rows.append(row)
            print(line(row), flush=True)
    return rows


def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repeat of a second")
    parser.add_argument("--seconds", type=float, help="how long one repeat measures (4; with --quick 1)")
    parser.add_argument("--warmup", type=float, help="how long it runs before that (1; with --quick 0.3)")
    parser.add_argument("--repeats", type=int, help="how often (3; with --quick 1)")
    parser.add_argument("--durability", action="append", choices=DURABILITIES, help="only this one; repeatable")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only this one; repeatable")
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
            f"{CONNECTIONS} connections, items of 64 bytes; {options.repeats} x {options.seconds:g} s after "
            f"{options.warmup:g} s of warm-up; {len(os.sched_getaffinity(0))} cores; data on {kind}"
        )
        rows = measure_all(options, Path(scratch))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if any("error" in row for row in rows) else 0


if __name__ == "__main__":
    # Ended from outside, it still ends its server and removes the data.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
