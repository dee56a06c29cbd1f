"""Damage to WAL files and the manifest that RocksDB does not detect, or never finishes reading."""

from struct import pack

import pytest

from queueber.plyvel import CorruptionError
from queueber.plyvel.rocksdb import RocksDB
from queueber.plyvel.rocksdb_options import RocksDBOptions
from queueber.plyvel.wal import (
    check_wal,
    checksum,
    find_later_batch,
    map_file,
    read_wal,
    truncate_damage,
    wal_files,
)

BLOCK = 32_768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def log_of(*batches, block=BLOCK):
    """Encode *batches* as RocksDB does."""
    written = bytearray()
    for batch in batches:
        rest, begun = batch, False
        while True:
            room = block - len(written) % block
            if room < 7:
                written += bytes(room)
                room = block
            part, rest = rest[: room - 7], rest[room - 7 :]
            kind = (MIDDLE if rest else LAST) if begun else (FIRST if rest else FULL)
            written += record(kind, part)
            begun = True
            if not rest:
                break
    return bytes(written)


def record(kind, part):
    typed = bytes((kind,)) + part
    return pack("<IH", checksum(typed), len(part)) + typed


def batch(number, count=1, size=100):
    return pack("<QI", number, count) + b"\xee" * size


def damage_of(content):
    return read_wal(content).damage


@pytest.fixture
def database(tmp_path, copy_database):
    """A function that makes a database with one WAL file and no table files, and one batch per value."""

    def make(*values):
        with RocksDB(tmp_path / "live", RocksDBOptions(), create_if_missing=True) as db:
            for number, value in enumerate(values):
                with db.write_batch() as batch:
                    batch.put(b"%d" % number, value)
                    batch.put(b"last", b"%d" % number)
            copy_database(tmp_path / "live", tmp_path / "db")
        return tmp_path / "db"

    return make


def wal_file(database):
    (log,) = [log for log in wal_files(database) if log.stat().st_size]
    return log


def test_the_checksum_is_rocksdbs():
    crc = 0xE306_9283  # the usual test value: the CRC of nine digits
    assert checksum(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282_EAD8) & 0xFFFF_FFFF


@pytest.mark.parametrize("sizes", [(10,), (10, 20_000, 20_000, 5), (200_000, 10), (32_700, 40, 32_600, 90)])
def test_a_wal_that_rocksdb_wrote_is_undamaged(database, sizes):
    content = map_file(wal_file(database(*(b"c" * size for size in sizes))))
    state = read_wal(content, checksums=True)
    assert state.damage is None
    assert state.end == len(content)


def test_a_change_of_any_bit_of_a_length_or_type_is_detected(database):
    """With some of these changes RocksDB silently drops later records, and with one it never finishes reading."""
    log = wal_file(database(*(b"c" * 200 for _ in range(6))))
    content, at, passed = log.read_bytes(), 0, []
    while at < len(content):
        for bit in range(24):
            changed = bytearray(content)
            changed[at + 4 + bit // 8] ^= 1 << bit % 8
            log.write_bytes(changed)
            if damage_of(bytes(changed)) is None:
                passed.append((at, bit))
                with pytest.raises(CorruptionError, match="checksum mismatch"):
                    RocksDB(log.parent, RocksDBOptions())
            else:
                with pytest.raises(CorruptionError, match=log.name):
                    check_wal(log.parent)
        at += 7 + int.from_bytes(content[at + 4 : at + 6], "little")
    # Undetected: a smaller length whose end looks like the beginning of a record, and an ignorable type at the end.
    assert len(passed) < 10


def test_a_wal_can_end_anywhere():
    content = log_of(batch(1), batch(2, 3), batch(5), block=BLOCK)
    ends = [0, 119, 238, 357]
    for cut in range(len(content) + 1):
        state = read_wal(content[:cut])
        assert state.damage is None
        assert state.end == max(end for end in ends if end <= cut)


def test_a_wal_can_end_within_a_batch_of_several_parts():
    content = log_of(batch(1, size=100_000), batch(2, size=40_000))
    whole = read_wal(content)
    assert (whole.end, whole.next_sequence) == (len(content), 3)
    for cut in (*range(BLOCK - 20, BLOCK + 20), 2 * BLOCK, 3 * BLOCK + 3_000, len(content) - 1):
        assert damage_of(content[:cut]) is None


@pytest.mark.parametrize("left", range(20))
def test_a_batch_can_begin_anywhere_in_a_block(left):
    first = batch(1, size=BLOCK - 7 - 12 - left)
    state = read_wal(log_of(first, batch(2), batch(3)), checksums=True)
    assert (state.damage, state.next_sequence) == (None, 4)


def test_preallocated_space_is_accepted_only_at_the_end():
    content = log_of(batch(1), batch(2))
    assert damage_of(content + bytes(5_000)) is None
    assert damage_of(bytes(100)) is None
    assert "there is a hole at 119" in damage_of(content[:119] + bytes(119) + content)


def test_a_missing_batch_is_detected():
    assert "write 2 is missing; the log goes on with 3 at 119" in damage_of(log_of(batch(1), batch(3)))


def test_a_missing_part_is_detected():
    content = log_of(batch(1, size=100_000))
    assert "a part is missing before" in damage_of(content[BLOCK:])
    assert "a part is missing before" in damage_of(record(FIRST, batch(1)) + record(FULL, batch(1)))


def test_a_batch_shorter_than_its_header_is_detected():
    assert "has no beginning" in damage_of(record(FULL, b"short"))


def test_a_record_of_an_ignorable_type_is_skipped():
    state = read_wal(record(0x82, b"whatever") + log_of(batch(7)), checksums=True)
    assert (state.damage, state.next_sequence) == (None, 8)


def test_checksums_are_verified_on_request():
    content = bytearray(log_of(batch(1), batch(2), batch(3)))
    content[200] ^= 1
    assert damage_of(bytes(content)) is None
    state = read_wal(bytes(content), checksums=True)
    assert (state.end, state.next_sequence) == (119, 2)
    assert state.damage == "the checksum of the record at 119 does not match"


def test_a_length_beyond_the_end_is_distinguished_from_a_torn_tail():
    one, two = log_of(batch(1)), log_of(batch(2))
    longer = two[:4] + pack("<H", len(two)) + two[6:]
    assert damage_of(one + longer) == "the length of the record at 119 is wrong"
    assert "is cut, and another follows at 238" in damage_of(
        one + longer[:4] + b"\xff\x01" + longer[6:] + log_of(batch(3))
    )


def test_a_later_batch_is_found_if_it_is_complete():
    noise = b"\x01\x02" * 40
    content = noise + log_of(batch(5))
    assert find_later_batch(content, 0, 4) == len(noise)
    assert find_later_batch(content, 0, None) == len(noise)
    assert find_later_batch(content, 0, 5) is None
    changed = bytearray(content)
    changed[-1] ^= 1
    assert find_later_batch(bytes(changed), 0, 4) is None
    assert find_later_batch(b"", 0, 4) is None
    assert find_later_batch(bytes(300), 0, 4) is None


def test_damage_is_truncated(tmp_path):
    (tmp_path / "000004.log").write_bytes(log_of(batch(1)))
    (tmp_path / "000012.log").write_bytes(log_of(batch(2), batch(4)))
    (tmp_path / "000100.log").write_bytes(b"")
    (tmp_path / "mine.log").write_text("not RocksDB's")
    truncate_damage(tmp_path)
    assert [log.stat().st_size for log in wal_files(tmp_path)] == [119, 119, 0]
    check_wal(tmp_path)


class TestTheManifest:
    """A manifest that seems to end early omits table files, which gives a state that never existed."""

    @pytest.fixture
    def manifest(self, tmp_path, copy_database):
        with RocksDB(tmp_path / "live", RocksDBOptions(), create_if_missing=True) as db:
            for number in range(3):
                db.put(b"%d" % number, b"")
                db.flush()
            copy_database(tmp_path / "live", tmp_path / "db")
        return next((tmp_path / "db").glob("MANIFEST-*"))

    def test_a_change_of_any_bit_of_a_length_or_type_is_detected(self, manifest):
        content, at, tried = manifest.read_bytes(), 0, 0
        while at < len(content):
            for bit in range(24):
                changed = bytearray(content)
                changed[at + 4 + bit // 8] ^= 1 << bit % 8
                manifest.write_bytes(changed)
                if read_wal(bytes(changed), batches=False).damage is None:
                    with pytest.raises(CorruptionError, match="Corruption"):
                        RocksDB(manifest.parent, RocksDBOptions())
                else:
                    tried += 1
                    with pytest.raises(CorruptionError, match=manifest.name):
                        check_wal(manifest.parent)
                    with pytest.raises(CorruptionError, match=manifest.name):
                        truncate_damage(manifest.parent)
            at += 7 + int.from_bytes(content[at + 4 : at + 6], "little")
        assert tried > 100

    def test_the_manifest_can_end_anywhere(self, manifest):
        content = manifest.read_bytes()
        for cut in range(len(content) + 1):
            assert read_wal(content[:cut], batches=False).damage is None

    @pytest.mark.parametrize("says", ["", "MANIFEST-999999\n", "nonsense", "\xff"])
    def test_the_content_of_current_is_left_to_rocksdb(self, manifest, says):
        (manifest.parent / "CURRENT").write_bytes(says.encode("latin-1"))
        check_wal(manifest.parent)


@pytest.mark.parametrize("parts", [1, 2])
def test_preallocated_space_within_a_batch_is_a_hole(parts):
    content = log_of(batch(1), batch(2, size=90_000))
    zeros = content[: parts * BLOCK].ljust(len(content), b"\0")
    assert damage_of(zeros) == f"there is a hole at {parts * BLOCK:,}"
    assert read_wal(zeros).end == len(log_of(batch(1)))
    assert damage_of(content[: parts * BLOCK]) is None
