"""
The load generator: calls that were encoded beforehand, over plain sockets.

It must cost less than any server it measures, so it knows the few bytes of a
Return it needs by their place, learns where a poll's reply has its ids from the
first reply of each length, and reads every so many replies with the real
readers to see that it was not fooled.  One JSON argument in, one JSON line out;
see `Load` and `measure`.
"""

import json
import os
import selectors
import socket
import sys
from pathlib import Path
from struct import Struct
from time import monotonic, perf_counter

from attrs import define, frozen

from queueber.limits import Limits
from queueber.units import SpanMs
from queueber.wire import (
    ADD,
    POLL,
    QUEUE_INTERFACE_ID,
    REMOVE,
    AddRequest,
    NewItem,
    PollRequest,
    PromisedAnswer,
    RemoveRequest,
    Results,
    read_add_response,
    read_bootstrap,
    read_poll_response,
    read_remove_response,
    write_add_request,
    write_poll_request,
    write_remove_request,
)
from queueber.wire import encoder as wire
from queueber.wire.decoder import decode
from queueber.wire.framing import Framer
from queueber.wire.messages import Return

LIMITS = Limits()
CONTENTS = bytes(range(64))
LEASE = SpanMs(600_000)
SAMPLE = 128
"""One reply in so many is read in full."""

PRELOAD_ITEMS = 100
PRELOAD_WINDOW = 16
STUCK_SECONDS = 30

RECV_BYTES = 1 << 18

# Segments less one, words; root pointer; discriminant of Message; pointer to Return; answer, flags and discriminant of
# the Return.
HEAD = Struct("<IIQH6xQIBxH")
BODY = HEAD.size
ROOT_POINTER = 1 << 32 | 1 << 48
RETURN_POINTER = 2 << 32 | 1 << 48
RETURN = 3
NO_FINISH_NEEDED = 2

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Unexpected(Exception):
    """The server answered something that this load does not lead to."""


class RanDry(Exception):
    """A poll found nothing: the measurement ends here."""


@frozen(kw_only=True)
class Load:
    """What to do to a server, and for how long."""

    port: int
    pid: int
    """The server's process, whose CPU time is read."""

    kind: str
    """`add`, or `take` for poll and remove."""

    connections: int
    window: int
    """Calls in flight on each connection."""

    items: int
    """Items in one add or poll."""

    preload: int
    """Items added before it begins."""

    warmup: float
    seconds: float


def results_of(frame):
    """The results in the Return *frame*, by the real reader."""
    message = decode(next(Framer(LIMITS).feed(frame)))
    if type(message) is not Return or type(message.outcome) is not Results:
        raise Unexpected(f"{message}")
    return message.outcome


def call(question, target, method, content):
    return wire.call(question, target, QUEUE_INTERFACE_ID, method, content) + content


class Adds:
    """Adds of the same items, over and over."""

    def __init__(self, target, window, items):
        content = write_add_request(AddRequest([NewItem(CONTENTS, SpanMs(0))] * items))
        self.calls = [call(slot, target, ADD, content) for slot in range(window)]
        self.items = items
        self.seen = 0
        self.size = 0

    def next(self, slot):
        return self.calls[slot]

    def returned(self, slot, data, at, size):
        """How many items the Return from *at* on completes."""
        self.seen += 1
        if size != self.size or not self.seen % SAMPLE:
            ids = read_add_response(results_of(data[at : at + size])).ids
            if len({bytes(each) for each in ids}) != self.items or any(len(each) != 16 for each in ids):
                raise Unexpected(f"an add of {self.items} items gave the ids {ids}")
            self.size = size
        return self.items


class Takes:
    """Polls that do not wait, and a remove for every item they bring; removes go first."""

    def __init__(self, target, window, items):
        poll = write_poll_request(PollRequest(lease=LEASE, num_items=items, wait=None, no_wait=True))
        self.polls = [call(slot, target, POLL, poll) for slot in range(window)]
        mark_id, mark_lease = b"I" * 16, b"L" * 16
        remove = write_remove_request(RemoveRequest(mark_id, mark_lease))
        self.removes = [call(slot, target, REMOVE, remove) for slot in range(window)]
        first, second = sorted((self.removes[0].index(mark_id), self.removes[0].index(mark_lease)))
        self.id_first = first == self.removes[0].index(mark_id)
        self.cut = Struct(f"{first}s16s{second - first - 16}s16s{len(self.removes[0]) - second - 16}s")
        self.parts = [self.cut.unpack(each) for each in self.removes]
        self.removing = [False] * window
        self.found = []
        self.places = {}
        self.removed = b""
        self.seen = 0

    def next(self, slot):
        if not self.found:
            self.removing[slot] = False
            return self.polls[slot]
        self.removing[slot] = True
        number, lease = self.found.pop()
        first, second = (number, lease) if self.id_first else (lease, number)
        before, _, between, _, after = self.parts[slot]
        return self.cut.pack(before, first, between, second, after)

    def returned(self, slot, data, at, size):
        """How many items the Return from *at* on completes."""
        if self.removing[slot]:
            # All Returns of the same result are the same but for the answer's number.
            if data[at + BODY : at + size] != self.removed:
                if not read_remove_response(results_of(data[at : at + size])):
                    raise Unexpected("a remove under a live lease was refused")
                self.removed = data[at + BODY : at + size]
            return 1
        self.seen += 1
        places = self.places.get(size)
        if places is None or not self.seen % SAMPLE:
            self.places[size] = self.learn(data[at : at + size], places)
            places = self.places[size]
        ids, lease = places
        secret = data[at + lease : at + lease + 16]
        self.found += [(data[at + each : at + each + 16], secret) for each in ids]
        return 0

    def learn(self, frame, known):
        """Where the ids and the lease of a poll's reply are; they must be where they are *known* to be."""
        response = read_poll_response(results_of(frame))
        if not response.items:
            raise RanDry
        if any(item.contents != CONTENTS for item in response.items):
            raise Unexpected(f"a poll gave {response.items[0]}")
        if known:
            ids, lease = known
            if [frame[each : each + 16] for each in ids] != [item.id for item in response.items]:
                raise Unexpected("two replies of the same length have their ids in different places")
            if frame[lease : lease + 16] != response.lease:
                raise Unexpected("two replies of the same length have their leases in different places")
            return known
        if any(frame.count(each) != 1 for each in (response.lease, *(item.id for item in response.items))):
            raise Unexpected(f"ids and leases cannot be told apart in {response}")
        return [frame.index(item.id) for item in response.items], frame.index(response.lease)


WORK = {"add": Adds, "take": Takes}


class Connection:
    """One connection with a sliding window of calls.  Blocking: both servers read whatever happens."""

    def __init__(self, port, kind, window, items):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=STUCK_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""
        target = self.bootstrap(window)
        self.work = WORK[kind](target, window, items)
        self.finish = [wire.finish(slot, release_result_caps=False) for slot in range(window)]
        self.sent = [0.0] * window
        self.in_flight = 0
        self.items = 0
        self.latencies = []

    def bootstrap(self, question):
        """The import to call, after a first call that is pipelined on the bootstrap as stock clients do it."""
        nothing = write_add_request(AddRequest([]))
        first = wire.pipelined_call(question + 1, PromisedAnswer(question), QUEUE_INTERFACE_ID, ADD, nothing)
        self.socket.sendall(wire.bootstrap(question) + first)
        framer, returned = Framer(LIMITS), {}
        while len(returned) < 2:
            got = self.socket.recv(RECV_BYTES)
            if not got:
                raise Unexpected("the server closed the connection")
            for frame in framer.feed(got):
                message = decode(frame)
                if type(message) is not Return or type(message.outcome) is not Results:
                    raise Unexpected(f"{message}")
                returned[message.answer] = message.outcome
        self.socket.sendall(b"".join([wire.finish(each, release_result_caps=False) for each in returned]))
        return read_bootstrap(returned[question])

    def begin(self):
        """Fill the window."""
        self.in_flight = len(self.sent)
        self.sent = [perf_counter()] * self.in_flight
        self.socket.sendall(b"".join([self.work.next(slot) for slot in range(self.in_flight)]))

    def turn(self, more):
        """Take what has come; with *more*, every call that returned is followed by another."""
        got = self.socket.recv(RECV_BYTES)
        if not got:
            raise Unexpected("the server closed the connection")
        now = perf_counter()
        data = self.rest + got
        at, end = 0, len(data)
        out, slots = [], []
        work = self.work
        while at + BODY <= end:
            segments, words, root, which, pointer, slot, flags, outcome = HEAD.unpack_from(data, at)
            if segments:
                raise Unexpected("a reply in several segments; replies here are to be short")
            size = 8 + words * 8
            if at + size > end:
                break
            if root != ROOT_POINTER or pointer != RETURN_POINTER or which != RETURN or outcome:
                raise Unexpected(f"no plain Return: {results_of(data[at : at + size])}")
            self.latencies.append(now - self.sent[slot])
            self.items += work.returned(slot, data, at, size)
            if not flags & NO_FINISH_NEEDED:
                out.append(self.finish[slot])
            slots.append(slot)
            at += size
        self.rest = data[at:]
        if more:
            out += [work.next(slot) for slot in slots]
        else:
            self.in_flight -= len(slots)
        if out:
            now = perf_counter()
            for slot in slots:
                self.sent[slot] = now
            self.socket.sendall(b"".join(out))


def preload(load):
    """Add the items that are to be taken."""
    connection = Connection(load.port, "add", PRELOAD_WINDOW, PRELOAD_ITEMS)
    connection.begin()
    while connection.items < load.preload:
        connection.turn(True)
    while connection.in_flight:
        connection.turn(False)
    connection.socket.close()


def cpu_seconds(pid):
    """User and system time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


@define
class Run:
    """All connections of one load."""

    connections: list
    selector: selectors.BaseSelector
    dry: bool = False

    def until(self, moment):
        """Keep all windows full up to *moment*, or up to a poll that finds nothing."""
        try:
            while monotonic() < moment and not self.dry:
                for key, _ in self.ready():
                    key.data.turn(True)
        except RanDry:
            self.dry = True

    def drain(self):
        """Take the Returns that are still to come."""
        while any(connection.in_flight for connection in self.connections):
            for key, _ in self.ready():
                key.data.turn(False)

    def ready(self):
        ready = self.selector.select(STUCK_SECONDS)
        if not ready:
            raise Unexpected(f"no reply for {STUCK_SECONDS} seconds")
        return ready


def measure(load):
    """Run *load*: counts over the measured time, latencies in milliseconds, CPU times in seconds."""
    if load.preload:
        preload(load)
    selector = selectors.DefaultSelector()
    connections = [Connection(load.port, load.kind, load.window, load.items) for _ in range(load.connections)]
    for connection in connections:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.begin()
    run = Run(connections, selector)
    run.until(monotonic() + load.warmup)
    if run.dry:
        raise Unexpected("the queue ran dry before the measurement began")
    for connection in connections:
        connection.items = 0
        connection.latencies.clear()
    server, client, begun = cpu_seconds(load.pid), cpu_seconds("self"), perf_counter()
    run.until(monotonic() + load.seconds)
    seconds = perf_counter() - begun
    server, client = cpu_seconds(load.pid) - server, cpu_seconds("self") - client
    latencies = sorted(each for connection in connections for each in connection.latencies)
    items = sum(connection.items for connection in connections)
    if not run.dry:
        run.drain()
    if not latencies:
        raise Unexpected("nothing was answered while it was measured")
    return {
        "calls": len(latencies),
        "items": items,
        "seconds": seconds,
        "p50_ms": latencies[len(latencies) // 2] * 1e3,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1e3,
        "server_cpu": server,
        "client_cpu": client,
        "dry": run.dry,
    }


if __name__ == "__main__":
    try:
        answer = measure(Load(**json.loads(sys.argv[1])))
    except (Unexpected, OSError) as why:
        answer = {"error": f"{type(why).__name__}: {why}"[:500]}
    print(json.dumps(answer))
