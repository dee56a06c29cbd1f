"""Stores on three engines, for the contract tests, and data directories."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from shutil import copytree, disk_usage
from tempfile import TemporaryDirectory
from time import sleep
from types import SimpleNamespace

import plyvel
import pytest
from attrs import define, field

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
)
from queueber.broker.storage import PutItems, PutLease, PutQueue, Store
from queueber.fixed_limits import ID_BYTES
from queueber.store import Durability, Encoding, MemoryStore, RocksStore, open_store
from queueber.store.rows.kv_store import KeyValueStore
from queueber.units import WallMs


class LevelDB:
    """plyvel with the additional methods that the store needs, emulated slowly."""

    def __init__(self, path: Path) -> None:
        self._db = plyvel.DB(str(path), create_if_missing=True)
        self.get, self.iterator = self._db.get, self._db.iterator
        self.close = self._db.close

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._db.get(key) for key in keys]

    def write_many(self, writes: Sequence[tuple[bytes, bytes | None]]) -> int:
        with self._db.write_batch() as batch:
            for key, value in writes:
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)
        return 0

    def sync(self) -> None:
        self._db.write_batch(sync=True).write()

    def sequence(self) -> int:
        return 0


class ReopenedStore(MemoryStore):
    """A store in memory that can be opened again, as if it had been on a disk."""

    def open(self) -> MemoryStore:
        self._closed = False
        return self


def _openers(path: Path) -> dict[str, Callable[[], Store]]:
    # Commits survive a close with any durability, and these tests close.
    return {
        "memory": ReopenedStore().open,
        "rocksdb": lambda: open_store(path / "data", durability=Durability.OS),
        "rocksdb-packed": lambda: open_store(path / "packed", durability=Durability.OS, encoding=Encoding.PACKED),
        "leveldb": lambda: KeyValueStore(LevelDB(path / "level"), durability=Durability.OS, encoding=Encoding.UNPACKED),
    }


ENGINES = tuple(_openers(Path()))


@define
class Engine:
    """A store that can be reopened."""

    open: Callable[[], Store]
    store: Store = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.store = self.open()

    def reopen(self) -> Store:
        self.store.close()
        self.store = self.open()
        return self.store


@pytest.fixture(params=ENGINES)
def engine(request, tmp_path) -> Iterator[Engine]:
    made = Engine(_openers(tmp_path)[request.param])
    yield made
    made.store.close()


@pytest.fixture
def store(engine) -> Store:
    return engine.store


@pytest.fixture(scope="session")
def engines_in() -> Callable[[Path], list[Engine]]:
    """Return a function that makes one of each."""
    return lambda path: [Engine(opener) for opener in _openers(path).values()]


def _key(due: int, number: int | None = None) -> Key:
    """Return a key; without a *number*, its id is one of the millisecond *due*, as that of an item without delay."""
    return Key(WallMs(due), ItemId((due << 80 | due if number is None else number).to_bytes(ID_BYTES, "big")))


def _item(due: int, contents: bytes = b"", number: int | None = None, attempts: int = 0) -> Item:
    return Item(_key(due, number), contents, WallMs(5), attempts)


def _fields(item: Item | None) -> tuple | None:
    """Return the fields of *item* for comparison: items compare by identity."""
    return None if item is None else (item.key, item.contents, item.added_at, item.attempts)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Short constructors of values."""
    return SimpleNamespace(
        key=_key, item=_item, fields=_fields, mark=TimeMark(b"b" * 16, 1_000, WallMs(2_000)), level_db=LevelDB
    )


FIRST, SECOND, EMPTIED = QueueNumber(1), QueueNumber(2), QueueNumber(3)


def _furnish(store: Store) -> None:
    """
    Write three queues as a server does.

    `first` has items 10, 11 (leased, floor at 11), 20, 30 (large), and 11's lease names 5, which was removed;
    `second` has item 40; `emptied` had one.
    """
    lease = LeaseRecord(FIRST, WallMs(99), (_key(10), _key(11), _key(5)))
    store.commit(
        [
            *(PutItems(FIRST, [_item(due, b"contents")]) for due in (10, 11, 20)),
            PutItems(FIRST, [_item(30, b"large" * 10_000)]),
            PutItems(SECOND, [_item(40, b"")]),
            PutLease(LeaseId(b"l" * ID_BYTES), lease),
            PutQueue(QueueRecord(FIRST, "first", 5, 1, _key(11), 3 * 8 + 50_000)),
            PutQueue(QueueRecord(SECOND, "second", 1, 0, LOWEST)),
            PutQueue(QueueRecord(EMPTIED, "emptied", 1, 1, _key(9))),
        ],
        TimeMark(b"b" * 16, 1_000, WallMs(2_000)),
    )


MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 << 30
"""Free there at least, for the directories of one test, whose logs RocksDB preallocates."""


@pytest.fixture
def tmp_path(tmp_path) -> Iterator[Path]:
    """Return a directory in memory, if there is room: the engine syncs files some thousand times in these tests."""
    if not MEMORY.is_dir() or disk_usage(MEMORY).free < ROOM_BYTES:
        yield tmp_path
        return
    with TemporaryDirectory(prefix="queueber-", dir=MEMORY) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def furnished(tmp_path_factory) -> Path:
    """The directory of which each `data` is a copy, because a copy takes less time than a database does to be made."""
    path = tmp_path_factory.mktemp("furnished") / "data"
    store = open_store(path)
    _furnish(store)
    store.close()
    return path


@pytest.fixture
def data(furnished, tmp_path) -> Path:
    """A data directory as `_furnish` leaves it, after a clean stop."""
    return copytree(furnished, tmp_path / "data")


@pytest.fixture(scope="session")
def settled() -> Callable[[Path], Path]:
    """Return a function that returns the directory of an open store once its files can be copied."""

    def settled(path: Path) -> Path:
        # A thread of the engine deletes the files that an open has replaced.  One log and one manifest stay.
        while len([*path.glob("db/*.log"), *path.glob("db/MANIFEST-*")]) > 2:
            sleep(0.001)
        return path

    return settled


@pytest.fixture
def busy(tmp_path) -> Iterator[RocksStore]:
    """A store in use on the directory `data`, with all rows still in the log."""
    store = open_store(tmp_path / "data")
    _furnish(store)
    yield store
    store.close()


def _state_of(path: Path) -> dict[str, tuple]:
    """
    Return the size, modification time, mode and content of every file below *path*.

    Without RocksDB's diagnostic log: threads of an engine that is open still write to it.
    """
    return {
        str(file.relative_to(path)): (status.st_size, status.st_mtime_ns, status.st_mode, file.read_bytes())
        for file in path.rglob("*")
        if file.name != "LOG" and file.is_file() and (status := file.stat())
    }


@pytest.fixture(scope="session")
def state_of() -> Callable[[Path], dict[str, tuple]]:
    return _state_of
