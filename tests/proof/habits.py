"""
Habits of clients that do more than add, poll, remove and extend: each runs until its server is gone.

A habit is a function of the `generator.Generator`, whose state it shares, and of a client.  What a client leaves
undone as its server goes, such as a session or a call without a reply, is taken up by the client of the next life.
"""

import asyncio
import os
from contextlib import suppress

from attrs import define, field
from history import Entry
from wireclient import Client, Gone, Refused

LIMITED, ONCE, PURGED = "limited", "once", "purged"
"""Queues with settings of their own, and one that is purged."""

SETTINGS = {
    LIMITED: {"max_attempts": 2, "backoff_base_ms": 20, "backoff_cap_ms": 100},
    ONCE: {"dedup_window_ms": 300},
}
GRACE_SECONDS = 0.5
"""The grace of sessions, which `serverhost` allows to be as short."""

SHORT_DELAY = 0.3
ACTIONS = ("remove", "remove", "remove", "fail", "fail", "defer", "defer", "reject")


@define(eq=False)
class Session:
    """A session, and the items that its worker has not settled."""

    id: bytes
    queue: str
    held: dict = field(factory=dict)
    """The ids of a lease."""

    seen: set = field(factory=set)
    """The leases of polls that were answered."""

    busy: bool = False
    """Whether a worker uses it in this life."""


# Settles


async def settle(generator, client):
    """Take items, and settle them in all ways, many in one call."""
    random, span = generator.random, min(2.0, generator.long_span)
    while True:
        taken = await generator.take(client, 5, span, 1.0)
        if not taken.items:
            continue
        die = random.random()
        if die < 0.1:
            await client.settle([Entry(lease=taken.lease, id=b"", action="defer", delay=_delay(random))])
        elif die < 0.3:
            await _hand_off(generator, client, taken)
        else:
            entries = [_entry(random, each.id, taken.lease) for each in taken.items]
            if die < 0.5:
                entries.insert(0, Entry(lease=taken.lease, id=b"", action="extend", delay=span))
            await _settled(generator, client, entries, all_or_nothing=random.random() < 0.3)


async def _hand_off(generator, client, taken):
    """Remove items and add others in one step; now and then with an entry for which it must be refused."""
    random = generator.random
    entries = [Entry(lease=taken.lease, id=each.id, action="remove") for each in taken.items]
    spoilt = random.random() < 0.3
    if spoilt:
        entries.insert(random.randrange(len(entries) + 1), Entry(lease=os.urandom(16), id=entries[0].id, action="fail"))
    contents = [generator.contents() for _ in range(random.randrange(1, 4))]
    generator.backlog[client.queue] += len(contents)
    await _settled(generator, client, entries, contents=contents, delays=[0.0] * len(contents))
    if spoilt:
        await _settled(generator, client, [each for each in entries if each.action == "remove"])


async def _settled(generator, client, entries, **more):
    again = [
        Entry(lease=each.lease, id=each.id, action=each.action, delay=each.delay, error=each.error) for each in entries
    ]
    call = await client.settle(again, **more)
    if call.changed:
        generator.backlog[client.queue] -= sum(
            each.died or (each.action == "remove" and each.result == "done") for each in call.entries
        )
    return call


def _entry(random, number, lease):
    action = random.choice(ACTIONS)
    delay = None if action in {"remove", "reject"} else _delay(random)
    if action == "fail" and delay is None:
        delay = 0.0
    error = random.choice(("", "no such file", "x" * 300)) if action in {"fail", "reject"} else ""
    return Entry(lease=lease, id=number, action=action, delay=delay, error=error)


def _delay(random):
    return random.choice((None, 0.0, random.random() * SHORT_DELAY))


async def choose(generator, client):
    """Take items of one of several queues, and settle them."""
    random, span = generator.random, min(1.0, generator.long_span)
    while True:
        queues = random.sample(generator.queues, random.randrange(1, 4))
        wait = random.choice((0, 0.2, 1.0))
        taken = await client.poll_any(queues, random.randrange(1, 6), span, wait, strict=random.random() < 0.6)
        if taken.items:
            await _settled(generator, client, [_entry(random, each.id, taken.lease) for each in taken.items])
        await asyncio.sleep(random.random() * 0.05)


# Deaths


async def fail(generator, client):
    """Take items of a queue with few attempts, and fail them, lose them or remove them."""
    random = generator.random
    while True:
        die = random.random()
        taken = await generator.take(client, 4, 0.1 if die < 0.3 else 2.0, 1.0)
        if not taken.items or die < 0.3:
            continue
        actions = {
            each.id: random.choice(("fail", "fail", "fail", "reject", "remove", "defer")) for each in taken.items
        }
        entries = [
            Entry(lease=taken.lease, id=number, action=action, error="broken" if action == "fail" else "")
            for number, action in actions.items()
        ]
        await _settled(generator, client, entries)


async def bury(generator, client):
    """Look after dead items: remove them, give them back, move them to their queue."""
    random = generator.random
    while True:
        if random.random() < 0.2:
            call = await client.redrive(random.randrange(1, 5))
            generator.backlog[client.queue] += call.moved
        taken = await client.poll(4, random.choice((0.05, 2.0)), 0.2, dead=True)
        for each in taken.items:
            if random.random() < 0.3:
                await client.settle([Entry(lease=taken.lease, id=each.id, action="defer")], dead=True)
            else:
                await client.remove(each.id, taken.lease, dead=True)


async def expire(generator, client):
    """Add items that soon expire: in time, before a worker has them, or before they are due, which is refused."""
    random = generator.random
    # The reply shows the server's time.
    await client.add([generator.contents()], [0.0])
    generator.backlog[client.queue] += 1
    while True:
        count = random.randrange(1, 4)
        delays = [random.choice((0.0, 0.0, random.random() * SHORT_DELAY)) for _ in range(count)]
        lives = [random.choice((None, delay + random.random() * 0.6)) for delay in delays]
        if random.random() < 0.1:
            delays[-1], lives[-1] = SHORT_DELAY, random.random() * 2 * SHORT_DELAY
        with suppress(Refused):
            await client.add([generator.contents() for _ in delays], delays, lives=lives)
            generator.backlog[client.queue] += count
        await asyncio.sleep(random.random() * 0.1)


# Sessions


async def attend(generator, client):
    """Work in sessions over one connection after the other; some are left for ever."""
    mine = [each for each in generator.sessions if each.queue == client.queue and not each.busy]
    session = mine[0] if mine else _new(generator, client.queue)
    session.busy = True
    worker = None
    try:
        while True:
            worker = await Client.connect(client.port, generator.history, client.queue)
            session = await _shift(generator, worker, session)
    finally:
        session.busy = False
        if worker is not None:
            worker.abort()


async def _shift(generator, worker, session):
    """Work over one connection, and return the session for the next one."""
    random = generator.random
    await attached(worker, session)
    for _ in range(random.randrange(1, 6)):
        await worker.ping()
        taken = await worker.poll(3, 0, 0.1, session=session.id)
        if taken.items:
            session.seen.add(taken.lease)
            session.held[taken.lease] = [each.id for each in taken.items]
        await _some_removed(generator, worker, session)
    die = random.random()
    if die < 0.6:
        worker.abort()
    if die < 0.1:
        # No worker comes back for the items that it holds.
        generator.sessions.remove(session)
        generator.abandoned = True
        return _new(generator, session.queue)
    if die < 0.4:
        await asyncio.sleep(random.random() * GRACE_SECONDS)
    return session


def _new(generator, queue):
    session = Session(os.urandom(16), queue, busy=True)
    generator.sessions.append(session)
    return session


async def _some_removed(generator, worker, session):
    for lease, ids in list(session.held.items()):
        for number in list(ids):
            if generator.random.random() < 0.5:
                call = await worker.remove(number, lease)
                generator.backlog[session.queue] -= call.done
                ids.remove(number)
        if not ids:
            del session.held[lease]


async def attached(worker, session):
    """Attach *session* to the connection of *worker*, and give back the leases whose replies were not seen."""
    call = await worker.attach(session.id, GRACE_SECONDS)
    there = {each.lease: list(each.ids) for each in call.leases}
    session.held = {lease: ids for lease, ids in there.items() if lease in session.seen}
    for lease in there.keys() - session.seen:
        await worker.settle([Entry(lease=lease, id=b"", action="defer")])


# Adding once


async def insist(generator, client):
    """Add with request ids, and send again what had no reply, or had one."""
    random = generator.random
    while True:
        for sent in [each for each in generator.unanswered if each[0] == client.queue]:
            await client.add(*sent[1:3], request=sent[3])
            generator.unanswered.remove(sent)
        contents = [generator.contents() for _ in range(random.randrange(1, 4))]
        sent = client.queue, contents, [0.0] * len(contents), os.urandom(16)
        generator.unanswered.append(sent)
        generator.backlog[client.queue] += len(contents)
        calls = [client.add(*sent[1:3], request=sent[3]) for _ in range(random.choice((1, 1, 2)))]
        await generator.together(calls)
        generator.unanswered.remove(sent)
        await asyncio.sleep(random.random() * 0.02)


async def repeat_keys(generator, client):
    """Add items whose keys are those of others, of the same call too."""
    random = generator.random
    while True:
        until_removed = random.random() < 0.5
        count = random.randrange(1, 4)
        newest = generator.keys_made
        generator.keys_made += 1
        keys = [b"%s%d" % (b"u" if until_removed else b"w", max(0, newest - random.randrange(8))) for _ in range(count)]
        keys = [b"" if random.random() < 0.1 else key for key in keys]
        contents = [generator.contents() for _ in range(count)]
        call = await client.add(contents, [0.0] * count, keys=keys, until_removed=until_removed)
        generator.backlog[client.queue] += count - len(call.duplicates)
        await asyncio.sleep(random.random() * 0.1)


# Operators


async def operate(generator, client):
    """Cancel items, make them ready and move them to other moments."""
    random = generator.random
    while True:
        contents = [generator.contents() for _ in range(3)]
        added = await client.add(contents, [0.4, 0.1, 0.0])
        generator.backlog[client.queue] += 3
        await asyncio.sleep(random.random() * 0.02)
        for number in added.ids:
            match random.randrange(5):
                case 0:
                    call = await client.cancel(number)
                    generator.backlog[client.queue] -= call.done
                case 1:
                    await client.kick(number)
                case 2:
                    await client.reschedule(number, random.choice((0.0, 0.2)))
        await asyncio.sleep(random.random() * 0.1)


async def purge(generator, client):
    """Purge the queue now and then."""
    while True:
        await asyncio.sleep(0.1 + generator.random.random() * 0.5)
        call = await client.purge()
        generator.backlog[client.queue] -= call.items


async def give_up_sessions(generator, port):
    """Attach the sessions that have workers once more, and remove their items or give them back."""
    for session in generator.sessions:
        worker = await Client.connect(port, generator.history, session.queue)
        with suppress(Gone):
            await attached(worker, session)
            for lease, ids in session.held.items():
                for number in ids:
                    await worker.remove(number, lease)
        worker.abort()


HABITS = [
    (settle, None),
    (settle, None),
    (choose, "default"),
    (fail, LIMITED),
    (bury, LIMITED),
    (expire, None),
    (expire, LIMITED),
    (attend, None),
    (attend, None),
    (insist, None),
    (repeat_keys, ONCE),
    (operate, None),
    (purge, PURGED),
    (settle, PURGED),
]
"""Each with its queue; None for any plain one."""
