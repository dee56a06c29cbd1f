"""
Fill a server and empty it, and print the progress, one JSON object a line.

`fill` adds items until one is refused.  `drain` polls and removes all items.
`count` polls all items and prints their numbers.  `traffic` adds and removes until
its standard input ends.
"""

import json
import os
import sys

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater, react
from twisted.internet.threads import deferToThread

from queueber.client import connect
from queueber.errors import QueueberError

CONTENTS_BYTES = 64 << 10
AT_ONCE = 8


def contents(number):
    # Random, so that the engine cannot compress it.
    return number.to_bytes(8, "big") + os.urandom(CONTENTS_BYTES)


async def fill(reactor, client, start=0):
    number, acknowledged = start, []
    while True:
        batch = range(number, number + AT_ONCE)
        number += AT_ONCE
        adds = [client.default.add(contents(each)) for each in batch]
        outcomes = await gatherResults([add.addBoth(lambda outcome: (outcome,)) for add in adds])
        failed = [outcome for (outcome,) in outcomes if not isinstance(outcome, list)]
        acknowledged += [each for each, (outcome,) in zip(batch, outcomes, strict=True) if isinstance(outcome, list)]
        if failed:
            why = failed[0].value
            return {"acknowledged": acknowledged, "error": type(why).__name__, "why": str(why)}


async def drain(reactor, client):
    removed = 0
    while True:
        batch = await client.default.poll(100, lease_ms=600_000, wait_ms=0)
        if not batch.items:
            return {"removed": removed}
        removed += sum(await gatherResults([client.default.remove(item.id, batch.lease) for item in batch.items]))


async def count(reactor, client):
    numbers = []
    while True:
        batch = await client.default.poll(100, lease_ms=600_000, wait_ms=0)
        if not batch.items:
            return {"numbers": sorted(numbers)}
        numbers += [int.from_bytes(item.contents[:8], "big") for item in batch.items]


async def one(reactor, client):
    """Add an item, and repeat that until it is accepted."""
    for attempt in range(200):
        try:
            await client.default.add(b"one")
        except QueueberError:
            await deferLater(reactor, 0.1)
        else:
            return {"attempts": attempt + 1}
    return {"attempts": None}


async def traffic(reactor, client):
    ended = []
    deferToThread(sys.stdin.read).addCallback(ended.append)
    added = removed = 0
    print("{}", flush=True)
    while not ended:
        added += len(await client.default.add(b"a", b"b", b"c"))
        batch = await client.default.poll(2, lease_ms=600_000)
        for item in batch.items:
            removed += await client.default.remove(item.id, batch.lease)
    return {"added": added, "removed": removed}


async def main(reactor, step, address):
    client = connect(reactor, address, attempts=1)
    try:
        print(json.dumps(await globals()[step](reactor, client)), flush=True)
    finally:
        closing = client.close()
        assert isinstance(closing, Deferred)
        await closing


react(main, sys.argv[1:])
