"""
Many leases that end in the same moment: their items go back in slices, and polls are served in between.

``python tests/hostile/expiry.py 1000000`` does it with a million items.
"""

import gc
import sys
import time
from pathlib import Path

# Run as a script, Python looks for modules in this file's folder only.
sys.path.insert(0, str(Path(__file__).parents[2]))

from attrs import define

from queueber import api
from queueber.capnp.framing import Framer
from queueber.limits import Limits
from queueber.rpc import encoder
from queueber.rpc.decoder import decode
from queueber.rpc.messages import Return
from queueber.server.app.service import GC_THRESHOLDS
from queueber.testing import InProcessServer
from tests.hostile.pieces import call
from tests.support.peer import adding, polling

AT_ONCE = 1_000
LEASE_MS = 3_600_000


@define
class Found:
    """The results."""

    items: int
    slices: int
    largest_slice: int
    """Items that went back between two moments at which polls can be served."""

    longest_turn: float
    """The longest time for which the reactor's thread did nothing else, in seconds."""

    seconds: float
    """Seconds of the reactor's thread in all, without the work of the pool's threads."""

    served_within: int
    """Slices after which a poll that came in the middle was answered."""

    attempts: set
    """The attempts of the items after the expiry."""


class Client:
    """A server in this process and one connection to it."""

    def __init__(self, items):
        self._job_seconds = 0.0
        self.server = InProcessServer(Limits(leased_items=max(items, 1), poll_items=AT_ONCE))
        self._run = self.server.pool.run
        self.server.pool.run = self._timed
        self.protocol, self.transport = self.server.connect()
        self.protocol.dataReceived(encoder.bootstrap(0))
        self.question = 0

    def _timed(self, function, *args, **kwargs):
        def job():
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._job_seconds += time.perf_counter() - began

        return self._run(job)

    def ask(self, method, content):
        self.question += 1
        self.protocol.dataReceived(call(content, question=self.question, method=method))
        return self.question

    def run(self):
        while self.server.pool.jobs or self.server.reactor.getDelayedCalls():
            due = [each for each in self.server.reactor.getDelayedCalls() if each.time <= self.server.reactor.seconds()]
            if not due and not self.server.pool.jobs:
                return
            self.step()

    def step(self):
        """Run a turn of the reactor, and a job of the pool with its callbacks; return the seconds without the job."""
        began, self._job_seconds = time.perf_counter(), 0.0
        self.server.turn()
        if self.server.pool.jobs:
            self.server.pool.step()
        return time.perf_counter() - began - self._job_seconds

    def answers(self):
        """Return all outcomes since the last call, by question, and finish each."""
        data = self.transport.value()
        self.transport.clear()
        messages = [decode(frame) for frame in Framer(Limits()).feed(data)]
        found = {each.answer: each.outcome for each in messages if isinstance(each, Return)}
        self.protocol.dataReceived(b"".join([encoder.finish(each, release_result_caps=False) for each in found]))
        return found

    def result(self, method, content):
        question = self.ask(method, content)
        self.run()
        return self.answers()[question]


def expire(items, per_lease=10):
    """Lease *items*, let all their leases end at once, and measure."""
    client = Client(items)
    for _ in range(0, items, AT_ONCE):
        client.result(api.ADD, adding(*[b"x"] * AT_ONCE))
    leased = 0
    while leased < items:
        polls = [client.ask(api.POLL, polling(per_lease, lease=LEASE_MS)) for _ in range(20)]
        client.run()
        answers = client.answers()
        leased += sum(len(api.read_poll_response(answers[each]).items) for each in polls)
    client.server.reactor.rightNow += LEASE_MS / 1000 + 1
    return watched(client, items, per_lease)


def watched(client, items, per_lease):
    """Sweep, step by step, with a poll in the middle."""
    server = client.server
    slices, longest, seconds = [], 0.0, 0.0
    swept, poll, served_within = server.sweeper.sweep(), None, -1
    left = server.broker.stats().leases
    while not swept.called:
        took = client.step()
        longest, seconds = max(longest, took), seconds + took
        if (now := server.broker.stats().leases) < left:
            slices.append(left - now)
            left = now
        if poll is None and len(slices) > 2:
            poll, asked = client.ask(api.POLL, polling(1, lease=LEASE_MS)), len(slices)
        if poll is not None and served_within < 0 and client.transport.value():
            assert api.read_poll_response(client.answers()[poll]).items
            served_within = len(slices) - asked
    attempts, count = {2}, 1
    while count < items:
        found = api.read_poll_response(client.result(api.POLL, polling(AT_ONCE, lease=LEASE_MS))).items
        assert found, f"{items - count} items did not come back"
        attempts |= {item.attempt for item in found}
        count += len(found)
    return Found(items, len(slices), max(slices) * per_lease, longest, seconds, served_within, attempts)


if __name__ == "__main__":
    # As the service does it.
    gc.set_threshold(*GC_THRESHOLDS)
    print(expire(int(sys.argv[1])))
