"""
A client that attacks by other clients must not affect: it adds, polls, extends and removes, and checks every reply.

`HealthyClient` calls through a `peer.Caller`, so it works in the process of a server and over a socket. `turn` adds,
polls, extends and removes a few items. It adds others only, and `kept` has these, which must still be in the queue.
It is no load of `queueber.loadgen`: that has the client of Twisted, judges counts and not each reply, and asks for as
much as the server can do.

`HealthyProcess` runs one in a process of its own, so that attackers in this one do not slow it down. Its program takes
the port and the pause between two turns in seconds. It answers each line on standard input with one line of JSON:
`report` with the calls since the last report and their latencies in milliseconds, `account` after it has polled all
acknowledged items, `hold` after which it calls no more, `reconnect PORT` when it has a new connection. On a wrong
reply it prints the reply and exits.
"""

import json
import select
import subprocess
import sys
from contextlib import suppress
from time import perf_counter

from queueber.errors import QueueberError
from tests.support.peer import Gone, Peer

LEASE_MS = 600_000
BATCH = 100


class WrongReply(AssertionError):
    """The server sent a reply that it must not send."""


def must(true, what):
    if not true:
        raise WrongReply(what)


class HealthyClient:
    """One well-behaved connection with two queues of its own."""

    def __init__(self, caller, name="worker"):
        """Call through *caller*."""
        self.caller = caller
        self.latencies = []
        self.kept = {}
        """The contents of each acknowledged item that is not removed yet, by id."""

        self.turns = 0
        self.busy, self.store = self._checked(caller.queue, f"{name}-busy"), self._checked(caller.queue, f"{name}-kept")

    def _checked(self, call, *args, **how):
        """Return the result of a call; raise `WrongReply` for an error, and for a reply to no call."""
        began = perf_counter()
        try:
            found = call(*args, **how)
        except (QueueberError, Gone) as why:
            raise WrongReply(f"{type(why).__name__}: {why}") from why
        must(not self.caller.outcomes, f"{self.caller.outcomes} came")
        self.latencies.append(perf_counter() - began)
        return found

    def add(self, queue, contents):
        ids = self._checked(self.caller.add, *contents, target=queue)
        must([len(each) for each in ids] == [16] * len(contents) == [16] * len(set(ids)), f"the ids are {ids}")
        return ids

    def poll(self, queue, count):
        return self._checked(self.caller.poll, count, target=queue, lease=LEASE_MS)

    def extend(self, queue, lease):
        return self._checked(self.caller.extend, lease, LEASE_MS, queue)

    def remove(self, queue, item, lease):
        return self._checked(self.caller.remove, item, lease, queue)

    def turn(self):
        """Add, poll, extend and remove; raise `WrongReply` for a wrong reply."""
        self.turns += 1
        contents = [b"%d.%d" % (self.turns, number) * 9 for number in range(1 + self.turns % 3)]
        ids = self.add(self.busy, contents)
        found = self.poll(self.busy, 8)
        must([(item.id, item.contents) for item in found.items] == list(zip(ids, contents, strict=True)), f"{found}")
        must(all(item.attempt == 1 for item in found.items), "what was added once was handed out before")
        must(not self.poll(self.busy, 8).items, "leased items were handed out again")
        must(self.extend(self.busy, found.lease), "a live lease was not extended")
        must(not self.extend(self.busy, b"?" * 16), "an unknown lease was extended")
        for item in ids:
            must(self.remove(self.busy, item, found.lease), "a leased item was not removed")
        must(not self.remove(self.busy, ids[0], found.lease), "an item was removed twice")
        if self.turns % 4 == 1:
            (item,) = self.add(self.store, [b"kept %d" % self.turns])
            self.kept[item] = b"kept %d" % self.turns

    def account(self):
        """Poll all items; raise `WrongReply` unless they are those of `kept`, in order."""
        left = list(self.kept.items())
        while True:
            found = self.poll(self.store, BATCH)
            must([(item.id, item.contents) for item in found.items] == left[: len(found.items)], "what was kept is not")
            if not found.items:
                break
            for item in found.items:
                must(self.remove(self.store, item.id, found.lease), "a kept item was not removed")
                del self.kept[item.id]
            left = left[len(found.items) :]
        must(not left, f"{len(left)} acknowledged items are lost")
        must(not self.poll(self.busy, 8).items, "a removed item came back")


def report(client):
    """Return the work since the last report."""
    latencies, client.latencies = sorted(client.latencies), []
    count = len(latencies)
    marks = {"p50": count // 2, "p99": count * 99 // 100, "max": count - 1}
    figures = {name: round(latencies[at] * 1e3, 3) if count else None for name, at in marks.items()}
    return {"calls": count, "kept": len(client.kept), **figures}


def work(port, pause):
    """Work until standard input ends."""
    client = HealthyClient(Peer(port))
    while True:
        if not select.select([sys.stdin], [], [], pause)[0]:
            client.turn()
            continue
        command, _, argument = sys.stdin.readline().strip().partition(" ")
        if not command:
            return
        answer = {}
        if command == "report":
            answer = report(client)
        elif command == "account":
            answer = {"kept": len(client.kept)}
            client.account()
        elif command == "hold":
            pause = None
        else:
            kept = client.kept
            client = HealthyClient(Peer(int(argument)))
            client.kept = kept
        print(json.dumps(answer), flush=True)


class HealthyProcess:
    """A healthy client in a process of its own, connected to *port*."""

    def __init__(self, port, pause):
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(port), str(pause)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ask("report")

    def ask(self, command):
        """Return the answer to *command*: a mapping with `wrong` after a wrong reply, or if the process has ended."""
        with suppress(BrokenPipeError):
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"wrong": "the healthy client's process has ended"}

    def close(self):
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with suppress(BrokenPipeError):
            self.process.stdin.close()


if __name__ == "__main__":
    try:
        work(int(sys.argv[1]), float(sys.argv[2]))
    except (WrongReply, OSError) as why:
        print(json.dumps({"wrong": f"{type(why).__name__}: {why}"[:1000]}), flush=True)
        sys.exit(1)
