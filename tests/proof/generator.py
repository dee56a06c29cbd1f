"""
Clients with different habits, good and bad, that call until their server is gone.

A producer adds contents that no other client uses.  A worker may remove,
extend, let a lease expire, disconnect, send a call twice, or use a lease that
has ended or belongs to another worker.

Not `queueber.loadgen`, whose clients only do what they should, stop at the
first error, and note no times: here every call goes into the history that the
checker judges, and clients go on after each crash.
"""

import asyncio
import os
import time

from attrs import define, field
from history import History, Poll
from tenure import RESTART_GRACE_SECONDS
from wireclient import Client, Gone, Refused

QUEUES = ("default", "mail", "\N{SNOWMAN}", "jobs/nightly")
DELAYS = ((0.7, 0.0, 0.0), (0.95, 0.01, 0.3), (1.0, 0.3, 1.5))
SIZES = ((0.9, 100), (0.99, 3_000), (1.0, 70_000))
BACKLOG_ITEMS = 1_500
QUIET_SECONDS = 0.3


@define(eq=False)
class Generator:
    """The state that all clients share, across restarts of the server."""

    random: object
    """A `random.Random`."""

    history: History = field(factory=History)
    number: int = 0
    tokens: list = field(factory=list)
    """Ids and leases that one client received, for others to try."""

    polite: bool = False
    """Whether no client disconnects: the checker is stricter then."""

    long_span: float = 4.0
    """The seconds of leases that outlast a crash: the longest of all waits, and about the length of a drain."""

    added: int = 0
    removed: int = 0

    # Habits

    async def produce(self, client):
        """Add items, with several calls in flight."""
        calls, window = set(), 1 + self.random.randrange(8)
        while True:
            for call in [each for each in calls if each.done()]:
                calls.discard(call)
                self._look(call)
            while len(calls) < window:
                count = self.random.choice((1, 1, 1, 2, 3, 10))
                contents = [self._contents() for _ in range(count)]
                delays = [
                    0.0 if self.random.random() < 0.5 else min(_of(self.random, DELAYS), self.long_span)
                    for _ in range(count)
                ]
                if self.random.random() < 0.01:
                    delays[-1] = 11 * 366 * 86_400.0  # longer than may be: nothing of it must be there
                calls.add(client.add(contents, delays))
                self.added += count
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            while self.added - self.removed > BACKLOG_ITEMS and not client.gone:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def work(self, client):
        """Poll items and remove them."""
        while True:
            taken = await self._take(client, 10, min(self.random.choice((0.5, 1.0, 2.0)), self.long_span), 3.0)
            await self._all([self._remove(client, each.id, taken.lease) for each in taken.items])

    async def linger(self, client):
        """Extend leases to longer and shorter spans, then remove."""
        while True:
            taken = await self._take(client, 3, 0.4, 1.0)
            for _ in range(self.random.randrange(3) if taken.lease else 0):
                await asyncio.sleep(self.random.random() * 0.3)
                await client.extend(taken.lease, self.random.choice((0.1, 0.5, 1.0)))
            for each in taken.items:
                await self._remove(client, each.id, taken.lease)

    async def lapse(self, client):
        """Let leases expire, then remove and extend all the same."""
        while True:
            taken = await self._take(client, 2, self.random.choice((0.03, 0.1, 0.2)), 1.0)
            await asyncio.sleep(self.random.random() * 0.4)
            if taken.lease and self.random.random() < 0.5:
                await client.extend(taken.lease, 0.2)
            for each in taken.items:
                await self._remove(client, each.id, taken.lease)

    async def hold(self, client):
        """Take long leases, some of which outlast a crash, and use leases of other or earlier polls."""
        while True:
            taken = await self._take(client, 2, self.long_span, 1.0)
            self.tokens += [(each.id, taken.lease) for each in taken.items]
            await asyncio.sleep(self.random.random() * 0.2)
            for _ in range(min(3, len(self.tokens))):
                at = self.random.randrange(len(self.tokens))
                number, lease = self.tokens[at]
                if self.random.random() < 0.1:
                    lease = self.random.choice((self.random.choice(self.tokens)[1], os.urandom(16)))
                if (await self._remove(client, number, lease)).done or self.random.random() < 0.1:
                    self.tokens[at] = self.tokens[-1]
                    self.tokens.pop()

    async def repeat(self, client):
        """Send each call twice at once."""
        while True:
            taken = await self._take(client, 3, 1.0, 1.0)
            for each in taken.items:
                await self._all([self._remove(client, each.id, taken.lease) for _ in range(2)])

    async def glance(self, client):
        """Poll without waiting."""
        while True:
            taken = await self._take(client, 2, 1.0, 0)
            await self._all([self._remove(client, each.id, taken.lease) for each in taken.items])
            await asyncio.sleep(self.random.random() * 0.05)

    async def vanish(self, client):
        """Poll and disconnect, sometimes at once."""
        while True:
            lonely = await Client.connect(client.transport.get_extra_info("peername")[1], self.history, client.queue)
            lonely.poll(2, 0.2, 0.5)
            await asyncio.sleep(self.random.choice((0.0, 0.002, 0.02, 0.1)))
            lonely.abort()
            await asyncio.sleep(0.02)

    # Steps

    async def _take(self, client, most, span, wait):
        return await client.poll(1 + self.random.randrange(most), span, wait)

    async def _remove(self, client, number, lease):
        call = await client.remove(number, lease)
        self.removed += call.done
        return call

    async def _all(self, calls):
        # Those that fail fail alike.
        for each in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(each, BaseException):
                raise each

    def _look(self, call):
        if isinstance(call.exception(), Gone):
            raise call.exception()

    def _contents(self):
        self.number += 1
        head = b"%d:" % self.number
        return head.ljust(self.random.randrange(len(head), _of(self.random, SIZES, whole=True)), b".")

    # Lives

    async def load(self, port):
        """Run clients of all habits at the server on *port* until it is gone or the task is cancelled."""
        habits = [(habit, queue) for queue in QUEUES for habit in (self.produce, self.work)]
        others = [self.linger, self.lapse, self.hold, self.repeat, self.glance]
        if not self.polite:
            others.append(self.vanish)
        habits += [(habit, self.random.choice(QUEUES)) for habit in others]
        clients = []
        try:
            for _, queue in habits:
                clients.append(await Client.connect(port, self.history, queue))
            await asyncio.gather(*[_until_gone(habit, each) for (habit, _), each in zip(habits, clients, strict=True)])
        except OSError:
            return
        finally:
            for client in clients:
                client.abort()

    async def drain(self, port):
        """Poll and remove all items until none can be left."""
        clients = [await Client.connect(port, self.history, queue) for queue in QUEUES]
        spans = [(each.ended, each.span) for each in self.history.of(Poll) if each.span < 60]
        # A lease that ended while the server was down may last its length once more.
        again = time.monotonic() + min(RESTART_GRACE_SECONDS, max((span for _, span in spans), default=0))
        end = max((ended + span for ended, span in spans), default=0)
        end = max(end, again) + min(max(delay for _, _, delay in DELAYS), self.long_span) + 0.5
        await asyncio.gather(*[self._drain(each, end) for each in clients])
        self.history.drained = time.monotonic()
        for client in clients:
            client.abort()

    async def _drain(self, client, end):
        while True:
            began = time.monotonic()
            taken = await client.poll(1_000, 60.0, QUIET_SECONDS)
            await self._all([self._remove(client, each.id, taken.lease) for each in taken.items])
            if not taken.items and began > end:
                return


async def _until_gone(habit, client):
    while True:
        try:
            await habit(client)
        except Refused:
            await asyncio.sleep(0.05)
        except (Gone, OSError):
            return


def _of(random, table, *, whole=False):
    """Return a value of the first row of *table* whose share covers a random number."""
    die = random.random()
    for share, *values in table:
        if die < share:
            return values[0] if whole else random.uniform(*values)
    raise AssertionError
