"""
A hypothesis state machine that compares a simple model of a queue with a real server over sockets.

The model is not the broker's test model: it knows only what a client can observe.

Three connections call one after the other: add, poll, remove and extend, with
leases that are stale and foreign, with delays, with waits; time passes, a
connection is dropped, the server is killed and started again.  Each example
has a queue of its own.  The model knows exactly when each item is due, because
item ids and lease deadlines carry the server's time.  It does not know whether
a lease that has just ended was swept already, and accepts both.
"""

import argparse
import socket
import sys
import tempfile
import time
from pathlib import Path

from attrs import define, field
from counts import Counts, command_line
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from serverhost import Host

from queueber import api, rpc
from queueber.limits import Limits
from queueber.units import SpanMs

STEPS = 50
LONG = 600_000
"""The ms of a lease that ends in no example."""

SHORT = 40
LOST_SECONDS = 0.15
"""The seconds that a slow worker takes: longer than `SHORT`."""

TIMEOUT_SECONDS = 60

LATELY = st.sampled_from([0, 0, 1, 2, 3])
LINKS = st.integers(0, 2)
ITEMS = st.lists(st.tuples(st.binary(max_size=8), st.sampled_from([0, 0, 0, 1, 300])), min_size=1, max_size=5)
SELDOM = st.sampled_from([False] * 5 + [True])


class Link:
    """A blocking connection."""

    def __init__(self, port, name):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = rpc.Connection(limits=Limits())
        root = rpc.PromisedAnswer(self.connection.bootstrap())
        asked = self.connection.call(root, api.BROKER_INTERFACE_ID, api.QUEUE, api.write_queue_request(name))
        self.target = rpc.PromisedAnswer(asked, (0,))

    def call(self, method, content):
        """Call *method*; return the results, and fail for any other outcome."""
        question = self.connection.call(self.target, api.QUEUE_INTERFACE_ID, method, content)
        self.socket.sendall(self.connection.data_to_send())
        while True:
            data = self.socket.recv(1 << 16)
            assert data, "the server ended the connection"
            for event in self.connection.receive_data(data):
                assert isinstance(event, rpc.Returned), event
                if event.question == question:
                    self.connection.finish(question)
                    assert isinstance(event.outcome, rpc.Results), event.outcome
                    return event.outcome


@define(eq=False)
class ModelItem:
    """An item of the model."""

    id: bytes
    due: int
    contents: bytes
    attempts: int = 0
    lease: object = None

    @property
    def key(self):
        return self.due, self.id


@define(eq=False)
class ModelLease:
    """A lease of the model."""

    id: bytes
    deadline: int
    items: list


@define(eq=False)
class Servers:
    """The server that all examples share; it can be restarted."""

    host: Host
    folder: Path
    server: object = None
    port: int = 0
    queues: int = 0
    calls: int = 0
    kills: int = 0

    def start(self):
        self.server = self.host.start(self.folder / "data", self.folder / "log")
        self.port = self.server.port()

    def swept(self):
        """Wait until all short leases have been swept; return a time of the server after that."""
        self.queues += 1
        link = Link(self.port, f"swept {self.queues}")
        try:
            # Leases are swept in the order of their ends, and of those that are short this one is the last.
            link.call(api.ADD, api.write_add_request(api.AddRequest([api.NewItem(b"", SpanMs(0))])))
            for attempt, wait in ((1, None), (2, SpanMs(1_000 * TIMEOUT_SECONDS))):
                request = api.PollRequest(SpanMs(SHORT), 1, wait, no_wait=wait is None)
                found = api.read_poll_response(link.call(api.POLL, api.write_poll_request(request)))
                assert [each.attempt for each in found.items] == [attempt], "a lease that ended was not swept"
        finally:
            link.socket.close()
        return found.deadline - SHORT - 1

    def restart(self):
        self.server.kill()
        self.kills += 1
        self.start()


@define(eq=False)
class World:
    """The state machine's knowledge of its queue."""

    name: str
    links: list
    items: dict = field(factory=dict)
    leases: list = field(factory=list)
    last: int = 0
    """The latest known time of the server."""


class SocketMachine(RuleBasedStateMachine):
    """Calls, time and kills in any order."""

    def __init__(self, servers):
        super().__init__()
        self.servers = servers

    @initialize(items=ITEMS)
    def begin(self, items):
        self.servers.queues += 1
        self.world = World(f"queue {self.servers.queues}", [])
        self.connect()
        self.add(0, items)

    def connect(self):
        self.world.links = [Link(self.servers.port, self.world.name) for _ in range(3)]

    def teardown(self):
        for link in self.world.links if hasattr(self, "world") else ():
            link.socket.close()

    def call(self, link, method, content):
        self.servers.calls += 1
        return self.world.links[link].call(method, content)

    # Calls

    @rule(link=LINKS, items=ITEMS)
    def add(self, link, items):
        request = api.AddRequest([api.NewItem(contents, SpanMs(delay)) for contents, delay in items])
        ids = [
            bytes(each) for each in api.read_add_response(self.call(link, api.ADD, api.write_add_request(request))).ids
        ]
        assert len(ids) == len(items)
        assert ids == sorted(set(ids))
        for item_id, (contents, delay) in zip(ids, items, strict=True):
            now = int.from_bytes(item_id[:6], "big")
            assert now >= self.world.last
            self.world.items[item_id] = ModelItem(item_id, now + delay + 1 if delay else now, contents)
        self.world.last = int.from_bytes(ids[0][:6], "big")

    @rule(
        link=LINKS,
        wanted=st.integers(1, 5),
        span=st.sampled_from([SHORT, LONG, LONG]),
        wait=st.sampled_from([0, 0, 20]),
    )
    def poll(self, link, wanted, span, wait):
        request = api.PollRequest(SpanMs(span), wanted, SpanMs(wait) if wait else None, no_wait=not wait)
        began = time.monotonic()
        response = api.read_poll_response(self.call(link, api.POLL, api.write_poll_request(request)))
        if not response.items:
            # At most that long is what a poll waits, by a clock of whole milliseconds.
            assert time.monotonic() - began >= (wait - 1) / 1e3
            assert not self.certain(self.world.last), "there was something, and the poll came back with nothing"
            return
        now = response.deadline - span - 1
        assert now >= self.world.last
        self.world.last = now
        self.check_given(response.items, now, wanted)
        lease = ModelLease(bytes(response.lease), response.deadline, [])
        assert lease.id not in {each.id for each in self.world.leases}
        for each in response.items:
            item = self.world.items[bytes(each.id)]
            self.put_back(item)
            assert (bytes(each.contents), each.attempt) == (item.contents, item.attempts + 1)
            item.lease = lease
            lease.items.append(item)
        self.world.leases.append(lease)

    @rule(link=LINKS, wanted=st.integers(1, 3), items=st.lists(st.integers(0, 7), max_size=3))
    def work(self, link, wanted, items):
        """Remove or extend, now and then with the id of another item."""
        self.poll(link, wanted, LONG, 0)
        for item in items:
            self.remove(link, 0, item)

    @rule(link=LINKS, wanted=st.integers(1, 3))
    def lose(self, link, wanted):
        """Poll, and let the lease end."""
        self.poll(link, wanted, SHORT, 0)
        time.sleep(LOST_SECONDS)

    def certain(self, now):
        """Return the items that are ready at *now* whatever the sweeper has done, in order."""
        return sorted(item.key for item in self.world.items.values() if item.lease is None and item.due <= now)

    def put_back(self, item):
        """Record a delivery: a lease that the item was under must have ended."""
        if item.lease is not None:
            assert item.lease.deadline <= self.world.last, "an item under a live lease was handed out"
            item.lease.items.remove(item)
            item.due = max(item.due + 1, item.lease.deadline)
            item.attempts += 1
            item.lease = None

    def check_given(self, given, now, wanted):
        assert len(given) <= wanted
        items = [self.world.items[bytes(each.id)] for each in given]
        keys = [(max(i.due + 1, i.lease.deadline), i.id) if i.lease else i.key for i in items]
        assert keys == sorted(keys), "out of order"
        assert all(due <= now for due, _ in keys), "early"
        missed = [key for key in self.certain(now) if key not in keys]
        assert not missed or (missed[0] > keys[-1] and len(given) == wanted), "an item was passed over"

    @rule(link=LINKS, which=LATELY, item=st.integers(0, 7))
    def remove(self, link, which, item):
        # What is drawn must not depend on time, or nothing could be repeated.
        lease = self.lease(which)
        known = [*lease.items, *self.world.items.values()] if lease is not None else ()
        if not known:
            return
        item = known[item % len(known)]
        request = api.RemoveRequest(item.id, lease.id)
        removed = api.read_remove_response(self.call(link, api.REMOVE, api.write_remove_request(request)))
        if removed:
            assert item in lease.items, "a stale or foreign lease removed an item"
            lease.items.remove(item)
            del self.world.items[item.id]
        else:
            assert item not in lease.items or self.may_have_ended(lease)

    def lease(self, which):
        """Return one of the last leases; None if there is none yet."""
        return self.world.leases[-1 - which % len(self.world.leases)] if self.world.leases else None

    @rule(link=LINKS, which=LATELY)
    def extend(self, link, which):
        lease = self.lease(which)
        if lease is None:
            return
        request = api.ExtendRequest(lease.id, SpanMs(LONG))
        extended = api.read_extend_response(self.call(link, api.EXTEND, api.write_extend_request(request)))
        if extended:
            assert lease.items, "a lease without items was extended"
            assert lease.deadline > self.world.last
            lease.deadline = self.world.last + LONG
        else:
            assert not lease.items or self.may_have_ended(lease)

    def may_have_ended(self, lease):
        return lease.deadline < self.world.last + LONG // 2

    # Time, and what goes wrong

    @rule(really=st.sampled_from([False] * 31 + [True]))
    def wait(self, really):
        """Wait until all short leases have ended and were swept."""
        if not really:
            return
        self.world.last = self.servers.swept()
        for lease in self.world.leases:
            if lease.deadline <= self.world.last:
                for item in list(lease.items):
                    self.put_back(item)

    @rule(link=LINKS, really=SELDOM)
    def reconnect(self, link, really):
        if really:
            self.world.links[link].socket.close()
            self.world.links[link] = Link(self.servers.port, self.world.name)

    @rule(really=st.sampled_from([False] * 40 + [True]))
    def kill(self, really):
        """Kill the server between calls: the model does not change."""
        if really:
            for link in self.world.links:
                link.socket.close()
            self.servers.restart()
            self.connect()


def play(examples, chosen, steps=STEPS):
    """Run the examples; return the numbers of calls and kills.  An assertion fails at the first difference."""
    with Host() as host, tempfile.TemporaryDirectory(prefix="queueber-sockets-") as folder:
        servers = Servers(host, Path(folder))
        servers.start()
        run_state_machine_as_test(
            seed(chosen)(lambda: SocketMachine(servers)),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )
    return servers


def main():
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--examples", "--cycles", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    counts = Counts("sockets", "examples", n=asked.examples, target=asked.examples)
    try:
        servers = play(asked.examples, asked.seed)
    except AssertionError as wrong:
        counts.failures.append(str(wrong))
    else:
        print(f"{servers.calls:,} calls, {servers.kills:,} kills")
    return counts.end(command_line())


if __name__ == "__main__":
    sys.exit(main())
