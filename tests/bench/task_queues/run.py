"""
Task libraries next to each other: the same no-op task, one after the other, each figure with a fresh broker.

For every library and broker: tasks a second that one program adds, one at a
time; tasks a second of one and of four worker processes, from tasks that were
added before the workers start; the time from an add to the start of the task
with an idle worker; the memory of a worker; and what a `kill -9` of a worker
with all its processes costs, when another one is started at once.

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
from concurrent.futures import ThreadPoolExecutor
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

RUN_SECONDS, TASKS_MAX = 5.0, 30_000
"""A fast library gets as many tasks as it runs in this time, so that the starts of its processes do not count."""

ADDERS = 4
"""Programs that add the tasks of a run whose adds are not measured."""

COMEBACK_SECONDS = 60
"""A task that has not been started again by then counts as not back."""

LATENCY_TASKS, LATENCY_INTERVAL = 200, 0.1
"""A tenth of a second is longer than any of the libraries takes for a task, so that the worker is idle at each add."""

MEASURED_MIN = 4
"""The least number of tasks that a rate is taken from."""

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

    def fill(self, count):
        """Add *count* tasks with several programs at once."""
        with ThreadPoolExecutor(ADDERS) as pool:
            list(pool.map(self.add, [count // ADDERS] * ADDERS))

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
    """Tasks run in a second, of *count*, a multiple of `ADDERS`."""
    bench.begin(f"throughput-{processes}")
    bench.fill(count)
    found = ran(bench, processes, count)
    return {"run": rate(found, processes), "unfinished": count - len(found)}


def one_by_one(bench, count):
    """Tasks added in a second by one program, and run by one process."""
    bench.begin("one by one")
    bench.add(count)
    found = ran(bench, 1, count)
    added = sorted(record[1] for record in found)
    return {"run": rate(found, 1), "add": (len(added) - 1) / (added[-1] - added[0]) * 1e9}


def ran(bench, processes, count):
    """Run *count* tasks that were added; return their records."""
    bench.start(processes)
    try:
        found = bench.wait(lambda records: len(records) >= count, THROUGHPUT_SECONDS)
    finally:
        bench.stop()
    if len(found) < MEASURED_MIN:
        raise Failed(f"{len(found)} of {count} tasks ran: {bench.log.read_text(errors='replace')[-800:]}")
    return found


def rate(found, processes):
    """Return the starts a second, from when each process has started a task, and a twentieth of all tasks has."""
    starts = sorted((record[2], record[3]) for record in found)
    seen, warm = set(), 0
    while len(seen) < processes and warm < len(starts) // 2:
        seen.add(starts[warm][1])
        warm += 1
    measured = [at for at, _ in starts[max(warm, len(starts) // 20) :]]
    return (len(measured) - 1) / (measured[-1] - measured[0]) * 1e9


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


def measure(library, broker, args, scratch, *, kill):
    """Return the figures of *library* with *broker*."""
    count = args.tasks
    if not library.python.exists():
        raise Missing(f"{library.app} is not installed: make .bench-tasks/.ready")
    found = {"library": library.name, "broker": broker}

    def take(name, figure, *arguments):
        # A slow library leaves tasks over, which the next figure must not meet.
        with running(broker, scratch) as (port, _):
            found[name] = figure(Bench(library, broker, port, scratch), *arguments)

    take("one by one", one_by_one, count)
    enough = max(count, min(TASKS_MAX, int(args.run_seconds * found["one by one"]["run"]))) // ADDERS * ADDERS
    for processes in (1, 4):
        take(f"throughput{processes}", throughput, processes, enough)
    take("latency", latency, min(count, LATENCY_TASKS))
    if kill:
        take("killed", killed)
    return found


def median(runs):
    """Return several runs as one: each figure is the median of the runs that have it."""
    (first, *_) = runs
    if isinstance(first, dict):
        return {name: median([each[name] for each in runs if name in each]) for name in first}
    return statistics.median(runs) if isinstance(first, int | float) else first


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
    add, one, four, wait, kill = map(figures.get, ("one by one", "throughput1", "throughput4", "latency", "killed"))
    back = "" if kill is None else "not in 60 s" if kill["seconds"] is None else f"{kill['seconds']:.1f} s"
    return (
        f"| {figures['library']} | {figures['broker']} | {add['add']:,.0f} | {one['run']:,.0f} | {four['run']:,.0f} |"
        f" {wait['p50']:.1f} | {wait['p99']:.1f} | {wait['memory'] / 2**20:,.0f} | {back} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=3_000, help="how many tasks are added one at a time [3000]")
    parser.add_argument(
        "--run-seconds",
        type=float,
        default=RUN_SECONDS,
        metavar="S",
        help=f"how long a worker process has tasks for, if it runs them fast [{RUN_SECONDS:g}]",
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="only libraries with this in their names")
    parser.add_argument("--broker", action="append", metavar="NAME", help="only this broker")
    parser.add_argument("--repeats", type=int, default=1, help="measure all so often, and report medians [1]")
    parser.add_argument("--without-kill", action="store_true", help="kill no worker, which takes a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    args = parser.parse_args()
    runs, failed = {}, False
    for repeat in range(args.repeats):
        print(HEAD, flush=True)
        for library, broker in asked_for(args):
            try:
                with tempfile.TemporaryDirectory(prefix="bench-tasks-", dir=os.curdir) as scratch:
                    kill = not args.without_kill and not repeat
                    figures = measure(library, broker, args, Path(scratch).resolve(), kill=kill)
            except Missing as why:
                print(f"{library.name} with {broker}: {why}", file=sys.stderr)
            except (Failed, subprocess.SubprocessError) as why:
                failed = True
                print(f"{library.name} with {broker}: {why}", file=sys.stderr)
            else:
                runs.setdefault((library.name, broker), []).append(figures)
                print(row(figures), flush=True)
    found = [median(each) for each in runs.values()]
    if args.repeats > 1:
        print(f"medians of {args.repeats}\n{HEAD}", *map(row, found), sep="\n")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    sys.exit(failed)


def asked_for(args):
    """Return each library with each of its brokers that the command line asks for."""
    return [
        (library, broker)
        for library in LIBRARIES
        if not args.only or any(each in library.name for each in args.only)
        for broker in library.brokers
        if not args.broker or broker in args.broker
    ]


if __name__ == "__main__":
    main()
