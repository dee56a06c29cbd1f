"""
Named moments in the life of a server at which it can be killed.

The server's code does not know them.  A launcher wraps functions before the
server starts, and SIGKILL comes before or after the k-th call of one.  A name
that no longer exists is an error.
"""

import inspect
import json
import os
import signal
from importlib import import_module
from itertools import count

from twisted.internet.defer import Deferred

BEFORE, AFTER = "before", "after"

# The function, and its step in the design.
SEAMS = {
    # A commit
    "decide add": "queueber.broker.adds:Adds.add",
    "decide remove": "queueber.broker.broker:Broker.remove",
    "decide extend": "queueber.broker.broker:Broker.extend",
    "distribute": "queueber.broker.claims:Claims.distribute",
    "take batch": "queueber.server.core.committer:take_batch",
    "commit": "queueber.store.rows.kv_store:KeyValueStore.commit",
    "fill batch": "queueber.store.rows.kv_store:encode_writes",
    "write": "queueber.plyvel.db:DB.write_many",
    "sync": "queueber.plyvel.db:DB.sync",
    "committed": "queueber.broker.plans:UncommittedPlans.committed",
    "send replies": "queueber.server.core.committer:Committer._finish",
    "confirm delivery": "queueber.broker.broker:Broker.confirm_delivery",
    "reply to add": "queueber.server.core.handlers:QueueHandlers._reply",
    "reply to poll": "queueber.server.core.poll_handlers:PollHandlers._return_polls",
    "send": "queueber.server.net.protocol:RpcProtocol.send",
    "refill scan": "queueber.store.rows.kv_store:KeyValueStore.scan",
    "refilled": "queueber.broker.broker:Broker.refilled",
    "give back": "queueber.broker.expiry:Expiry.give_back",
    # Settles, deaths and redrives
    "rows of a settle": "queueber.server.core.settle_handlers:SettleHandlers._read",
    "settle": "queueber.broker.settle:Settles.settle",
    "die": "queueber.broker.deaths:Deaths.die",
    "redrive": "queueber.broker.dead_letters:DeadLetters.redrive",
    # Adding once
    "records of an add": "queueber.server.core.keyed_adds:read_records",
    "decide keyed add": "queueber.broker.dedup:Deduplication.decide",
    "end records": "queueber.broker.dedup:Deduplication.finish_sweep",
    # Operators, and the life of queues
    "look up": "queueber.server.core.lookups:LookupRunner._find",
    "cancel": "queueber.broker.control:Control.cancel",
    "move": "queueber.broker.control:Control._move",
    "configure": "queueber.broker.lifecycle:Lifecycle.configure",
    "purge": "queueber.broker.lifecycle:Lifecycle.purge",
    "clear": "queueber.broker.lifecycle:Lifecycle.clear",
    "forget cleared": "queueber.broker.queues:Queues.forget_retired",
    # Sessions
    "attach": "queueber.broker.sessions:Sessions.attach",
    "detach": "queueber.broker.sessions:Sessions.lost",
    "start sessions": "queueber.broker.sessions:Sessions.started",
    # The sweep and the mark
    "pop expired": "queueber.broker.expiry:Expiry.pop_expired",
    "read ended": "queueber.server.core.sweeper:Sweeper._read",
    "requeue": "queueber.broker.expiry:Expiry.requeue",
    "note synced": "queueber.store.datadir.synced:SyncedFile.note",
    "first note": "queueber.store.datadir.synced:SyncedFile._create",
    # The first start
    "begin directory": "queueber.store.datadir.directory:LockedDirectory.begin",
    "write format": "queueber.store.rocks:write_format",
    "finish directory": "queueber.store.datadir.directory:LockedDirectory.finish",
    # Every start
    "lock directory": "queueber.store.rocks:lock_directory",
    "open database": "queueber.store.rocks:open_database",
    "check end": "queueber.store.rocks:_check_end",
    "check format": "queueber.store.rocks:_check_format",
    "remove clean mark": "queueber.store.rocks:delete_clean_mark",
    "recover": "queueber.store.rows.kv_store:KeyValueStore.recover",
    "restore": "queueber.broker.broker:Broker.restore",
    "begin clock": "queueber.server.core.clock:QueueClock.begin",
    "listen": "queueber.server.app.startup:start_listening",
    # The start after an older server
    "convert": "queueber.store.rocks:upgrade",
    "convert rows": "queueber.store.rows.upgrades:_write",
    # A stop
    "drain": "queueber.server.app.shutdown:GracefulShutdown._drained",
    "close": "queueber.store.rocks:RocksStore._close",
    "release": "queueber.store.datadir.directory:LockedDirectory.release",
}

CREATING = ("begin directory", "write format", "finish directory", "first note", "configure")
CONVERTING = ("convert", "convert rows")
RECOVERING = (
    "lock directory",
    "open database",
    "check end",
    "check format",
    "remove clean mark",
    "recover",
    "restore",
    "begin clock",
    "start sessions",
    "listen",
)
STOPPING = ("drain", "close", "release")
SELDOM = (
    *("give back", "refill scan", "refilled", "read ended", "requeue", "note synced"),
    *("redrive", "end records", "cancel", "move", "purge", "clear", "forget cleared", "detach"),
)
"""Points that are passed a few times a second, or less often."""

POINTS = tuple(f"{side} {seam}" for seam in SEAMS for side in (BEFORE, AFTER))


def place_of(path):
    """Return the owner of the attribute, and its name."""
    module, _, dotted = path.partition(":")
    owner = import_module(module)
    *outer, name = dotted.split(".")
    for each in outer:
        owner = getattr(owner, each)
    getattr(owner, name)
    return owner, name


def wrap(seam, before, after):
    """Call *before* and *after* around each call of the function, or around what it starts if others wait for that."""
    owner, name = place_of(SEAMS[seam])
    plain = vars(owner)[name]
    function = plain.__func__ if isinstance(plain, classmethod | staticmethod) else plain

    def wrapper(*args, **kwargs):
        before()
        result = function(*args, **kwargs)
        if inspect.iscoroutine(result):
            return followed(result)
        if isinstance(result, Deferred):
            return result.addBoth(passed)
        after()
        return result

    async def followed(coroutine):
        return passed(await coroutine)

    def passed(result):
        after()
        return result

    setattr(owner, name, type(plain)(wrapper) if isinstance(plain, classmethod | staticmethod) else wrapper)


def nothing():
    """Return the name of the other side of a seam."""


def kill_at(point, number):
    """Let this process be killed when it passes *point* for the *number*-th time."""
    side, _, seam = point.partition(" ")
    passes = count(1)

    def die():
        if next(passes) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    wrap(seam, *((die, nothing) if side == BEFORE else (nothing, die)))


def count_into(path):
    """Note in the file *path* each point the first time it is passed."""
    seen = set()

    def noting(point):
        def note():
            if point not in seen:
                seen.add(point)
                with path.open("a") as file:
                    file.write(json.dumps(point) + "\n")

        return note

    for seam in SEAMS:
        wrap(seam, noting(f"{BEFORE} {seam}"), noting(f"{AFTER} {seam}"))
