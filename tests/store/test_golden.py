"""
Directories that released versions wrote can be opened by all later ones.

`golden/v1` was written by `write` with format 1, in a process that was then
killed, and so on; only RocksDB's info logs were removed.  `golden/v1-served` is
of a server that was killed, and `golden/v2-more` was written by `write_second`.
These directories are never changed.  A new format adds one.
"""

from pathlib import Path
from shutil import copytree

import pytest

from queueber.broker.model import (
    LOWEST,
    Facts,
    Item,
    ItemId,
    Key,
    LeaseId,
    LeaseRecord,
    QueueNumber,
    QueueRecord,
    TimeMark,
)
from queueber.broker.storage import (
    DedupRecord,
    DeleteItem,
    Digest,
    Found,
    PutDedup,
    PutItems,
    PutLease,
    PutNumbers,
    PutQueue,
    PutRequest,
    PutRetired,
    PutSettings,
    RequestId,
)
from queueber.store import Encoding, RocksStore, open_store, verify
from queueber.store.rows.meta import FORMAT
from queueber.units import SpanMs, WallMs
from queueber.values import Death, DeathReason

GOLDEN = Path(__file__).parent / "golden"
MAIL, PARCELS = QueueNumber(1), QueueNumber(2)
LEASE = LeaseId(bytes(range(16)))


def key(due: int) -> Key:
    return Key(WallMs(due), ItemId(due.to_bytes(16, "big")))


def item(due: int, contents: bytes, attempts: int = 0) -> Item:
    return Item(key(due), contents, WallMs(due - 1), attempts)


LETTERS = [item(10, b"first"), item(20, b"", attempts=3), item(30, b"packed " * 9), item(2**40, b"much later")]
LETTER_BYTES = sum(len(letter.contents) for letter in LETTERS)
PARCEL = item(15, b"large" * 8_000)


def write(path: Path) -> RocksStore:
    """Fill a store: with rows in table files and in the log only, in both encodings, and with one large item."""
    store = open_store(path)
    store.commit(
        [
            PutQueue(QueueRecord(MAIL, "mail", 5, 1, key(9), LETTER_BYTES, off_time=4)),
            *[PutItems(MAIL, [letter]) for letter in LETTERS[:2]],
            PutItems(MAIL, [item(11, b"removed later")]),
            PutItems(PARCELS, [PARCEL]),
        ],
        TimeMark(b"B" * 16, 1_000, WallMs(100)),
    )
    store.close()
    store = open_store(path, encoding=Encoding.PACKED)
    store.commit(
        [
            *[PutItems(MAIL, [letter]) for letter in LETTERS[2:]],
            PutLease(LEASE, LeaseRecord(MAIL, WallMs(5_000), (key(10), key(11), key(20)))),
            PutQueue(QueueRecord(PARCELS, "Päckchen", 1, 0, LOWEST, len(PARCEL.contents), off_time=1)),
        ],
        TimeMark(b"B" * 16, 2_000, WallMs(1_100)),
    )
    store.commit([DeleteItem(MAIL, key(11))], TimeMark(b"B" * 16, 2_500, WallMs(1_600)))
    store.note_synced()
    return store


def check(store: RocksStore, make) -> None:
    found = store.recover()
    assert list(found.queues) == [
        QueueRecord(MAIL, "mail", 5, 1, key(9), LETTER_BYTES, off_time=4),
        QueueRecord(PARCELS, "Päckchen", 1, 0, LOWEST, len(PARCEL.contents), off_time=1),
    ]
    assert found.leases == {LEASE: LeaseRecord(MAIL, WallMs(5_000), (key(10), key(20)), (5, 0))}
    assert found.mark == TimeMark(b"B" * 16, 2_500, WallMs(1_600))
    for queue, wanted in ((MAIL, LETTERS), (PARCELS, [PARCEL])):
        items = store.scan(queue, LOWEST, items_max=9, bytes_max=10**9).items
        assert [make.fields(item) for item in items] == [make.fields(item) for item in wanted]
        assert store.find([queue], [item.key.id for item in wanted]) == [Found(queue, item) for item in wanted]


SESSION = LeaseId(b"S" * 16)
DIGEST, OTHER, REQUEST = Digest(b"D" * 16), Digest(b"E" * 16), RequestId(b"R" * 16)
SETTINGS = {"maxAttempts": 5, "backoffOnLoss": True, "labels": (("team", "post"),)}
FACTS = [
    item(10, b"came back", 2)._replace(facts=Facts(1, WallMs(5), expires_at=WallMs(2**41))),
    item(20, b"has headers")._replace(facts=Facts(headers=(("a", b"1"), ("Ä", b"")), last_error="wörse")),
]
DEAD = item(30, b"died", 3)._replace(facts=Facts(3, death=Death(DeathReason.ATTEMPTS, WallMs(30), "mail")))
RECORDS = [
    DedupRecord(WallMs(9_000), (key(10).id,)),
    DedupRecord(WallMs(0), (key(20).id,), check=WallMs(8_000)),
    DedupRecord(WallMs(7_000), (key(10).id, key(10).id), (1,)),
]


def write_second(path: Path) -> RocksStore:
    """Fill a store with rows that format 1 lacks: some in table files and packed, the others in the log only."""
    size = sum(len(each.contents) for each in FACTS)
    store = open_store(path, encoding=Encoding.PACKED)
    store.commit(
        [
            PutQueue(QueueRecord(QueueNumber(4), "mail", 2, 0, LOWEST, size, MAIL, off_time=2)),
            PutItems(QueueNumber(4), FACTS[:1]),
            PutSettings(MAIL, SETTINGS),
            PutDedup(MAIL, DIGEST, RECORDS[0]),
            PutRetired(MAIL, MAIL),
        ],
        TimeMark(b"B" * 16, 1_000, WallMs(100)),
    )
    store.close()
    store = open_store(path)
    session = LeaseRecord(QueueNumber(4), WallMs(5_000), (key(10),), (9,), WallMs(90), b"T" * 16, SpanMs(10_000))
    store.commit(
        [
            PutItems(QueueNumber(4), FACTS[1:]),
            PutItems(PARCELS, [DEAD]),
            PutQueue(QueueRecord(PARCELS, "mail", 1, 0, LOWEST, 4, PARCELS, MAIL, 1)),
            PutLease(SESSION, session),
            PutNumbers(QueueNumber(5)),
            PutRetired(QueueNumber(3), QueueNumber(0)),
            PutDedup(MAIL, OTHER, RECORDS[1]),
            PutRequest(REQUEST, RECORDS[2]),
        ],
        TimeMark(b"B" * 16, 2_000, WallMs(1_100)),
    )
    store.note_synced()
    return store


def check_second(store: RocksStore) -> None:
    found = store.recover()
    assert [(queue.number, queue.id, queue.dead_of) for queue in found.queues] == [(2, 2, 1), (4, 1, 0)]
    (lease,) = found.leases.values()
    assert (lease.sizes, lease.leased_at, lease.session, lease.grace) == ((9,), 90, b"T" * 16, 10_000)
    assert (found.settings, found.retired, found.next_number) == ({MAIL: SETTINGS}, {MAIL: MAIL, 3: 0}, 5)
    assert list(store.scan(QueueNumber(4), LOWEST, items_max=9, bytes_max=999).items) == FACTS
    assert store.find([PARCELS], [DEAD.key.id]) == [Found(PARCELS, DEAD)]
    assert [*store.dedup(MAIL, [DIGEST, OTHER]), *store.requests([REQUEST])] == RECORDS
    assert [entry.ends for entry, _ in store.ended(WallMs(8_500), entries_max=9)] == [7_000, 8_000]


@pytest.mark.parametrize("golden", [True, False])
def test_rows_that_format_1_does_not_have_are_read(tmp_path, golden):
    if golden:
        copytree(GOLDEN / "v2-more", tmp_path / "data")
        (tmp_path / "data").chmod(0o700)
    else:
        write_second(tmp_path / "data").close()
    for _ in range(2):
        store = open_store(tmp_path / "data")
        check_second(store)
        store.close()
    assert verify(tmp_path / "data").findings == []


@pytest.mark.parametrize("version", range(1, FORMAT + 1))
def test_a_directory_of_every_format_opens_with_all_its_data(tmp_path, make, version):
    copytree(GOLDEN / f"v{version}", tmp_path / "data")
    (tmp_path / "data").chmod(0o700)
    for clean in (False, True):
        store = open_store(tmp_path / "data")
        assert (store.created, store.clean_shutdown) == (False, clean)
        check(store, make)
        store.close()
    assert verify(tmp_path / "data").findings == []


def test_a_directory_that_a_server_of_format_1_left_when_it_was_killed_is_converted(tmp_path):
    """
    The directory's queue `default` had seven items: five at once and two after a day.

    Two of the five were redelivered, two are leased, and one of these was removed.  `mail` has a large item and a small
    one, and the only item of `emptied` was removed.
    """
    copytree(GOLDEN / "v1-served", tmp_path / "data")
    (tmp_path / "data").chmod(0o700)
    store = open_store(tmp_path / "data")
    found = store.recover()
    queues = {record.name: record for record in found.queues}
    assert {name: (record.added, record.removed) for name, record in queues.items()} == {
        "default": (7, 1),
        "mail": (2, 0),
        "emptied": (1, 1),
    }
    items = {
        name: store.scan(record.number, LOWEST, items_max=9, bytes_max=10**9).items for name, record in queues.items()
    }
    assert [(item.contents, item.attempts) for item in items["default"]] == [
        (b"plain-4", 0),
        (b"plain-5", 0),
        (b"plain-1", 1),
        (b"plain-2", 1),
        (b"later-1", 0),
        (b"later-2", 0),
    ]
    assert [len(item.contents) for item in items["mail"]] == [30_000, 11]
    for name, record in queues.items():
        assert store.find([record.number], [item.key.id for item in items[name]]) == [
            Found(record.number, item) for item in items[name]
        ]
        assert record.bytes == sum(len(item.contents) for item in items[name])
        assert record.off_time == (4 if name == "default" else 0)
    (lease,) = found.leases.values()
    assert (lease.queue, lease.keys, lease.sizes) == (queues["default"].number, (items["default"][0].key,), (7,))
    store.close()
    assert verify(tmp_path / "data").findings == []


def test_the_present_code_writes_the_same_rows(tmp_path, make):
    store = write(tmp_path / "data")
    check(store, make)
    store.close()


def test_golden_directories_stay_small():
    assert sum(file.stat().st_size for file in GOLDEN.rglob("*") if file.is_file()) < 100_000 * FORMAT
