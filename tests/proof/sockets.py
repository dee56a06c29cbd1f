"""
A hypothesis state machine that compares the model of `queue_model` with a real server over sockets.

Three connections call one after the other: add, poll, remove and extend, with
leases that are stale and foreign, with delays, with waits; time passes, a
connection is dropped, the server is killed and started again.  Each example
has a queue of its own.  The model knows exactly when each item is due, because
item ids and lease deadlines carry the server's time.  It does not know whether
a lease that has just ended was swept already, and accepts both.
"""

import argparse
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
from queueber.broker.model import Item, Key
from queueber.units import SpanMs
from tests.support.peer import Peer
from tests.support.queue_model import QueueModel, must

STEPS = 50
NAME = "queue"
"""The name of an example's one queue in the model."""

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


class Link(Peer):
    """A connection whose calls go to one queue and must succeed."""

    def __init__(self, port, name):
        super().__init__(port)
        self.target = self.queue(name)
        question = self.ask(api.DEAD_LETTERS, api.write_dead_letters_request(), self.target)
        self.flush()
        self.dead = rpc.ImportedCap(api.read_queue_response(self.outcome(question)))
        self.connection.finish(question, release_result_caps=False)

    def settle(self, entry):
        """Settle with one entry; return its outcome."""
        content = api.write_settle_request(api.SettleRequest([entry], (), all_or_nothing=False))
        (settled,) = api.read_settle_response(self.call(api.SETTLE, content)).settled
        return settled

    def call(self, method, content, target=None):
        outcome = super().call(method, content, target or self.target)
        must(isinstance(outcome, rpc.Results), f"{outcome}")
        return outcome


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
            link.add(b"")
            for attempt, wait in ((1, 0), (2, 1_000 * TIMEOUT_SECONDS)):
                found = link.poll(lease=SHORT, wait=wait)
                assert [each.attempt for each in found.items] == [attempt], "a lease that ended was not swept"
        finally:
            link.close()
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
    model: QueueModel = field(factory=QueueModel)
    ids: list = field(factory=list)
    """Ids of all items that were added and not removed."""

    leases: list = field(factory=list)
    """Ids of all leases, in the order of their polls."""

    dead: list = field(factory=list)
    """Ids of the dead items, in the order of their deaths."""

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
            link.close()

    def link(self, number):
        """Return a connection, for one call."""
        self.servers.calls += 1
        return self.world.links[number]

    # Calls

    @rule(link=LINKS, items=ITEMS)
    def add(self, link, items):
        request = api.AddRequest([api.NewItem(contents, SpanMs(delay)) for contents, delay in items])
        ids = [
            bytes(each)
            for each in api.read_add_response(self.link(link).call(api.ADD, api.write_add_request(request))).ids
        ]
        assert len(ids) == len(items)
        assert ids == sorted(set(ids))
        for item_id, (contents, delay) in zip(ids, items, strict=True):
            now = int.from_bytes(item_id[:6], "big")
            assert now >= self.world.last
            self.world.model.add(NAME, [Item(Key(now + delay + 1 if delay else now, item_id), contents, now)])
            self.world.ids.append(item_id)
        self.world.last = int.from_bytes(ids[0][:6], "big")

    @rule(
        link=LINKS,
        wanted=st.integers(1, 5),
        span=st.sampled_from([SHORT, LONG, LONG]),
        wait=st.sampled_from([0, 0, 20]),
    )
    def poll(self, link, wanted, span, wait):
        began = time.monotonic()
        response = self.link(link).poll(wanted, lease=span, wait=wait)
        if not response.items:
            # At most that long is what a poll waits, by a clock of whole milliseconds.
            assert time.monotonic() - began >= (wait - 1) / 1e3
            assert not self.world.model.ready(NAME, self.world.last), (
                "there was something, and the poll came back with nothing"
            )
            return
        now = response.deadline - span - 1
        assert now >= self.world.last
        self.world.last = now
        lease = bytes(response.lease)
        assert lease not in self.world.leases
        keys = self.check_given(response.items, now, wanted)
        self.world.model.claim(NAME, lease, keys, response.deadline)
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

    def check_given(self, given, now, wanted):
        """Check that the items are the first that were ready, with those of leases swept before; return their keys."""
        assert len(given) <= wanted
        model = self.world.model
        for each in given:
            holder = model.holder(NAME, model.find(NAME, bytes(each.id)).key)
            if holder is not None:
                must(model.leases[holder].deadline <= now, "an item under a live lease was handed out")
                # The sweeper moves all items of a lease at once.
                model.expire(holder)
        items = [model.find(NAME, bytes(each.id)) for each in given]
        found, expected = (
            [(bytes(each.contents), each.attempt) for each in given],
            [(each.contents, each.attempts + 1) for each in items],
        )
        must(found == expected, f"{found} was handed out, and {expected} was added")
        keys, ready = [item.key for item in items], model.ready(NAME, now)
        must(keys == ready[: len(keys)], f"early, or out of order: {keys} left, and {ready} were ready")
        must(len(keys) in (wanted, len(ready)), "an item was passed over")
        return keys

    @rule(link=LINKS, which=LATELY, item=st.integers(0, 7))
    def remove(self, link, which, item):
        # What is drawn must not depend on time, or nothing could be repeated.
        model, lease = self.world.model, self.lease(which)
        known = [*(each.key.id for each in model.held(lease)), *self.world.ids]
        if not known:
            return
        item = known[item % len(known)]
        if self.link(link).remove(item, lease):
            model.remove(lease, item)
            self.world.ids.remove(item)
        else:
            assert not model.holds(NAME, lease, item) or self.may_have_ended(lease)

    @rule(
        link=LINKS,
        which=LATELY,
        item=st.integers(0, 7),
        action=st.sampled_from([api.Action.FAIL, api.Action.FAIL, api.Action.DEFER, api.Action.REJECT]),
        delay=st.sampled_from([None, 0, 0, 30]),
    )
    def settle(self, link, which, item, action, delay):
        world, model, lease = self.world, self.world.model, self.lease(which)
        known = [*(each.key.id for each in model.held(lease)), *world.ids]
        if not known:
            return
        item = known[item % len(known)]
        span = None if delay is None else SpanMs(delay)
        settled = self.link(link).settle(api.Settlement(lease, item, action, span, "broken"))
        if settled.outcome is not api.Outcome.DONE:
            assert not model.holds(NAME, lease, item) or self.may_have_ended(lease)
            return
        must(settled.died == (action is api.Action.REJECT), f"{action.name}, and it died: {settled.died}")
        if settled.died:
            model.leave(lease, item)
            world.ids.remove(item)
            world.dead.append(item)
            return
        if delay is not None:
            now = settled.due - delay - 1 if delay else settled.due
            must(now >= world.last, "time runs backwards")
            world.last = now
        own_place = action is api.Action.DEFER and delay is None
        model.settle(lease, item, action, None if own_place else settled.due, "broken", world.last)

    @rule(link=LINKS)
    def bury(self, link):
        """Take all dead items and remove them."""
        found = self.link(link).poll(1_000, target=self.world.links[link].dead, lease=LONG)
        must([bytes(each.id) for each in found.items] == self.world.dead, f"{self.world.dead} are dead, not {found}")
        for item in self.world.dead:
            must(self.link(link).remove(item, found.lease, self.world.links[link].dead), f"{item} is not removed")
        self.world.dead = []

    def lease(self, which):
        """Return the id of one of the last leases; an unknown one if there is none yet."""
        return self.world.leases[-1 - which % len(self.world.leases)] if self.world.leases else bytes(16)

    @rule(link=LINKS, which=LATELY)
    def extend(self, link, which):
        model, lease = self.world.model, self.lease(which)
        if self.link(link).extend(lease, LONG):
            must(lease in model.leases, "a lease without items was extended")
            must(model.leases[lease].deadline > self.world.last, "a lease that has ended was extended")
            model.extend(lease, self.world.last + LONG)
        else:
            assert lease not in model.leases or self.may_have_ended(lease)

    def may_have_ended(self, lease):
        return self.world.model.leases[lease].deadline < self.world.last + LONG // 2

    # Time, and what goes wrong

    @rule(really=st.sampled_from([False] * 31 + [True]))
    def wait(self, really):
        """Wait until all short leases have ended and were swept."""
        if not really:
            return
        self.world.last = self.servers.swept()
        for lease, _ in self.world.model.ended_leases(self.world.last):
            self.world.model.expire(lease)

    @rule(link=LINKS, really=SELDOM)
    def reconnect(self, link, really):
        if really:
            self.world.links[link].close()
            self.world.links[link] = Link(self.servers.port, self.world.name)

    @rule(really=st.sampled_from([False] * 40 + [True]))
    def kill(self, really):
        """Kill the server between calls: the model does not change."""
        if really:
            for link in self.world.links:
                link.close()
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
