"""Evictions: the largest holders over time go, and never a connection for its age alone."""

from struct import pack

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from queueber import api
from queueber.server.net.memory_budget import FREED_PART, MEMORY_SECONDS, MemoryBudget

LIMIT = 16_000


@define(eq=False)
class Holder:
    evicted: bool = field(default=False, init=False)

    def evict(self, limit, reason):
        assert not self.evicted
        assert limit in reason
        self.evicted = True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make_budget(clock):
    return lambda peers: MemoryBudget(LIMIT, clock.seconds, lambda: peers)


def evicted(holders):
    return [holder.evicted for holder in holders]


def test_released_bytes_do_not_count(make_budget):
    budget, holder = make_budget(1), Holder()
    budget.update(holder, 0)
    for transient, retained in ((10, 5), (3, 0), (0, 7), (0, 0)):
        budget.update(holder, transient, retained)
        assert budget.total == transient + retained
    assert not holder.evicted


def test_a_holder_of_no_more_than_an_even_share_is_never_evicted(make_budget, clock):
    budget, workers, attackers = make_budget(10), [Holder() for _ in range(8)], [Holder(), Holder()]
    for worker in workers:
        budget.update(worker, 500, 500)
    clock.advance(86_400)
    for attacker in attackers:
        budget.update(attacker, 4_500)
    assert evicted(workers) == [False] * 8
    assert evicted(attackers) == [True, False]


def test_the_age_of_retained_bytes_does_not_count(make_budget, clock):
    """A worker with many open answers exceeds its share, and still others are evicted."""
    budget, worker, attackers = make_budget(1_000), Holder(), [Holder() for _ in range(4)]
    budget.update(worker, 0, 3_000)
    clock.advance(3_600)
    for attacker in attackers:
        budget.update(attacker, 4_000)
        clock.advance(0.1)
    assert not worker.evicted
    assert evicted(attackers) == [True, False, False, False]


def test_complete_messages_do_not_count_once_nothing_transient_is_held(make_budget, clock):
    """A worker with many open answers, whose last large message is complete, is not evicted."""
    budget, worker, attackers = make_budget(1_000), Holder(), [Holder() for _ in range(4)]
    budget.update(worker, 8_000, 3_000)
    clock.advance(MEMORY_SECONDS)
    budget.update(worker, 0, 3_000)
    for attacker in attackers:
        budget.update(attacker, 4_000)
        clock.advance(0.1)
    assert not worker.evicted
    assert evicted(attackers) == [True, False, False, False]


def test_without_transient_bytes_the_most_retained_are_evicted(make_budget):
    budget, holders = make_budget(3), [Holder(), Holder(), Holder()]
    for holder, retained in zip(holders, (5_000, 7_000, 5_000), strict=True):
        budget.update(holder, 0, retained)
    assert evicted(holders) == [False, True, False]


def test_a_long_holder_is_evicted_before_a_new_one(make_budget, clock):
    budget, drip, upload = make_budget(2), Holder(), Holder()
    budget.update(drip, 8_000)
    clock.advance(20)
    budget.update(upload, 8_001)
    assert (drip.evicted, upload.evicted) == (True, False)


def test_the_bytes_held_over_time_count_and_not_the_time_since_the_first(make_budget, clock):
    """One byte held for an hour does not make a new large message old."""
    budget, patient, hoarder = make_budget(2), Holder(), Holder()
    budget.update(patient, 1)
    clock.advance(3_600)
    budget.update(hoarder, 7_900)
    clock.advance(MEMORY_SECONDS)
    budget.update(patient, 8_500)
    assert (patient.evicted, hoarder.evicted) == (False, True)


def test_past_bytes_decay(make_budget, clock):
    budget, once, now = make_budget(2), Holder(), Holder()
    budget.update(once, 15_000)
    clock.advance(MEMORY_SECONDS)
    budget.update(once, 7_600)
    budget.update(now, 7_900)
    clock.advance(100 * MEMORY_SECONDS)
    budget.update(now, 8_500)
    assert (once.evicted, now.evicted) == (False, True)


def test_an_eviction_frees_enough_that_the_next_byte_ranks_no_holder(make_budget):
    budget, holders = make_budget(160), [Holder() for _ in range(161)]
    for holder in holders:
        budget.update(holder, 100)
    assert sum(evicted(holders)) == 11
    assert budget.total == 15_000 == LIMIT - LIMIT // FREED_PART


def test_workers_with_open_queues_outlive_attackers_that_hold_messages(make_server):
    server = make_server(buffered_bytes=1 << 20)
    workers = [server.connect() for _ in range(10)]
    for worker in workers:
        worker.send()
        for number in range(7):
            content = api.write_queue_request(f"queue-{number}")
            worker.connection.call(worker.root, api.BROKER_INTERFACE_ID, api.QUEUE, content)
        worker.send()
        assert worker.protocol.held_bytes
    server.reactor.advance(3_600)
    attackers = [server.connect() for _ in range(18)]
    for attacker in attackers:
        attacker.send()
        attacker.protocol.dataReceived(pack("<II", 0, 1 << 16) + bytes(60_000))
        server.settle()
        server.reactor.advance(0.1)
    assert not any(worker.aborted for worker in workers)
    assert any(attacker.aborted for attacker in attackers)
    assert server.connections.memory.total <= 1 << 20
    assert b"buffered_bytes" in next(each for each in attackers if each.aborted).transport.value()
