"""
The cost of a call, stage by stage, on one core: no socket, no disk, no second thread.

Nothing waits for anything here, so two builds can be compared more finely than over
a network.  Each figure is the least of several rounds, in microseconds of CPU a call.
"""

import argparse
import gc
from time import process_time

from peers.queueber import LEASE, own_call

from queueber.api import ADD, REMOVE, AddRequest, NewItem, RemoveRequest, write_add_request, write_remove_request
from queueber.broker import Peer, TimeMark
from queueber.rpc import AnswerId, encoder
from queueber.server.app.service import GC_THRESHOLDS
from queueber.store.rows.kv_store import Durability, KeyValueStore
from queueber.store.rows.values import Encoding
from queueber.testing import InProcessServer
from queueber.units import SpanMs, WallMs

CALLS = 64
READ_BYTES = 50_000
"""All calls of a batch are one read of this at most, as over a network."""

MARK = TimeMark(b"b" * 16, 0, WallMs(0))


class Nowhere:
    """A key-value engine that takes everything and keeps nothing."""

    def write_many(self, writes):
        return len(writes)


class Stages:
    """A server with one connection, whose stages are run by hand and timed."""

    def __init__(self):
        self.server = InProcessServer()
        self.rows = KeyValueStore(Nowhere(), durability=Durability.NONE, encoding=Encoding.UNPACKED)
        self.writes = []
        self.server.store.commit = lambda writes, _: self.writes.extend(writes)
        self.protocol, self.transport = self.server.connect()
        self.protocol.dataReceived(encoder.bootstrap(0))
        self.seconds = {}

    def timed(self, stage, function, *args):
        began = process_time()
        function(*args)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + process_time() - began

    def batch(self, data):
        """Carry out *data*, some calls, in one commit."""
        self.transport.clear()
        self.timed("receive and decide", self.protocol.dataReceived, data)
        self.timed("cut", self.server.turn)
        jobs = self.server.pool.jobs
        assert len(jobs) == 1
        done, function, args, more = jobs.popleft()
        function(*args, **more)
        self.timed("rows, on a storage thread", self.rows.commit, self.writes, MARK)
        self.writes.clear()
        self.timed("send replies", done.callback, None)
        assert not jobs
        return self.transport.value()


def rounds(make, count):
    """The least that each stage took in *count* rounds of *make*, which gives a run's stages and how many calls."""
    least = {}
    for _ in range(count):
        gc.collect()
        seconds, calls = make()
        for stage, each in seconds.items():
            least[stage] = min(least.get(stage, each / calls), each / calls)
    return {stage: each * 1e6 for stage, each in least.items()}


def with_finishes(calls):
    finishes = [encoder.finish(slot, release_result_caps=False) for slot in range(1, len(calls) + 1)]
    return b"".join(calls), b"".join(finishes)


def adding(items, size, batches):
    """Adds of *items* each."""
    content = write_add_request(AddRequest([NewItem(bytes(size), SpanMs(0))] * items))
    count = min(CALLS, READ_BYTES // len(content))
    calls, finishes = with_finishes([own_call(slot, 0, ADD, content) for slot in range(1, count + 1)])
    stages = Stages()
    stages.batch(calls)
    stages.seconds.clear()
    for _ in range(batches):
        stages.batch(finishes + calls)
    return stages.seconds, batches * count


def removing(batches):
    """Removes of items of which a poll took as many as fit."""
    stages = Stages()
    broker, server = stages.server.broker, stages.server
    queue = broker.queue("default")
    total = {}
    for _ in range(batches):
        plan = broker.add(queue, [[NewItem(bytes(64), SpanMs(0))] * CALLS], server.clock.now())
        server.committer.submit(plan, lambda _: None)
        server.settle()
        waiter = broker.poll(queue, wanted=CALLS, lease_duration=LEASE, wait=None, peer=Peer(1), now=server.clock.now())
        answer = []
        server.dispatcher.wait(waiter, AnswerId(0), 0.0, answer.extend)
        server.settle()
        ((_, _, delivery),) = answer
        calls = [
            own_call(slot, 0, REMOVE, write_remove_request(RemoveRequest(item.key.id, delivery.lease.id)))
            for slot, item in enumerate(delivery.items, 1)
        ]
        calls, finishes = with_finishes(calls)
        stages.seconds.clear()
        stages.writes.clear()
        stages.batch(calls)
        stages.timed("receive and decide", stages.protocol.dataReceived, finishes)
        for stage, each in stages.seconds.items():
            total[stage] = total.get(stage, 0.0) + each
    return total, batches * CALLS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    gc.set_threshold(*GC_THRESHOLDS)
    loads = {
        "add, 1 item of 64 B": lambda: adding(1, 64, 100),
        "add, 10 items of 64 B": lambda: adding(10, 64, 50),
        "add, 100 items of 64 B": lambda: adding(100, 64, 50),
        "remove": lambda: removing(60),
    }
    for name, make in loads.items():
        stages = rounds(make, options.rounds)
        reactor = sum(each for stage, each in stages.items() if "storage" not in stage)
        print(f"{name}: reactor {reactor:.1f} us", ", ".join(f"{stage} {each:.1f}" for stage, each in stages.items()))


if __name__ == "__main__":
    main()
