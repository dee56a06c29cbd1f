"""A small slice of `leaks.py`, and a check that it and `steady.py` would notice a leak."""

import leaks
import pytest
import steady
from through import Measures

ROWS = {"items": 0, "leases": 0, "meta": 3, "queues": 1}


def measures(rss=50.0, descriptors=28, threads=7, disk=10.0):
    return Measures(rss_mib=rss, descriptors=descriptors, threads=threads, disk_mib=disk)


@pytest.mark.slow
def test_nothing_is_left_of_items_that_were_removed():
    counts = leaks.run(3_000, 3, settle=0.2)
    assert (counts.failures, counts.n) == ([], 1), "however many items: it was tried once"


@pytest.mark.parametrize(
    ("last", "rows", "word"),
    [
        (measures(rss=90.0), ROWS, "memory"),
        (measures(descriptors=60), ROWS, "descriptors"),
        (measures(threads=8), ROWS, "threads"),
        (measures(disk=900.0), ROWS, "disk"),
        (measures(), ROWS | {"leases": 1}, "rows of leases"),
        (measures(), ROWS | {"items": 1}, "rows of items"),
        (measures(), ROWS | {"queues": 2}, "queues"),
    ],
)
def test_a_leak_is_noticed(last, rows, word):
    assert leaks.wrong_with(measures(), measures(rss=60.0), ROWS) == []
    (wrong,) = leaks.wrong_with(measures(), last, rows)
    assert word in wrong


def samples(p99=0.01, hours=0.9, **growth):
    """Return samples of *hours*, which grow linearly after a first quarter that grows far more."""
    found = []
    for each in range(100):
        done = each / 100
        grown = {name: most * done for name, most in growth.items()}
        start = 50.0 - max(0.0, 0.25 - done) * 100
        found.append(
            steady.Sample(
                done * 3_600 * hours * 100 / 99,
                measures(rss=start + grown.pop("rss", 0), **grown),
                p99(done) if callable(p99) else p99,
            )
        )
    return found


@pytest.mark.parametrize(
    ("creeping", "word"),
    [
        ({"rss": 60.0}, "rss_mib"),
        ({"descriptors": 40}, "descriptors"),
        ({"threads": 2}, "threads"),
        ({"disk": 900.0}, "disk_mib"),
        ({"p99": lambda done: 0.04 + done}, "p99"),
    ],
)
def test_what_creeps_up_is_noticed(creeping, word):
    assert steady.judge(samples())[1] == []
    (wrong,) = steady.judge(samples(**creeping))[1]
    assert word in wrong


@pytest.mark.parametrize(
    ("creeping", "word"),
    [({"rss": 3.0}, "rss_mib"), ({"p99": lambda done: 0.01 + done * 0.009}, "p99")],
)
def test_in_an_hour_or_more_less_is_noticed(creeping, word):
    assert steady.judge(samples(**creeping))[1] == []
    for hours in (1.0, 2.5):
        assert steady.judge(samples(hours=hours))[1] == []
        (wrong,) = steady.judge(samples(hours=hours, **creeping))[1]
        assert word in wrong


def test_of_two_hours_and_more_the_first_does_not_count():
    grown = [steady.Sample(each * 36.0, measures(rss=50.0 + 15 * min(1.0, each / 99)), 0.01) for each in range(201)]
    assert steady.judge(grown)[1] == []
