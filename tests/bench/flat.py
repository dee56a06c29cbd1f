"""
Flat: what must not cost more when there is more of it.

Each check starts a server of its own, measures with little, fills it, measures
again, and prints the ratio next to what is aimed at.  `--items` says how full:
the aims are for ten million.  The status is 1 when one was missed.
"""

import argparse
import asyncio
import json
import resource
import selectors
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from time import monotonic, perf_counter, sleep

import looks
from load import Run, preload
from measures import cpu_seconds, resident, thread_seconds
from servers import NOT_A_DISK, filesystem, free_port, started
from single import WAITING_MAX, Single, Waiting, plain

SETTLE_SECONDS = 15.0
IDLE_SECONDS = 10.0
MIB = 1 << 20
PART_SECONDS = 300.0
"""Of a steady cycle: the last is compared with the first."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def p99(values):
    return sorted(values)[len(values) * 99 // 100] * 1e3


class Server:
    """A server whose directory outlives it for as long as one wants."""

    def __init__(self, scratch, name="fsync"):
        self.name = name
        self.directory = scratch / f"flat-{free_port()}"
        self.directory.mkdir()
        self.start()

    def start(self):
        self.port = free_port()
        self.context = started(self.name, self.directory, self.port)
        _, process = self.context.__enter__()
        self.pid = process.pid

    def stop(self):
        self.context.__exit__(None, None, None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def fill(self, items, delay_ms=0):
        """Add so many items, a thousand in each call."""
        begun = reported = monotonic()

        def progress(done):
            nonlocal reported
            if monotonic() - reported > 10:
                reported = monotonic()
                left = (reported - begun) / max(1, done) * (items - done)
                say(f"  {done:,} of {items:,} items added, {left:,.0f} s left")

        load = plain(self.port, self.pid, preload=items, delay_ms=delay_ms)
        return preload(load, 1_000, progress)

    def empty(self, items):
        """Take and remove that many."""
        load = plain(self.port, self.pid, kind="take", connections=4, window=64, items=100)
        run = Run(load, items)
        begun = reported = monotonic()
        while not run.dry:
            run.until(monotonic() + 1)
            if monotonic() - reported > 10:
                reported = monotonic()
                left = (reported - begun) / max(1, run.removed) * (items - run.removed)
                say(f"  {run.removed:,} of {items:,} items removed, {left:,.0f} s left")
        run.close()

    def settle(self):
        """Let it flush and compact what it was given: up to a quarter of a minute of quiet."""
        give_up = monotonic() + 4 * SETTLE_SECONDS
        while monotonic() < give_up:
            before = cpu_seconds(self.pid)
            sleep(SETTLE_SECONDS / 5)
            if cpu_seconds(self.pid) - before < 0.1:
                return


def aim(says, value, bound, unit=""):
    """One line of the outcome."""
    met = value <= bound
    print(f"{'met' if met else 'MISSED':<6} {says}: {value:.2f}{unit} (at most {bound:g}{unit})", flush=True)
    return {"aim": says, "value": value, "bound": bound, "unit": unit, "met": met}


def times_longer(full, empty, count):
    """
    The p99 of a poll of *full*, in those of *empty*.

    An item is added to each in turn, the first that there is is taken, and removed: a moment of another process's is
    no difference.
    """
    connections = [Single(server.port, server.pid) for server in (full, empty)]
    times = [[connection.around()[1] for connection in connections] for _ in range(count)]
    for connection in connections:
        connection.socket.close()
    ours, theirs = (p99([each[index] for each in times]) for index in (0, 1))
    say(f"  p99 of a poll: {ours:.2f} ms, of an empty queue {theirs:.2f} ms")
    return ours / theirs


def backlog(options, scratch):
    """Polls, memory and start-up with many items waiting, and polls when they are gone."""
    with Server(scratch) as empty, Server(scratch) as server:
        times_longer(server, empty, options.rounds // 10)
        before = resident(server.pid)
        items = server.fill(options.items)
        server.settle()
        full = times_longer(server, empty, options.rounds)
        yield aim(f"p99 of a poll with {items:,} items waiting: times an empty queue's", full, 1.2)
        more = (resident(server.pid) - before) / MIB
        yield aim(f"memory with {items:,} items, above empty", more, 300, " MiB")
        yield aim(f"seconds from start to the first answers with {items:,} items", restarted(server), 5, " s")
        server.empty(items)
        gone = times_longer(server, empty, options.rounds)
        yield aim(f"p99 of a poll when {items:,} items were removed: times an empty queue's", gone, 1.2)


def delayed(options, scratch):
    """Compare polls with and without many items that are not due."""
    with Server(scratch) as empty, Server(scratch) as server:
        items = server.fill(options.items, delay_ms=24 * 3_600_000)
        server.settle()
        longer = times_longer(server, empty, options.rounds)
        yield aim(f"p99 of a poll with {items:,} delayed items: times without", longer, 1.2)
        yield aim(f"CPU with {items:,} delayed items, idle", idle(server), 1, " %")


def idle(server):
    """Return the processor time that a server takes while nothing happens, in per cent of a core."""
    sleep(IDLE_SECONDS / 5)
    before = cpu_seconds(server.pid)
    sleep(IDLE_SECONDS)
    return (cpu_seconds(server.pid) - before) / IDLE_SECONDS * 100


def waiters(options, scratch):
    """Measure an add while many polls wait: the reactor's time, with the poll that it answers and the next one."""
    costs = []
    with Server(scratch) as server:
        connections, single = [Waiting(server.port, server.pid, 1)], Single(server.port, server.pid)
        costs.append(add_cost(server, connections, single, options.adds))
        connections += [Waiting(server.port, server.pid, WAITING_MAX) for _ in range(options.waiters // WAITING_MAX)]
        sleep(SETTLE_SECONDS / 5)
        costs.append(add_cost(server, connections, single, options.adds))
    say(f"an add, the poll it answers and the next: {costs[0]:.0f} us of the reactor, then {costs[1]:.0f} us")
    yield aim(f"an add with {options.waiters:,} polls waiting: times one", costs[1] / costs[0], 2)


def add_cost(server, connections, single, adds):
    """The microseconds of the reactor's thread for each of *adds* adds."""
    selector = selectors.DefaultSelector()
    for connection in connections:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    before = thread_seconds(server.pid)
    for _ in range(adds):
        single.timed(0, single.item)
        for key, _ in selector.select(5):
            key.data.again()
    return (thread_seconds(server.pid) - before) / adds * 1e6


def idlers(options, scratch):
    """Many queues that hold an item, and many connections, while nothing happens."""
    with Server(scratch) as server:
        before = idle(server)
        say(f"nothing at all: {before:.2f} % of a core")
        asyncio.run(make_queues(server.port, options.queues))
        connections = [Single(server.port, server.pid) for _ in range(options.connections)]
        server.settle()
        busy = idle(server)
        held = f"{options.queues:,} queues and {len(connections):,} connections"
        yield aim(f"CPU with {held}, idle, above nothing at all", busy - before, 1, " %")


async def make_queues(port, count):
    """Add an item to each of *count* queues, by Queueber's client in a process of its own."""
    program = (
        "import sys; from queueber.client import connect\n"
        "from twisted.internet.defer import ensureDeferred, gatherResults\n"
        "from twisted.internet.task import react\n"
        "async def work(reactor):\n"
        "    client = connect(reactor, f'127.0.0.1:{sys.argv[1]}')\n"
        "    for at in range(0, int(sys.argv[2]), 500):\n"
        "        await gatherResults([client.queue(f'idle-{at + n}').add(b'x') for n in range(500)])\n"
        "    await client.close()\n"
        "react(lambda reactor: ensureDeferred(work(reactor)))\n"
    )
    say(f"  making {count:,} queues")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(port), str(count))
    assert await process.wait() == 0


def restarted(server):
    """Start *server* again; return the seconds until its first answers."""
    server.stop()
    began = perf_counter()
    server.start()
    Single(server.port, server.pid).around()
    return perf_counter() - began


def looked_at(server, empty, options):
    """Aims for an operator's calls of a server that holds much."""
    for name, longer, ours, theirs in looks.times_longer(server, empty, max(10, options.rounds // 10)):
        say(f"  {name}: {ours:.2f} ms, of an empty server {theirs:.2f} ms")
        yield aim(f"median of {name}: times an empty server's", longer, 1.5)


def million(options, scratch):
    """Many items in one queue, with settings, dead items and deduplication keys: start, memory, polls and looks."""
    with Server(scratch) as empty, Server(scratch) as server:
        times_longer(server, empty, options.rounds // 10)
        before = resident(server.pid)
        with looks.Operator(server.port) as operator:
            operator.prepare(options.items // 100, options.items // 10)
        items = server.fill(options.items)
        server.settle()
        longer = times_longer(server, empty, options.rounds)
        yield aim(f"p99 of a poll with {items:,} items in one queue: times an empty queue's", longer, 1.2)
        more = (resident(server.pid) - before) / MIB
        yield aim(f"memory with {items:,} items in one queue, above empty", more, 300, " MiB")
        yield aim(f"seconds from start to the first answers with {items:,} items", restarted(server), 5, " s")
        yield from looked_at(server, empty, options)
        with looks.Operator(server.port) as operator:
            seconds = operator.seconds(lambda: operator.control.stats(exact=True))
        yield aim(f"seconds of an exact count of {items:,} items", seconds, 30, " s")


def many(options, scratch):
    """Many queues, each tenth with settings, a dead item and a deduplication key: start, memory, polls and looks."""
    with Server(scratch) as empty, Server(scratch) as server:
        times_longer(server, empty, options.rounds // 10)
        before = resident(server.pid)
        say(f"  making {options.queues:,} queues")
        looks.make_queues(server.port, options.queues)
        server.settle()
        longer = times_longer(server, empty, options.rounds)
        yield aim(f"p99 of a poll with {options.queues:,} queues: times one queue's", longer, 1.2)
        more = (resident(server.pid) - before) / MIB
        yield aim(f"memory with {options.queues:,} queues, above empty", more, 300, " MiB")
        yield aim(f"seconds from start to the first answers with {options.queues:,} queues", restarted(server), 5, " s")
        longer = times_longer(server, empty, options.rounds)
        yield aim(f"p99 of a poll with {options.queues:,} queues after a start: times one queue's", longer, 1.2)
        looks.make_queues(empty.port, min(looks.STEP, options.queues))
        yield from looked_at(server, empty, options)


def steady(options, scratch):
    """Run one load for hours, and compare the times of calls at its end with those at its begin."""
    with Server(scratch) as server:
        load = plain(server.port, server.pid, kind="cycle", connections=4, window=4)
        run, parts = Run(load), []
        part = min(PART_SECONDS, options.hours * 3_600 / 4)
        end = monotonic() + options.hours * 3_600
        while monotonic() < end:
            run.until(min(end, monotonic() + part))
            parts.append(p99([each for connection in run.connections for each in connection.latencies]))
            for connection in run.connections:
                connection.latencies.clear()
            left = (end - monotonic()) / 60
            say(f"  p99 {parts[-1]:.2f} ms, {resident(server.pid) / MIB:,.0f} MiB, {left:.0f} min left")
        run.close()
        yield aim(f"p99 of the last {part:g} s of {options.hours:g} h: times the first", parts[-1] / parts[0], 1.2)


CHECKS = {
    "backlog": backlog,
    "delayed": delayed,
    "waiters": waiters,
    "idlers": idlers,
    "million": million,
    "many": many,
    "steady": steady,
}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"only these of {', '.join(CHECKS)} [all]")
    parser.add_argument("--items", type=int, default=1_000_000, help="how many items to have [1000000]")
    parser.add_argument("--rounds", type=int, default=5_000, help="how many polls to measure [5000]")
    parser.add_argument("--waiters", type=int, default=10_000, help="how many polls that wait [10000]")
    parser.add_argument("--adds", type=int, default=1_000, help="how many adds while they do [1000]")
    parser.add_argument("--queues", type=int, default=100_000, help="how many queues [100000]")
    parser.add_argument("--connections", type=int, default=5_000, help="how many idle connections [5000]")
    parser.add_argument("--hours", type=float, default=0.1, help="how long the steady cycle is [0.1]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    options = parser.parse_args(arguments)
    if strays := set(options.checks) - set(CHECKS):
        parser.error(f"no such check: {', '.join(sorted(strays))}")
    if filesystem(Path.cwd()) in NOT_A_DISK:
        say("The current directory is in memory; start this on a disk.")
        return 1
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = []
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as scratch:
        for name in options.checks or CHECKS:
            say(f"{name}: {CHECKS[name].__doc__}")
            found += list(CHECKS[name](options, Path(scratch)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(each["met"] for each in found) else 1


if __name__ == "__main__":
    # Ended from outside, it still ends its servers and removes the data.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
