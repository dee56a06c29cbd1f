"""
An operator's calls, and what they may find: settings, dead items and deduplication keys.

Calls go through Queueber's blocking client, one at a time.  So a figure is that
of the client, too, and only ratios to another server's mean something.
"""

import subprocess
import sys
from time import perf_counter

from queueber.client import Action, Settlement, new_item
from queueber.client.blocking import BlockingConnector, run_blocking
from queueber.client.client import Client
from queueber.client_core.address import TcpAddress

MANY = 1_000
"""Items in one call."""

STEP = 500
"""Queues that are made at once: a multiple of it is."""

SIDES = """
import sys
from queueber.client import Action, Settlement, connect, new_item
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import react

async def make(client, number):
    name = f"many-{number:06}"
    queue = client.queue(name)
    await queue.add(b"x")
    if number % 10 == 0:
        await client.control(name).configure(max_attempts=3, labels={"tenth": "yes"})
        batch = await queue.poll(1)
        await queue.settle(Settlement(batch.lease, b"", Action.REJECT))
        await queue.add_items(new_item(b"x", dedup_key=b"key", until_removed=True))

async def work(reactor):
    client = connect(reactor, f"127.0.0.1:{sys.argv[1]}")
    step = int(sys.argv[3])
    for at in range(0, int(sys.argv[2]), step):
        await gatherResults([ensureDeferred(make(client, at + n)) for n in range(step)])
    await client.close()

react(lambda reactor: ensureDeferred(work(reactor)))
"""


class Operator:
    """A client of one server."""

    def __init__(self, port):
        self.connector = BlockingConnector(TcpAddress("127.0.0.1", port), name=f"127.0.0.1:{port}")
        self.client = Client(self.connector)
        self.control = self.client.control("default")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connector.close()

    def prepare(self, dead, keyed):
        """Configure the default queue, and fill it with *dead* items and *keyed* ones, in thousands or fewer."""
        queue = self.client.default
        run_blocking(self.control.configure(max_attempts=3, labels={"team": "bench"}))
        for begin in range(0, dead, MANY):
            run_blocking(queue.add(*[b"dead"] * min(MANY, dead - begin)))
            batch = run_blocking(queue.poll(MANY))
            run_blocking(queue.settle(Settlement(batch.lease, b"", Action.REJECT)))
        # Without one, no count would have to read rows.
        run_blocking(queue.add(b"later", delay_ms=24 * 3_600_000))
        for begin in range(0, keyed, MANY):
            keys = range(begin, min(keyed, begin + MANY))
            run_blocking(queue.add_items(*[new_item(b"x", dedup_key=b"%d" % key, until_removed=True) for key in keys]))

    def last(self):
        """Add an item after all others; return its id."""
        (item,) = run_blocking(self.client.default.add(b"last"))
        return item

    def seconds(self, work):
        """Return how long the call takes that *work* makes."""
        began = perf_counter()
        run_blocking(work())
        return perf_counter() - began

    def looks(self, item):
        """Return functions that make an operator's calls, by name."""
        control, client = self.control, self.client
        return {
            "peek": control.peek,
            "get": lambda: control.get(item),
            "stats": control.stats,
            "queues": lambda: client.queues(limit=100),
            "queues with a label": lambda: client.queues(label=("no", "such"), limit=100),
        }


def make_queues(port, count):
    """Make *count* queues with an item each; each tenth also has settings, a dead item and a deduplication key."""
    process = subprocess.run([sys.executable, "-c", SIDES, str(port), str(count), str(min(STEP, count))], check=False)
    assert process.returncode == 0, "the queues were not made"


def times_longer(full, empty, rounds):
    """Yield the name and the median time of each look at *full*, in those of *empty*, with the milliseconds of both."""
    with Operator(full.port) as one, Operator(empty.port) as other:
        # As much as there is to show in one reply of each kind.
        run_blocking(other.client.default.add(*[b"x"] * 20))
        names = one.looks(one.last()), other.looks(other.last())
        for name in names[0]:
            times = [(one.seconds(names[0][name]), other.seconds(names[1][name])) for _ in range(rounds)]
            ours, theirs = (sorted(each[index] for each in times)[rounds // 2] * 1e3 for index in (0, 1))
            yield name, ours / theirs, ours, theirs
