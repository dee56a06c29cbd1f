"""Small histories of a store, with its contents after each commit, for judging damage to its files."""

import hashlib
import os
import pickle
import shutil
import signal
from multiprocessing import Pipe
from pathlib import Path
from random import Random

from attrs import define, field, frozen

from queueber.broker.model import (
    LOWEST,
    Item,
    ItemId,
    Key,
    LeaseId,
    LeaseRecord,
    QueueNumber,
    QueueRecord,
    TimeMark,
    off_time,
)
from queueber.broker.storage import DeleteItem, DeleteLease, PutItems, PutLease, PutQueue
from queueber.errors import StorageError
from queueber.plyvel.handle import Handle
from queueber.store import open_store
from queueber.store.tuning import Tuning
from queueber.units import WallMs

TUNING = Tuning(parallelism=1, background_jobs=2, open_files=20)
BOOT, OTHER_BOOT = b"b" * 16, b"o" * 16
TIMEOUT_SECONDS = 20


@frozen
class Chronicle:
    """A data directory as a killed server leaves it, and its earlier states."""

    path: Path
    states: list[str]
    """A digest of all rows after each commit."""

    noted: int
    """The commit up to which the log was noted to be on disk."""

    log_ends: list[int]
    """The length of the newest log after each commit, and after the tables that were made after it."""

    older: Path | None
    """The directory half-way through the history."""


def digest(store):
    """Return a digest of everything in *store*, contents included."""
    found = store.recover()
    rows = [sorted(map(repr, found.queues)), sorted(map(repr, found.leases.items())), repr(found.mark)]
    for queue in found.queues:
        after, exhausted = LOWEST, False
        while not exhausted:
            # A scan ends before a row that cannot be read now, and the next one raises.
            scan = store.scan(queue.number, after, items_max=1 << 30, bytes_max=1 << 60)
            for gap in scan.gaps:
                raise gap.why
            rows += [(each.key, each.contents, each.added_at, each.attempts) for each in scan.items]
            after, exhausted = scan.items[-1].key if scan.items else after, scan.exhausted
    return hashlib.sha256(repr(rows).encode()).hexdigest()


@define
class _Author:
    """Writes at random: adds, removes, leases and their ends."""

    random: Random
    sizes: tuple[int, ...]
    items: dict = field(factory=dict)
    """The length of contents of each item, by its key."""

    leases: list = field(factory=list)
    added: int = 0
    removed: int = 0
    clock: int = 1_000

    def commit(self, store):
        """Make one more commit."""
        writes, queue, draw = [], QueueNumber(1), self.random
        self.clock += draw.randrange(1, 50)
        for _ in range(draw.randrange(1, 4)):
            self.added += 1
            key = Key(WallMs(self.clock), ItemId(self.added.to_bytes(16, "big")))
            contents = draw.randbytes(draw.choice(self.sizes))
            self.items[key] = len(contents)
            writes.append(PutItems(queue, [Item(key, contents, WallMs(self.clock), 0)]))
        if draw.random() < 0.3:
            gone = list(self.items)[draw.randrange(len(self.items))]
            del self.items[gone]
            self.removed += 1
            writes.append(DeleteItem(queue, gone))
        if draw.random() < 0.3:
            lease = LeaseId(draw.randbytes(16))
            self.leases.append(lease)
            writes.append(PutLease(lease, LeaseRecord(queue, WallMs(self.clock + 9), tuple(list(self.items)[-2:]))))
        if self.leases and draw.random() < 0.2:
            writes.append(DeleteLease(self.leases.pop(0)))
        size, moved = sum(self.items.values()), sum(map(off_time, self.items))
        writes.append(PutQueue(QueueRecord(queue, "mail", self.added, self.removed, LOWEST, size, off_time=moved)))
        store.commit(writes, TimeMark(BOOT, self.clock, WallMs(self.clock)))


def write(folder, seed, *, commits, sizes=(10, 80, 300), noted=None, flushes=()):
    """Make a `Chronicle` in *folder* with *commits*, the last *noted* one, and tables made after some of them."""
    path = folder / "live"
    store = open_store(path, tuning=TUNING)
    author, states, ends = _Author(Random(seed), sizes), [], []
    noted = commits if noted is None else noted
    older = folder / "older" if flushes else None
    for number in range(1, commits + 1):
        author.commit(store)
        states.append(digest(store))
        if number == noted:
            store.note_synced()
        if number in flushes:
            store.reclaim_space()
        ends.append(newest_log(path / "db").stat().st_size)
        if older and number == commits // 2:
            shutil.copytree(path, older)
    shutil.copytree(path, folder / "data")
    return Chronicle(folder / "data", states, noted, ends, older)


def newest_log(database):
    """Return the newest log."""
    return max(database.glob("*.log"), key=lambda log: int(log.stem))


def apart(work):
    """
    Return the result of *work*, run in a process of its own: RocksDB may end or never end, and its threads would not
    survive a fork.

    A tuple: `("gave", value)`, `("refused", text)`, or `("died", how)`.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        signal.alarm(TIMEOUT_SECONDS)
        try:
            said = ("gave", work())
        except StorageError as error:
            said = ("refused", str(error))
        except BaseException as error:  # noqa: BLE001 - reported to the parent, whatever it is
            said = ("died", f"{type(error).__name__}: {error}")
        with open(writing, "wb") as out:  # noqa: PTH123 - a descriptor
            pickle.dump(said, out)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as said:  # noqa: PTH123
        data = said.read()
    _, status = os.waitpid(child, 0)
    return pickle.loads(data) if data else ("died", f"status {status}")


class Opener:
    """Opens directories in another process, which is replaced when it dies or hangs, and after some time."""

    CASES = 100

    def __init__(self):
        self._child = self._line = None
        self._cases = 0

    def opened(self, path, boot_id=BOOT):
        """Return a digest of *path*'s contents, or the reason why there is none, as `apart` does."""
        if self._child is None:
            self._start()
        self._line.send((path, boot_id))
        try:
            outcome = self._line.recv() if self._line.poll(TIMEOUT_SECONDS) else ("died", "it does not come to an end")
        except EOFError:
            outcome = ("died", "without a message")
        self._cases += 1
        if outcome[0] == "died" or self._cases >= self.CASES:
            self.end()
        return outcome

    def _start(self):
        self._line, line = Pipe()
        self._child, self._cases = os.fork(), 0
        if not self._child:
            self._line.close()
            try:
                open_all(line)
            finally:
                os._exit(0)  # the child must not clean up for its parent
        line.close()

    def end(self):
        """End the process."""
        if self._child is not None:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
            self._line.close()
            self._child = None


def open_all(line):
    """Serve requests in the other process."""
    kept = []

    def keep(handle):
        # Closing would take longer than all the rest: it waits for RocksDB, which waits a second before it tries again
        # to compact damaged tables, and for that all databases of a process stand in one queue.
        kept.append(handle)

    Handle.close = keep
    while True:
        path, boot_id = line.recv()
        try:
            store = open_store(path, tuning=TUNING, boot_id=boot_id)
            kept.append(store)
            line.send(("gave", (digest(store), store.dropped)))
        except StorageError as error:
            line.send(("refused", str(error)))
        except BaseException as error:  # noqa: BLE001 - reported to the parent, whatever it is
            line.send(("died", f"{type(error).__name__}: {error}"))
