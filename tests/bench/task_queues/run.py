"""
Task libraries next to each other: the same no-op task, one after the other, each figure with a fresh broker.

For every library and broker: tasks a second of one and of four worker
processes, from tasks that were added before the workers start; the time from
an add to the start of the task with an idle worker; the memory of a worker;
and what a `kill -9` of a worker with all its processes costs, when another
one is started at once.

`make .bench-tasks/.ready` installs the libraries, each in an environment of its
own.  A library or broker that is not installed is reported as missing.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from apps.record import RECORD  # noqa: E402  (needs the path)
from libraries import APPS, LIBRARIES, URLS  # noqa: E402
from measures import family  # noqa: E402
from peers import PEERS  # noqa: E402
from peers.redis import Redis  # noqa: E402
from servers import Failed, Missing, running  # noqa: E402

THROUGHPUT_SECONDS = 40
"""Workers that have not run all tasks by then are measured by what they ran."""

COMEBACK_SECONDS = 60
"""A task that has not been started again by then counts as not back."""

LATENCY_TASKS, LATENCY_INTERVAL = 200, 0.1
"""A tenth of a second is longer than any of the libraries takes for a task, so that the worker is idle at each add."""

LONG_SECONDS = 3.0
SHORT_TASKS = 50


class AsItComes(Redis):
    """Redis with the configuration that Debian's package and the upstream have: snapshots, no append-only file."""

    name = "redis-as-it-comes"
    says = "snapshots every few minutes"

    def command(self, port, directory):
        return [self.found(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)]

    def ready(self, port):
        """Need no stream."""


class Synced(Redis):
    """Redis with an append-only file that is synced before the answers, and no stream."""

    def ready(self, port):
        """Need no stream."""


PEERS["redis-as-it-comes"] = AsItComes()
PEERS["redis-always"] = Synced()


class Bench:
    """One library with one broker that runs."""

    def __init__(self, library, broker, port, scratch):
        self.subject = library
        self.scratch = scratch
        self.url = URLS[broker].format(port=port)
        self.workers = []
        self.records_file = None
        self.log = scratch / f"{library.app}.log"
        if library.prepare:
            self.run(library.command(library.prepare, broker=self.url, processes=1))

    def environment(self):
        return {
            **os.environ,
            "BENCH_BROKER": self.url,
            "BENCH_RECORDS": str(self.records_file),
            "PYTHONPATH": str(APPS),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def run(self, command):
        with self.log.open("ab") as out:
            done = subprocess.run(
                command, env=self.environment(), cwd=APPS, stdout=out, stderr=out, check=False, timeout=300
            )
        if done.returncode:
            raise Failed(f"{command[0]} ended with {done.returncode}: {self.log.read_text(errors='replace')[-800:]}")

    def begin(self, name):
        """Let tasks be noted in a new file."""
        self.records_file = self.scratch / f"{name}.records"
        self.records_file.touch()

    def add(self, count, interval=0.0, pause=0.0):
        program = [str(self.subject.python), str(APPS / f"{self.subject.app}_app.py")]
        self.run([*program, str(count), str(interval), str(pause), *self.subject.add])

    def start(self, processes):
        """Start workers with this number of processes."""
        command = self.subject.command(self.subject.worker, processes=processes, broker=self.url)
        with self.log.open("ab") as out:
            for _ in range(processes if self.subject.forks else 1):
                self.workers.append(
                    subprocess.Popen(
                        command, env=self.environment(), cwd=APPS, stdout=out, stderr=out, start_new_session=True
                    )
                )

    def records(self):
        """Return what was noted: number, time of the add, time of the start, and process, of each start of a task."""
        data = self.records_file.read_bytes()
        return list(RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size]))

    def wait(self, enough, seconds):
        """Wait until *enough* accepts the records, for at most *seconds*; return the records."""
        give_up = time.monotonic() + seconds
        while not enough(found := self.records()) and time.monotonic() < give_up:
            if all(worker.poll() is not None for worker in self.workers):
                raise Failed(f"the worker ended: {self.log.read_text(errors='replace')[-800:]}")
            time.sleep(0.02)
        return found

    def processes(self):
        return [pid for worker in self.workers for pid in family(worker.pid)]

    def kill(self):
        for pid in self.processes():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for worker in self.workers:
            worker.wait()
        self.workers.clear()

    def stop(self):
        """End the workers, politely at first."""
        for worker in self.workers:
            with contextlib.suppress(OSError):
                worker.terminate()
        give_up = time.monotonic() + 15
        while any(worker.poll() is None for worker in self.workers) and time.monotonic() < give_up:
            time.sleep(0.05)
        self.kill()


def throughput(bench, processes, count):
    """Tasks added and run in a second; the run begins when a twentieth of the tasks have run."""
    bench.begin(f"throughput-{processes}")
    bench.add(count)
    bench.start(processes)
    try:
        found = bench.wait(lambda records: len(records) >= count, THROUGHPUT_SECONDS)
    finally:
        bench.stop()
    ends = sorted(record[2] for record in found)[len(found) // 20 :]
    added = sorted(record[1] for record in found)
    if len(ends) < 2:
        raise Failed(f"{len(found)} of {count} tasks ran: {bench.log.read_text(errors='replace')[-800:]}")
    return {
        "run": (len(ends) - 1) / (ends[-1] - ends[0]) * 1e9,
        "add": (len(added) - 1) / (added[-1] - added[0]) * 1e9,
        "unfinished": count - len(found),
    }


def latency(bench, count):
    """Milliseconds from an add to the start of the task with a worker that is idle, and the worker's memory."""
    bench.begin("latency")
    bench.start(1)
    try:
        bench.add(1)
        bench.wait(bool, COMEBACK_SECONDS)
        bench.add(count, LATENCY_INTERVAL)
        found = bench.wait(lambda records: len(records) > count, COMEBACK_SECONDS)
        memory = sum(map(proportional, bench.processes()))
    finally:
        bench.stop()
    waits = [(start - added) / 1e6 for _, added, start, _ in found[1:]]
    return {
        "p50": statistics.median(waits),
        "p99": statistics.quantiles(waits, n=100)[98],
        "memory": memory,
        "processes": "all of one worker",
    }


def proportional(pid):
    """Return the memory of a process in bytes; what it shares with others counts in parts."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def killed(bench):
    """Kill a worker in the middle of a long task, start another, and see when that task is started again."""
    bench.begin("killed")
    bench.start(1)
    try:
        bench.add(1, pause=LONG_SECONDS)
        bench.wait(bool, COMEBACK_SECONDS)
        bench.kill()
        at = time.monotonic_ns()
        bench.start(1)
        back = [record[2] for record in bench.wait(lambda records: len(records) > 1, COMEBACK_SECONDS)[1:]]
        bench.add(SHORT_TASKS)
        enough = 1 + len(back) + SHORT_TASKS
        found = bench.wait(lambda records: len(records) >= enough, COMEBACK_SECONDS)
    finally:
        bench.stop()
    tasks = {(number, added) for number, added, _, _ in found}
    return {
        "seconds": (back[0] - at) / 1e9 if back else None,
        "lost": 1 + SHORT_TASKS - len(tasks) + (not back),
        "doubled": len(found) - len(tasks) - len(back),
    }


def measure(library, broker, count, scratch, *, kill):
    """Return the figures of *library* with *broker*."""
    if not library.python.exists():
        raise Missing(f"{library.app} is not installed: make .bench-tasks/.ready")
    found = {"library": library.name, "broker": broker}
    figures = {
        "throughput1": partial(throughput, processes=1, count=count),
        "throughput4": partial(throughput, processes=4, count=count),
        "latency": partial(latency, count=min(count, LATENCY_TASKS)),
    }
    if kill:
        figures["killed"] = killed
    for name, figure in figures.items():
        # A slow library leaves tasks over, which the next figure must not meet.
        with running(broker, scratch) as (port, _):
            found[name] = figure(Bench(library, broker, port, scratch))
    return found


COLUMNS = (
    "library",
    "broker",
    "added/s",
    "run/s, 1 process",
    "run/s, 4 processes",
    "add to start p50 ms",
    "p99 ms",
    "worker MiB",
    "back after kill -9",
)
HEAD = f"| {' | '.join(COLUMNS)} |\n|---|---|{'--:|' * (len(COLUMNS) - 2)}"


def row(figures):
    one, four, wait, kill = (figures.get(each) for each in ("throughput1", "throughput4", "latency", "killed"))
    back = "" if kill is None else "not in 60 s" if kill["seconds"] is None else f"{kill['seconds']:.1f} s"
    return (
        f"| {figures['library']} | {figures['broker']} | {one['add']:,.0f} | {one['run']:,.0f} | {four['run']:,.0f} |"
        f" {wait['p50']:.1f} | {wait['p99']:.1f} | {wait['memory'] / 2**20:,.0f} | {back} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=3_000, help="how many tasks a throughput is taken from [3000]")
    parser.add_argument("--only", action="append", metavar="NAME", help="only libraries with this in their names")
    parser.add_argument("--broker", action="append", metavar="NAME", help="only this broker")
    parser.add_argument("--without-kill", action="store_true", help="kill no worker, which takes a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    args = parser.parse_args()
    found, failed = [], False
    print(HEAD, flush=True)
    for library in LIBRARIES:
        for broker in library.brokers:
            if args.only and not any(each in library.name for each in args.only):
                continue
            if args.broker and broker not in args.broker:
                continue
            with tempfile.TemporaryDirectory(prefix="bench-tasks-", dir=os.curdir) as scratch:
                try:
                    figures = measure(library, broker, args.tasks, Path(scratch).resolve(), kill=not args.without_kill)
                except Missing as why:
                    print(f"{library.name} with {broker}: {why}", file=sys.stderr)
                except (Failed, subprocess.SubprocessError) as why:
                    failed = True
                    print(f"{library.name} with {broker}: {why}", file=sys.stderr)
                else:
                    found.append(figures)
                    print(row(figures), flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    sys.exit(failed)


if __name__ == "__main__":
    main()
