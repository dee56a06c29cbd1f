"""
The load generator: calls that were encoded beforehand, over plain sockets, to any of `peers.PEERS`.

One JSON argument in, one JSON line out; see `Load` and `measure`.

Not `queueber.loadgen`: a call of that costs its client more CPU than the server, which would so never be busy, and it
knows the protocol of no other server.
"""

import json
import random
import select
import sys
from functools import cached_property
from time import monotonic, perf_counter

from attrs import evolve, frozen
from load_connection import STUCK_SECONDS, RanDry, Unexpected
from measures import Use, cpu_seconds
from peers import PEERS
from scenarios import MIXED, MIXED_BYTES, MIXED_RANGE

PRELOAD_BYTES = 1 << 18
PRELOAD_ITEMS = 100
PRELOAD_WINDOW = 16
PRELOAD_CONNECTIONS = 2

MIXED_BATCHES = 61
"""A prime, so that no window of calls always holds the same lengths."""

BACKLOG_LEAST, BACKLOG_MOST = 500, 5_000
"""Between these a cycle keeps what is in the queue, in items."""

# A sorted list may be cut at these.
PERCENTILES = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}


@frozen(kw_only=True)
class Load:
    """The calls to make to a server, and for how long."""

    peer: str
    port: int
    pid: int
    """The server's process, whose use of the machine is read."""

    kind: str
    """`add`; `take` for poll and remove; `cycle` for both at once; `remove` for that only."""

    connections: int
    window: int
    """Calls in flight on each connection."""

    items: int
    """Items in one add or poll."""

    size: int | str = 64
    """Bytes in each item, or `MIXED`."""

    own: bool = False
    """Whether calls are laid out as by Queueber's client, and not as by those in C++, Rust and pycapnp."""

    preload: int = 0
    """Items added before it begins."""

    preload_seconds: float = 1e9
    """For how long at most."""

    delay_ms: int = 0
    warmup: float = 0.0
    seconds: float = 0.0

    @cached_property
    def contents(self):
        """The contents of an item; of mixed lengths, the first."""
        return self.batches[0][0]

    @cached_property
    def batches(self):
        """The items of each call, over and over.  The lengths are the same in each run."""
        if self.size != MIXED:
            return [[_bytes(self.size)] * self.items]
        draw = random.Random(MIXED)
        return [[_bytes(draw.randint(*MIXED_RANGE)) for _ in range(self.items)] for _ in range(MIXED_BATCHES)]

    def added(self, contents):
        """Whether an item of this load may have *contents*."""
        length = len(contents)
        allowed = MIXED_RANGE[0] <= length <= MIXED_RANGE[1] if self.size == MIXED else length == self.size
        return allowed and contents == _bytes(length)

    @property
    def mean_size(self):
        """Bytes in an item on average."""
        return MIXED_BYTES if self.size == MIXED else self.size

    def connect(self, role):
        """Connect, in *role*; return the connection."""
        return PEERS[self.peer].connection_class(self.port, role, self)


def _bytes(length):
    return (bytes(range(256)) * (length // 256 + 1))[:length]


def preload(load, items_max=PRELOAD_ITEMS, report=lambda _: None):
    """Add the items that are to be taken, and report their number now and then; return it in the end."""
    items = max(1, min(items_max, PRELOAD_BYTES // load.mean_size))
    adding = evolve(load, kind="add", items=items, window=PRELOAD_WINDOW, connections=PRELOAD_CONNECTIONS)
    run = Run(adding)
    until = monotonic() + load.preload_seconds
    while run.added < load.preload and monotonic() < until:
        run.step()
        report(run.added)
    run.drain()
    run.close()
    return run.added


class Run:
    """All connections of one load."""

    def __init__(self, load, backlog=0):
        self.cycle = load.kind == "cycle"
        if self.cycle:
            each = max(1, load.connections // 2)
            self.adding = [load.connect("add") for _ in range(each)]
            self.taking = [load.connect("take") for _ in range(each)]
        else:
            connections = [load.connect(load.kind) for _ in range(load.connections)]
            self.adding, self.taking = (connections, []) if load.kind == "add" else ([], connections)
        self.backlog = backlog
        self.dry = False
        self.poller = select.epoll()
        self.by_descriptor = {each.socket.fileno(): each for each in self.connections}
        for descriptor, connection in self.by_descriptor.items():
            self.poller.register(descriptor, select.EPOLLIN)
            connection.begin()

    @property
    def added(self):
        return sum(connection.items for connection in self.adding)

    @property
    def removed(self):
        return sum(connection.items for connection in self.taking)

    @property
    def connections(self):
        return (*self.adding, *self.taking)

    def until(self, moment):
        """Keep all windows full up to *moment*, or up to a poll that finds nothing."""
        try:
            while monotonic() < moment:
                self.step()
        except RanDry:
            self.dry = True

    def step(self):
        """Take what has come, and answer it with more."""
        if not self.cycle:
            if self.taking and self.backlog <= self.removed:
                raise RanDry
            for connection in self.ready():
                connection.turn(True)
            return
        level = self.backlog + self.added - self.removed
        adds, takes = level < BACKLOG_MOST, level > BACKLOG_LEAST
        for connections, wanted in ((self.adding, adds), (self.taking, takes)):
            for connection in connections:
                if wanted and connection.in_flight < connection.window:
                    connection.begin()
        for connection in self.ready():
            connection.turn(adds if connection.role == "add" else takes)

    def drain(self):
        """Take the answers that are still to come."""
        while any(connection.in_flight for connection in self.connections):
            for connection in self.ready():
                connection.turn(False)

    def ready(self):
        """Return the connections that have something to read."""
        ready = self.poller.poll(STUCK_SECONDS)
        if not ready:
            raise Unexpected(f"no reply for {STUCK_SECONDS} seconds")
        return [self.by_descriptor[descriptor] for descriptor, _ in ready]

    def close(self):
        for connection in self.connections:
            connection.socket.close()
        self.poller.close()


def measure(load):
    """Run *load*: counts over the measured time, latencies in milliseconds, times in seconds."""
    loaded = preload(load) if load.preload else 0
    run = Run(evolve(load, preload=loaded), loaded)
    run.until(monotonic() + load.warmup)
    if run.dry:
        raise Unexpected(f"the queue of {loaded} items ran dry before the measurement began")
    run.backlog += run.added - run.removed
    for connection in run.connections:
        connection.items = 0
        connection.latencies.clear()
    use, client, begun = Use(load.pid), cpu_seconds("self"), perf_counter()
    run.until(monotonic() + load.seconds)
    seconds = perf_counter() - begun
    used, client = use.so_far(), cpu_seconds("self") - client
    items = run.removed if run.taking else run.added
    latencies = sorted(each for connection in run.connections for each in connection.latencies)
    if not items:
        raise Unexpected("nothing was answered while it was measured")
    if not run.dry:
        try:
            run.drain()
        except RanDry:
            run.dry = True
    run.close()
    percentiles = {
        name: latencies[int(len(latencies) * part)] * 1e3 if latencies else None for name, part in PERCENTILES.items()
    }
    return {
        "calls": len(latencies) or items,
        "items": items,
        "seconds": seconds,
        **percentiles,
        **used,
        "client_cpu": client,
        "dry": run.dry,
    }


if __name__ == "__main__":
    try:
        answer = measure(Load(**json.loads(sys.argv[1])))
    except (Unexpected, OSError) as why:
        answer = {"error": f"{type(why).__name__}: {why}"[:500]}
    print(json.dumps(answer))
