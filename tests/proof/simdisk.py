"""
A disk in memory that keeps no more than it has to.

Its faults, each of which a real disk may have:

* A log is written from its start to its end, and each batch in it is one record with a checksum.  So a batch is
  whole or absent.  A crash keeps everything that was synced and, of the rest, nothing, all, a first part, or a first
  part and a later one.  RocksDB allows the last when the pages in between were never written and read as zeros.  The
  store has one unsynced batch at a time, so no batch may follow it.
* When a process dies and the machine does not, everything that was written is still in the page cache.  It is durable
  only once recovery has synced it.
* A failed sync has written any part of its data.  The next sync does not write the missing rest, and succeeds.
* A crash keeps, drops or tears each unsynced write to a small file.  Names change in order, as in a journal, up to any
  point.  A sync of a file does not sync its name.  The data directory's own name is in the directory above, and is
  durable once that was synced.
* An unreadable row stays so until the next start, and ends every scan that reaches it.  Others can be read.

A lying disk claims to have synced and has not.  The promises do not hold on one, and the check must detect that.
"""

import errno
import fcntl as real_fcntl
import os as real_os
import stat
from bisect import bisect_left, bisect_right, insort
from random import Random
from types import SimpleNamespace

from attrs import define, field

from queueber.errors import Stalled
from queueber.plyvel import IOError as EngineIOError
from queueber.plyvel import prefix_successor
from queueber.store.datadir.directory import DATABASE


class Dead(BaseException):
    """The simulated process has ended, and its code does not continue."""


@define(eq=False)
class Batch:
    """One record of the log."""

    writes: list
    last: int
    """The number of its last row."""

    note: object = None
    """The model's knowledge of the batch."""

    dropped: bool = False
    """Whether a sync of it has failed, and the system has dropped its data: no later sync writes it."""


@define(eq=False)
class Log:
    """A database at rest."""

    base: dict = field(factory=dict)
    base_number: int = 0
    batches: list[Batch] = field(factory=list)
    synced: int = 0
    """The number of batches that are synced."""

    base_notes: list = field(factory=list)
    rows: dict = field(factory=dict)
    keys: list = field(factory=list)

    @property
    def number(self):
        return self.batches[-1].last if self.batches else self.base_number

    def append(self, writes, note):
        self.batches.append(Batch(writes, self.number + len(writes), note))
        self._apply(writes)

    def _apply(self, writes):
        for key, value in writes:
            if value is None:
                if self.rows.pop(key, None) is not None:
                    del self.keys[bisect_left(self.keys, key)]
            else:
                if key not in self.rows:
                    insort(self.keys, key)
                self.rows[key] = value

    def crash(self, kept):
        """Go on with the synced batches and those of the rest that *kept* chooses."""
        for batch in self.batches[: self.synced]:
            if batch.dropped:
                continue
            for key, value in batch.writes:
                if value is None:
                    self.base.pop(key, None)
                else:
                    self.base[key] = value
            self.base_number = batch.last
            self.base_notes.append(batch.note)
        self.batches = kept([batch for batch in self.batches[self.synced :] if not batch.dropped])
        self.synced = 0
        self.rows, self.keys = dict(self.base), sorted(self.base)
        for batch in self.batches:
            self._apply(batch.writes)


@define(eq=False)
class Inode:
    """A small file, or the directory of a database."""

    content: bytearray = field(factory=bytearray)
    durable: bytes = b""
    pending: list = field(factory=list)
    log: Log | None = None

    def write(self, offset, data):
        self.content[offset : offset + len(data)] = data
        self.pending.append((offset, data))

    def sync(self):
        self.durable = bytes(self.content)
        self.pending.clear()

    def crash(self, rng):
        content = bytearray(self.durable)
        for offset, data in self.pending:
            kept = rng.choice((0, len(data), rng.randrange(len(data) + 1)))
            content[offset : offset + kept] = data[:kept]
        self.content, self.durable = content, bytes(content)
        self.pending.clear()


def some_of(batches, rng):
    """Return the batches of *batches* that a crash keeps."""
    match rng.randrange(4):
        case 0:
            return []
        case 1:
            return batches
        case 2:
            return batches[: rng.randrange(len(batches) + 1)]
        case _:
            return [batch for batch in batches if rng.random() < 0.5]


@define(eq=False)
class Disk:
    """The whole disk, and the faults that will occur."""

    rng: Random
    lies: float = 0.0
    """The share of the log's syncs that report success without being done."""

    there: bool = False
    there_for_good: bool = False
    """Whether the directory above was synced since."""

    names: dict[str, Inode] = field(factory=dict)
    durable_names: dict[str, Inode] = field(factory=dict)
    pending_names: list[dict] = field(factory=list)
    crash_in: int | None = None
    """Operations until the process or the machine ends."""

    power: bool = False
    """Whether the machine ends, and not only the process."""

    fails: set = field(factory=set)
    """The kinds of operations that fail once: `write`, `sync`, `read` and `file`."""

    fail_nth: dict = field(factory=dict)
    """The kinds of operations that fail once after a number of successful ones, each with this number."""

    unreadable: set = field(factory=set)
    """Rows that cannot be read."""

    spoilt: set = field(factory=set)
    """Rows that were unreadable at any time since the last start."""

    stalls: int = 0
    failed: set = field(factory=set)
    """The operations that have failed in this life."""

    dead: bool = False
    note: object = None
    """The model's knowledge of the next batch."""

    meanwhile: object = lambda: None
    """Called in the middle of each sync, for the work of other threads."""

    operations: int = 0
    syncs: int = 0

    def point(self, kind=""):
        """Begin or end an operation: faults occur here."""
        if self.dead:
            raise Dead
        self.operations += 1
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in <= 0:
                self.die()
        if kind in self.fail_nth:
            self.fail_nth[kind] -= 1
            if not self.fail_nth[kind]:
                del self.fail_nth[kind]
                self.fails.add(kind)
        if kind in self.fails:
            self.fails.discard(kind)
            self.failed.add(kind)
            return True
        return False

    def die(self):
        """End the process or the machine here."""
        self.dead, self.crash_in = True, None
        raise Dead

    def restart(self, *, power):
        """Return the disk as the next process finds it."""
        self.dead, self.crash_in, self.stalls = False, None, 0
        self.fails.clear()
        self.unreadable.clear()
        self.spoilt.clear()
        rng = self.rng
        if not power and "sync" not in self.failed:
            for inode in self.names.values():
                if inode.log is not None:
                    inode.log.crash(lambda batches: batches)
            self.failed.clear()
            return
        self.failed.clear()
        if power and self.there and not self.there_for_good and rng.random() < 0.5:
            self.there = False
            self.names, self.durable_names, self.pending_names = {}, {}, []
            return
        self.there_for_good = self.there_for_good or (power and self.there)
        self.names = dict(rng.choice([self.durable_names, *self.pending_names]))
        self.durable_names, self.pending_names = dict(self.names), []
        for inode in self.names.values():
            inode.crash(rng)
            if inode.log is not None:
                inode.log.crash(lambda batches: some_of(batches, rng))

    # Names

    def rename(self, old, new):
        self.names[new] = self.names.pop(old)
        self.pending_names.append(dict(self.names))

    def remove(self, name):
        del self.names[name]
        self.pending_names.append(dict(self.names))

    def make(self, name, inode):
        self.names[name] = inode
        self.pending_names.append(dict(self.names))

    def sync_names(self):
        self.durable_names, self.pending_names = dict(self.names), []

    def spoil(self, row):
        """Make *row* unreadable."""
        self.unreadable.add(row)
        self.spoilt.add(row)

    @property
    def log(self):
        """Return the database, or None."""
        return self.names[DATABASE].log if DATABASE in self.names else None


class SimPath:
    """The part of `Path` that the store uses, in one flat directory."""

    def __init__(self, disk, *parts):
        self.disk, self.parts = disk, parts

    def __truediv__(self, name):
        return SimPath(self.disk, *self.parts, str(name))

    def __str__(self):
        return "/" + "/".join(("data", *self.parts))

    @property
    def name(self):
        return self.parts[-1] if self.parts else "data"

    @property
    def parent(self):
        return SimPath(self.disk, *self.parts[:-1]) if self.parts else Above(self.disk)

    def with_name(self, name):
        return self.parent / name

    def resolve(self):
        return self

    @property
    def inode(self):
        if len(self.parts) == 2:
            inside = self.disk.names.get(self.parts[0])
            return inside if inside is not None and inside.log is not None and self.parts[1] == "CURRENT" else None
        return self.disk.names.get(self.name)

    def exists(self):
        return self.inode is not None if self.parts else self.disk.there

    def is_file(self):
        return self.inode is not None and (len(self.parts) == 2 or self.inode.log is None)

    def is_dir(self):
        return not self.parts or (self.inode is not None and self.inode.log is not None and len(self.parts) == 1)

    def is_symlink(self):
        return False

    def iterdir(self):
        return iter([self / name for name in self.disk.names])

    def glob(self, _pattern):
        return iter(())

    def lstat(self):
        return SimpleNamespace(st_mode=stat.S_IFDIR | stat.S_IRWXU, st_uid=real_os.geteuid(), st_size=0)

    def mkdir(self, mode=0o777):
        if self.disk.there:
            raise FileExistsError(errno.EEXIST, "exists", str(self))
        _may_fail(self.disk, self)
        self.disk.there = True

    def chmod(self, mode):
        pass

    def read_bytes(self):
        self.disk.point()
        if self.inode is None:
            raise FileNotFoundError(errno.ENOENT, "missing", str(self))
        return bytes(self.inode.content)

    def write_bytes(self, data):
        _may_fail(self.disk, self)
        inode = Inode()
        self.disk.make(self.name, inode)
        inode.write(0, data)
        self.disk.point()

    def write_text(self, text):
        self.write_bytes(text.encode())

    def rename(self, other):
        _may_fail(self.disk, self)
        self.disk.rename(self.name, other.name)
        self.disk.point()

    def unlink(self, missing_ok=False):
        if self.inode is not None or not missing_ok:
            _may_fail(self.disk, self)
            self.disk.remove(self.name)


class Above(SimPath):
    """Return the directory in which the data directory is."""

    def __str__(self):
        return "/"


def _may_fail(disk, path):
    if disk.point("file"):
        raise OSError(errno.EIO, "injected", str(path))


class SimOs:
    """The part of `os` that the store uses on small files."""

    def __getattr__(self, name):
        return getattr(real_os, name)

    def __init__(self):
        self._open = {}
        self._next = 1_000_000

    def open(self, path, flags, mode=0o777):
        if path.parts and path.inode is None:
            if not flags & real_os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, "missing", str(path))
            path.disk.make(path.name, Inode())
        self._next += 1
        self._open[self._next] = path.disk, (path.inode if path.parts else None), path
        return self._next

    def close(self, descriptor):
        self._open.pop(descriptor, None)

    def fsync(self, descriptor):
        disk, inode, path = self._open[descriptor]
        _may_fail(disk, path)
        if isinstance(path, Above):
            disk.there_for_good = disk.there
        elif inode is None:
            disk.sync_names()
        else:
            inode.sync()
        disk.point()

    fdatasync = fsync

    def pwrite(self, descriptor, data, offset):
        disk, inode, path = self._open[descriptor]
        _may_fail(disk, path)
        inode.write(offset, data)

    def pread(self, descriptor, size, offset):
        return bytes(self._open[descriptor][1].content[offset : offset + size])

    def ftruncate(self, descriptor, size):
        del self._open[descriptor][1].content[size:]


SIM_FCNTL = SimpleNamespace(
    flock=lambda *_: None,
    LOCK_EX=real_fcntl.LOCK_EX,
    LOCK_SH=real_fcntl.LOCK_SH,
    LOCK_NB=real_fcntl.LOCK_NB,
)


def _rmtree(path, ignore_errors=False):
    if path.exists():
        path.disk.point("")
        path.disk.remove(path.name)


SIM_SHUTIL = SimpleNamespace(rmtree=_rmtree)


class SimRows:
    """A walk over rows as they were."""

    def __init__(self, rows, unreadable):
        self._rows, self._unreadable = rows, unreadable

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __iter__(self):
        for row in self._rows:
            if (row[0] if isinstance(row, tuple) else row) in self._unreadable:
                raise EngineIOError("IO error: a row cannot be read")
            yield row


class SimDB:
    """The part of the engine that the store uses."""

    in_force: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, path):
        self.disk, self.log = path.disk, path.inode.log

    @classmethod
    def opened(cls, path, *, create_if_missing=False, **_):
        path.disk.point()
        if not path.exists():
            assert create_if_missing, "a database appears from nowhere"
            path.disk.make(path.name, Inode(log=Log()))
            # RocksDB syncs its first files and their names before it says that it is open.
            path.disk.sync_names()
        path.disk.point()
        return cls(path)

    def _read(self, *keys):
        if self.disk.point("read"):
            raise EngineIOError("IO error: injected into a read")
        if not self.disk.unreadable.isdisjoint(keys):
            raise EngineIOError("IO error: a row cannot be read")

    def get(self, key):
        self._read(key)
        return self.log.rows.get(key)

    def get_many(self, keys):
        self._read(*keys)
        return [self.log.rows.get(key) for key in keys]

    def write_many(self, writes):
        disk, log = self.disk, self.log
        if disk.stalls:
            disk.stalls -= 1
            raise Stalled("Result incomplete: Write stall")
        failed = disk.point("write")
        if not failed or disk.rng.random() < 0.5:
            log.append(list(writes), disk.note)
        if failed:
            raise EngineIOError("IO error: injected into a write")
        disk.point()
        return log.number

    def iterator(self, *, start=None, stop=None, include_start=True, prefix=None, include_value=True):
        self._read()
        if prefix is not None:
            start, stop = prefix, prefix_successor(prefix)
        keys = self.log.keys
        low = 0 if start is None else (bisect_left if include_start else bisect_right)(keys, start)
        found = keys[low : None if stop is None else bisect_left(keys, stop)]
        rows = self.log.rows
        return SimRows([(key, rows[key]) for key in found] if include_value else found, self.disk.unreadable)

    def sync(self):
        disk, log = self.disk, self.log
        failed = disk.point("sync")
        covered = len(log.batches)
        disk.meanwhile()
        if failed:
            for batch in log.batches[log.synced :]:
                batch.dropped = disk.rng.random() < 0.5
            raise EngineIOError("IO error: injected into a sync")
        if not disk.lies or disk.rng.random() >= disk.lies:
            log.synced = max(log.synced, covered)
        disk.syncs += 1
        disk.point()

    def flush(self):
        """Write a table file.  A failure of that is no failure of the log, which has all rows."""
        self.disk.point()
        self.log.synced = max(self.log.synced, len(self.log.batches)) if not self.disk.lies else self.log.synced

    def sequence(self):
        return self.log.number

    def get_property(self, _name):
        return b"0"

    def close(self):
        self.disk.point()
