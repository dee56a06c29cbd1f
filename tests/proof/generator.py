"""
Clients with different habits, good and bad, that call until their server is gone.

A producer adds contents that no other client uses.  A worker may remove,
extend, let a lease expire, disconnect, send a call twice, or use a lease that
has ended or belongs to another worker.  `habits` has those of newer calls:
settles, deaths, sessions, adds that happen once, and operators.

Not `queueber.loadgen`, whose clients only do what they should, stop at the
first error, and note no times: here every call goes into the history that the
checker judges, and clients go on after each crash.
"""

import asyncio
import os
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from math import inf

import habits
from attrs import define, field
from history import History, Poll, Settle
from tenure import GONE_SECONDS, RESTART_GRACE_SECONDS, SESSION_RESTART_SECONDS
from wireclient import Client, Gone, Refused

QUEUES = ("default", "mail", "\N{SNOWMAN}", "jobs/nightly")
ALL_QUEUES = (*QUEUES, habits.LIMITED, habits.ONCE, habits.PURGED)
DELAYS = ((0.7, 0.0, 0.0), (0.95, 0.01, 0.3), (1.0, 0.3, 1.5))
SIZES = ((0.9, 100), (0.99, 3_000), (1.0, 70_000))
BACKLOG_ITEMS = {"mail": 1_000, "jobs/nightly": 250}
"""Producers of a queue wait while it has more items."""

SHORT_BACKLOG = 40
"""Of the others: an item that becomes ready too early is noticed only if it is delivered early, too."""

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

    backlog: Counter = field(factory=Counter)
    """About how many items a queue has; a poll without items corrects what deaths and expiry take unseen."""

    configured: bool = False
    sessions: list = field(factory=list)
    """Sessions whose workers go on in the next life."""

    abandoned: bool = False
    """Whether a worker in a session has left for ever."""

    unanswered: list = field(factory=list)
    """Adds with request ids that had no reply: queue, contents, delays, request id."""

    keys_made: int = 0
    queues: tuple = QUEUES
    """The queues without settings of their own."""

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
                contents = [self.contents() for _ in range(count)]
                delays = [
                    0.0 if self.random.random() < 0.5 else min(_of(self.random, DELAYS), self.long_span)
                    for _ in range(count)
                ]
                if self.random.random() < 0.01:
                    delays[-1] = 11 * 366 * 86_400.0  # longer than may be: nothing of it must be there
                calls.add(client.add(contents, delays))
                self.backlog[client.queue] += count
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            while self.backlog[client.queue] > BACKLOG_ITEMS.get(client.queue, SHORT_BACKLOG) and not client.gone:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def work(self, client):
        """Poll items and remove them."""
        while True:
            taken = await self.take(client, 10, min(self.random.choice((0.5, 1.0, 2.0)), self.long_span), 3.0)
            await self.together([self._remove(client, each.id, taken.lease) for each in taken.items])

    async def linger(self, client):
        """Extend leases to longer and shorter spans, then remove."""
        while True:
            taken = await self.take(client, 3, 0.4, 1.0)
            for _ in range(self.random.randrange(3) if taken.lease else 0):
                await asyncio.sleep(self.random.random() * 0.3)
                await client.extend(taken.lease, self.random.choice((0.1, 0.5, 1.0)))
            for each in taken.items:
                await self._remove(client, each.id, taken.lease)

    async def lapse(self, client):
        """Let leases expire, then remove and extend all the same."""
        while True:
            taken = await self.take(client, 2, self.random.choice((0.03, 0.1, 0.2)), 1.0)
            await asyncio.sleep(self.random.random() * 0.4)
            if taken.lease and self.random.random() < 0.5:
                await client.extend(taken.lease, 0.2)
            for each in taken.items:
                await self._remove(client, each.id, taken.lease)

    async def hold(self, client):
        """Take long leases, some of which outlast a crash, and use leases of other or earlier polls."""
        while True:
            taken = await self.take(client, 2, self.long_span, 1.0)
            self.tokens += [(each.id, taken.lease) for each in taken.items]
            await asyncio.sleep(self.random.random() * 0.2)
            for _ in range(3):
                # Another connection may have taken the last ones meanwhile.
                if not self.tokens:
                    break
                at = self.random.randrange(len(self.tokens))
                number, lease = token = self.tokens[at]
                if self.random.random() < 0.1:
                    lease = self.random.choice((self.random.choice(self.tokens)[1], os.urandom(16)))
                gone = (await self._remove(client, number, lease)).done or self.random.random() < 0.1
                if gone and at < len(self.tokens) and self.tokens[at] is token:
                    self.tokens[at] = self.tokens[-1]
                    self.tokens.pop()

    async def repeat(self, client):
        """Send each call twice at once."""
        while True:
            taken = await self.take(client, 3, 1.0, 1.0)
            for each in taken.items:
                await self.together([self._remove(client, each.id, taken.lease) for _ in range(2)])

    async def glance(self, client):
        """Poll without waiting."""
        while True:
            taken = await self.take(client, 2, 1.0, 0)
            await self.together([self._remove(client, each.id, taken.lease) for each in taken.items])
            await asyncio.sleep(self.random.random() * 0.05)

    async def vanish(self, client):
        """Poll and disconnect, sometimes at once."""
        while True:
            lonely = await Client.connect(client.port, self.history, client.queue)
            lonely.poll(2, 0.2, 0.5)
            await asyncio.sleep(self.random.choice((0.0, 0.002, 0.02, 0.1)))
            lonely.abort()
            await asyncio.sleep(0.02)

    # Steps

    async def take(self, client, most, span, wait):
        """Poll up to *most* items."""
        taken = await client.poll(1 + self.random.randrange(most), span, wait)
        if not taken.items:
            self.backlog[client.queue] = 0
        return taken

    async def _remove(self, client, number, lease, **more):
        call = await client.remove(number, lease, **more)
        self.backlog[client.queue] -= call.done
        return call

    async def together(self, calls):
        """Wait for all *calls*, and raise the error of one of them; those that fail fail alike."""
        for each in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(each, BaseException):
                raise each

    def _look(self, call):
        if isinstance(call.exception(), Gone):
            raise call.exception()

    def contents(self):
        """Return contents that no other item has."""
        self.number += 1
        head = b"%d:" % self.number
        return head.ljust(self.random.randrange(len(head), _of(self.random, SIZES, whole=True)), b".")

    # Lives

    async def load(self, port):
        """Run clients of all habits at the server on *port* until it is gone or the task is cancelled."""
        chosen = [(habit, queue) for queue in QUEUES for habit in (self.produce, self.work)]
        chosen += [(habit, queue) for queue in (habits.PURGED, habits.LIMITED) for habit in (self.produce, self.work)]
        others = [self.linger, self.lapse, self.hold, self.repeat, self.glance]
        if not self.polite:
            others.append(self.vanish)
        chosen += [(habit, self.random.choice(QUEUES)) for habit in others]
        chosen += [(self.work, habits.ONCE), (self.hold, habits.PURGED)]
        chosen += [(partial(habit, self), queue or self.random.choice(QUEUES)) for habit, queue in habits.HABITS]
        clients = []
        try:
            if not self.configured:
                await self.configure(port)
            for _, queue in chosen:
                clients.append(await Client.connect(port, self.history, queue))
            await asyncio.gather(*[_until_gone(habit, each) for (habit, _), each in zip(chosen, clients, strict=True)])
        except (OSError, Gone):
            return
        finally:
            for client in clients:
                client.abort()

    async def configure(self, port):
        """Configure the queues that have settings, before anything else."""
        for queue, settings in habits.SETTINGS.items():
            client = await Client.connect(port, self.history, queue)
            await client.configure(**settings)
            client.abort()
        self.configured = True

    def longest(self):
        """Return the moment from which nothing that was leased or put off can be outstanding any more."""
        spans = [(each.ended, each.span) for each in self.history.of(Poll) if each.span < 60]
        settles = self.history.of(Settle)
        spans += [(each.ended, entry.delay) for each in settles for entry in each.entries if entry.delay]
        # A lease that ended while the server was down may last its length once more.
        again = time.monotonic() + min(RESTART_GRACE_SECONDS, max((span for _, span in spans), default=0))
        if self.abandoned:
            again += SESSION_RESTART_SECONDS + GONE_SECONDS
        end = max((ended + span for ended, span in spans if ended + span < inf), default=0)
        return max(end, again) + min(max(delay for _, _, delay in DELAYS), self.long_span) + 0.5

    async def drain(self, port):
        """Poll and remove all items until none can be left."""
        clients = [await Client.connect(port, self.history, queue) for queue in ALL_QUEUES]
        of_queue = {client.queue: client for client in clients}
        await habits.give_up_sessions(self, port)
        for queue, *sent in self.unanswered:
            with suppress(Refused):
                await of_queue[queue].add(*sent[:2], request=sent[2])
        end = self.longest()
        for dead in (False, True):
            # Polls let items expire, so the dead ones come last.
            await asyncio.gather(*[self._drain(each, end, dead=dead) for each in clients])
        self.history.drained = time.monotonic()
        for client in clients:
            client.abort()

    async def _drain(self, client, end, *, dead):
        while True:
            began = time.monotonic()
            taken = await client.poll(1_000, 60.0, QUIET_SECONDS, dead=dead)
            await self.together([self._remove(client, each.id, taken.lease, dead=dead) for each in taken.items])
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
