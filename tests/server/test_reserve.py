"""The reserve of free space: when adds are refused, when they are taken again, and the error."""

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs, formatEvent

from queueber.errors import Kind, Overloaded
from queueber.server.app import composition
from queueber.server.config.twisted_options import Options
from queueber.server.core.clock import periodic_timer
from queueber.server.core.reserve import MEASURE_SECONDS, Reserve, Space, space_of
from queueber.store.tuning import flush_bytes_max
from queueber.units import GIB, MIB


class Disk:
    def __init__(self, free, total=1000 * GIB):
        self.free, self.total = free, total
        self.unflushed = 0
        self.free_inodes = self.inodes = 0
        self.broken = False

    def __call__(self):
        if self.broken:
            raise OSError(5, "Input/output error")
        return Space(self.free, self.total, self.unflushed, self.free_inodes, self.inodes)


@pytest.fixture
def disk():
    return Disk(100)


@pytest.fixture
def reserve(disk):
    made = Reserve(disk, 100)
    made.measure()
    return made


def test_adds_are_refused_below_the_reserve_and_not_at_it(reserve, disk):
    reserve.refuse(1)
    disk.free = 99
    reserve.measure()
    why = r"99 bytes are free, and 100 are kept in reserve \(free_space_reserve\)"
    with pytest.raises(Overloaded, match=why) as error:
        reserve.refuse(1)
    assert error.value.limit == "free_space_reserve"


def test_one_byte_is_singular(reserve, disk):
    disk.free, disk.unflushed = 1, 1
    reserve.measure()
    assert reserve.shortage == "1 byte is free and 1 is needed for what is in memory, and 100 are kept in reserve"


def test_adds_are_taken_again_when_a_tenth_more_is_free(reserve, disk):
    for free, low in ((99, True), (100, True), (109, True), (110, False), (100, False), (99, True)):
        disk.free = free
        reserve.measure()
        assert reserve.low == low


class TestInodes:
    """A file system without inodes is full, even if bytes are free."""

    @pytest.mark.parametrize(("inodes", "kept"), [(10**7, 256), (2_560, 256), (40, 4)])
    def test_some_are_kept_in_reserve(self, reserve, disk, inodes, kept):
        back = kept + max(1, kept // 10)
        disk.inodes = inodes
        with capturedLogs() as logged:
            for free, low in ((kept, False), (kept - 1, True), (back - 1, True), (back, False)):
                disk.free_inodes = free
                reserve.measure()
                assert reserve.low == low, free
        assert [formatEvent(event) for event in logged] == [
            f"Refusing adds: {kept - 1} inodes are free, and {kept} are kept in reserve (free_space_reserve)",
            f"Taking adds again: 100 bytes are free, {back} inodes",
        ]

    def test_an_add_is_refused_with_the_numbers(self, reserve, disk):
        disk.inodes, disk.free_inodes = 1_000, 7
        reserve.measure()
        assert reserve.shortage == "7 inodes are free, and 100 are kept in reserve"
        with pytest.raises(Overloaded, match=r"7 inodes are free, and 100 are kept in reserve \(free_space_reserve\)"):
            reserve.refuse(1)

    def test_bytes_and_inodes_recover_independently(self, reserve, disk):
        disk.free, disk.inodes, disk.free_inodes = 99, 1_000, 99
        reserve.measure()
        assert reserve.shortage == "; ".join(
            f"99 {what} are free, and 100 are kept in reserve" for what in ("bytes", "inodes")
        )
        disk.free = 110
        reserve.measure()
        disk.free = 100
        reserve.measure()
        assert reserve.shortage == "99 inodes are free, and 100 are kept in reserve"

    def test_inodes_do_not_matter_without_a_limit_or_a_reserve(self, reserve, disk):
        disk.inodes = disk.free_inodes = 0
        reserve.measure()
        assert not reserve.low
        disk.inodes = 1_000
        off = Reserve(disk, 0)
        off.measure()
        assert not off.low

    def test_no_flush_begins_with_too_few_inodes(self, disk):
        """The flush would fail and end the server."""
        made = []
        disk.free, disk.inodes, disk.free_inodes = GIB, 1_000, 7
        reserve = Reserve(disk, 100, lambda: succeed(made.append(True)))
        with capturedLogs() as logged:
            reserve.tick()
        assert made == []
        assert "cannot be reclaimed: 7 inodes are free" in formatEvent(logged[-1])
        disk.free_inodes = 8
        reserve.tick()
        assert made == [True]


@pytest.mark.parametrize(("total", "kept"), [(1000 * GIB, GIB), (10 * GIB, GIB), (64 * MIB, 64 * MIB // 10)])
def test_the_default_depends_on_the_size_of_the_file_system(total, kept):
    disk = Disk(kept, total)
    reserve = Reserve(disk, None)
    reserve.measure()
    assert (reserve.bytes, reserve.low) == (kept, False)
    disk.free -= 1
    reserve.measure()
    assert reserve.low


def test_0_is_no_reserve():
    reserve = Reserve(Disk(0), 0)
    reserve.measure()
    reserve.refuse(1)


def test_many_adds_cause_a_measurement_before_the_next_second(disk):
    reserve = Reserve(disk, 1_600)
    disk.free = 2_000
    reserve.measure()
    disk.free = 0
    reserve.refuse(100)
    with pytest.raises(Overloaded):
        reserve.refuse(1)
    disk.free = 2_000
    reserve.refuse(101)


def test_each_measurement_restarts_the_count_of_bytes(disk):
    """Otherwise every add of a busy server would measure."""
    reserve, disk.free, looks = Reserve(lambda: looks.append(True) or disk(), 1_600), 2_000, []
    for size, looked in ((100, 0), (1, 1), (100, 1), (1, 2)):
        reserve.refuse(size)
        assert len(looks) == looked


def test_a_failed_measurement_changes_nothing(reserve, disk):
    disk.free = 1
    reserve.measure()
    disk.broken = True
    reserve.measure()
    assert reserve.low


def test_the_space_is_measured_at_once_and_periodically(server, disk):
    disk.free = 1
    reserve = Reserve(disk, 100)
    timer = periodic_timer(server.reactor, MEASURE_SECONDS, reserve.tick)
    timer.startService()
    assert reserve.low
    disk.free = 200
    server.reactor.advance(MEASURE_SECONDS)
    assert not reserve.low
    timer.stopService()


def test_room_is_made_while_space_is_low_with_pauses_between_attempts(server, disk):
    attempts = []

    def make_room():
        attempts.append(Deferred())
        return attempts[-1]

    disk.free = 10 * MIB
    reserve = Reserve(disk, 5 * MIB, make_room)
    timer = periodic_timer(server.reactor, MEASURE_SECONDS, reserve.tick)
    timer.startService()
    server.reactor.pump([MEASURE_SECONDS] * 20)
    assert attempts == []
    disk.free = 3 * MIB
    server.reactor.pump([MEASURE_SECONDS] * 20)
    assert len(attempts) == 1
    attempts[0].errback(OSError(28, "No space left on device"))
    server.reactor.advance(MEASURE_SECONDS)
    assert len(attempts) == 2
    attempts[1].callback(None)
    server.reactor.pump([MEASURE_SECONDS] * 4)
    assert len(attempts) == 2
    server.reactor.advance(MEASURE_SECONDS)
    assert len(attempts) == 3
    timer.stopService()


def test_no_room_is_made_where_unflushed_bytes_do_not_fit(server, disk):
    """RocksDB stops for good when a flush fails, and the server with it."""
    attempts = []

    def make_room():
        attempts.append(disk.free)
        return succeed(None)

    reserve = Reserve(disk, 10 * MIB, make_room)
    timer = periodic_timer(server.reactor, MEASURE_SECONDS, reserve.tick)
    disk.free, disk.unflushed = 3_000, 8_000
    needed = flush_bytes_max(8_000)
    with capturedLogs() as logs:
        timer.startService()
        server.reactor.pump([MEASURE_SECONDS] * 20)
        assert attempts == []
        with pytest.raises(Overloaded, match="3,000 bytes are free and 8,000 are needed for what is in memory, and"):
            reserve.refuse(1)
        disk.free = needed - 1
        server.reactor.advance(MEASURE_SECONDS)
        assert attempts == []
        disk.free = needed
        server.reactor.advance(MEASURE_SECONDS)
        assert attempts == [needed]
    timer.stopService()
    space = "3,000 bytes are free and 8,000 are needed for what is in memory"
    refusing, not_making = [formatEvent(event) for event in logs]
    assert refusing == f"Refusing adds: {space}, and 10,485,760 are kept in reserve (free_space_reserve)"
    assert not_making.startswith(f"The space of removed items cannot be reclaimed: {space}, and that is too little")


def test_adds_are_refused_and_counted_while_other_calls_go_on(make_server, disk, monkeypatch):
    monkeypatch.setattr(composition, "space_of", lambda *_, **__: disk())
    server = make_server(settings={"free_space_reserve": 100})
    reserve = server.parts.reserve
    reserve.measure()
    peer = server.connect()
    peer.add(b"one")
    server.settle()
    disk.free = 1
    reserve.measure()
    refused, polled = peer.add(b"two"), peer.poll()
    server.settle()
    outcomes = peer.receive()
    assert outcomes[refused].kind == Kind.OVERLOADED
    assert "free_space_reserve" in outcomes[refused].reason
    assert hasattr(outcomes[polled], "content")
    assert server.broker.limit_hits["free_space_reserve"] == 1
    disk.free = 200
    reserve.measure()
    added = peer.add(b"two")
    server.settle()
    assert hasattr(peer.receive()[added], "content")


def test_the_free_space_is_that_of_the_file_system(tmp_path):
    space = space_of(tmp_path)
    assert abs(space_of(tmp_path, unflushed=4096 << 10).available - space.available + (4096 << 10)) < 1 << 20
    assert space_of(tmp_path, unflushed=1 << 60).available == 0
    assert 0 < space.free < space.total


@pytest.mark.parametrize(
    ("given", "means"), [((), None), (("--free-space-reserve=0",), 0), (("--free-space-reserve=2GiB",), 2 * GIB)]
)
def test_it_is_an_option(given, means):
    options = Options(environment={})
    options.parseOptions(given)
    assert options.settings.free_space_reserve == means
