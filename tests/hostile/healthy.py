"""
The client that must not notice: adds, polls, extends and removes, and checks every answer.

Run as ``python -m tests.hostile.healthy PORT``.  For every line on its standard
input it prints one of JSON: what it did since the line before, latencies in
milliseconds.  It ends with the end of its input, or with what was wrong.
"""

import json
import select
import sys
import time

from tests.hostile.peer import Gone, Peer

QUEUE = "healthy"


class Wrong(Exception):
    """The server gave an answer that it must not give."""


def must(true, what):
    if not true:
        raise Wrong(what)


class Healthy:
    """Its work, turn by turn."""

    def __init__(self, port):
        self.peer = Peer(port)
        self.queue = self.peer.queue(QUEUE)
        self.turns = 0
        self.latencies = []

    def timed(self, call, *args, **kwargs):
        began = time.perf_counter()
        result = call(*args, target=self.queue, **kwargs)
        self.latencies.append((time.perf_counter() - began) * 1e3)
        return result

    def turn(self):
        """A few items from their beginning to their end."""
        self.turns += 1
        contents = [b"%d/%d" % (self.turns, number) for number in range(1 + self.turns % 3)]
        ids = self.timed(self.peer.add, *contents)
        must(len(set(ids)) == len(contents), f"{len(contents)} items got the ids {ids}")
        found = self.timed(self.peer.poll, 10)
        must([bytes(item.contents) for item in found.items] == contents, f"{contents} came as {found.items}")
        must([bytes(item.id) for item in found.items] == [bytes(each) for each in ids], "ids changed")
        must(all(item.attempt == 1 for item in found.items), "what was added once was handed out before")
        must(not self.timed(self.peer.poll, 10).items, "a leased item was handed out again")
        must(self.timed(self.peer.extend, found.lease, 60_000), "a live lease was not extended")
        for item in found.items:
            must(self.timed(self.peer.remove, item.id, found.lease), "a leased item was not removed")
        must(not self.timed(self.peer.remove, ids[0], found.lease), "an item was removed twice")

    def report(self):
        """Return the calls since the last report."""
        latencies, self.latencies = sorted(self.latencies), []
        if not latencies:
            return {"calls": 0, "p50": None, "p99": None, "max": None}
        return {
            "calls": len(latencies),
            "p50": latencies[len(latencies) // 2],
            "p99": latencies[len(latencies) * 99 // 100],
            "max": latencies[-1],
        }


def main(port):
    healthy = Healthy(port)
    print(json.dumps(healthy.report()), flush=True)
    while True:
        healthy.turn()
        if select.select([sys.stdin], [], [], 0)[0]:
            if not sys.stdin.readline():
                return
            print(json.dumps(healthy.report()), flush=True)
        # Some hundred calls a second and not as many as can be: others share these cores.
        time.sleep(0.02)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]))
    except (Wrong, Gone) as why:
        print(json.dumps({"error": f"{type(why).__name__}: {why}"[:500]}), flush=True)
        sys.exit(1)
