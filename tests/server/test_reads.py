"""Reads of the store: results, and their end."""

import pytest

from queueber.server.core.reads import Reads
from queueber.testing import StepPool
from tests.server.conftest import IdlePool


@pytest.fixture
def pool():
    return StepPool()


@pytest.fixture
def reads(pool):
    return Reads(pool)


def test_results_and_errors_are_those_of_the_pool(pool, reads):
    good, bad = reads.run(divmod, 7, 2), reads.run(int, "x", base=10)
    assert reads.under_way == 2
    pool.step()
    pool.step()
    assert (good.result, reads.under_way) == ((3, 1), 0)
    assert bad.result.check(ValueError)
    bad.addErrback(lambda _: None)


@pytest.mark.parametrize("argument", [1, "x"])
def test_after_a_stop_nothing_comes_of_a_read(pool, reads, argument):
    before = reads.run(divmod, argument, 1)
    reads.stop()
    after = reads.run(divmod, argument, 1)
    assert reads.under_way == 2
    pool.step()
    pool.step()
    assert (before.called, after.called, reads.under_way) == (False, False, 0)


def test_looks_like_the_pool(pool):
    reads = Reads(IdlePool(pool))
    reads.run(divmod, 1, 1)
    assert (reads.workers, reads.busy, reads.waiting) == (2, 0, 1)
