"""Firings of periodic tasks: found in time, added once, missed ones by rule."""

import pytest

from queueber.errors import InvalidRequest
from queueber.tasks.firings import AHEAD_MS, CATCH_UP_MS, LOOK_MS, RECORD_MS, RETRY_MS, Firing, Schedule, check_window
from queueber.tasks.periodic import Every
from queueber.units import HOUR, MINUTE, SpanMs, WallMs

START = WallMs(1_000 * HOUR)


def schedule(every=HOUR, **spans):
    return Schedule({("tidy", "mail"): Every(SpanMs(every))}, **spans)


def times(firings):
    return [(each.at - START) / MINUTE for each in firings]


def add_all(found, now):
    firings = found.due(WallMs(now))
    for each in firings:
        found.added(each)
    return times(firings)


def test_a_firing_is_found_a_minute_before_its_time_and_once():
    found = schedule()
    assert add_all(found, START + 58 * MINUTE) == []
    assert found.wait(WallMs(START + 58 * MINUTE + 50_000)) == 10_000
    assert add_all(found, START + 59 * MINUTE) == [60]
    assert add_all(found, START + 60 * MINUTE) == []
    assert add_all(found, START + 119 * MINUTE) == [120]


def test_the_wait_is_never_long_because_clocks_are_set():
    found = schedule()
    add_all(found, START + MINUTE)
    assert found.wait(WallMs(START + MINUTE)) == LOOK_MS


def test_a_start_shortly_after_a_firing_adds_it_late():
    assert add_all(schedule(), START + 5 * MINUTE) == []
    assert add_all(schedule(), START + 5 * MINUTE - 1) == [0]


def test_of_several_missed_firings_the_last_one_is_added():
    found = schedule(every=MINUTE)
    assert add_all(found, START) == [0, 1]
    assert add_all(found, START + 4 * MINUTE + 1) == [4, 5]


def test_after_a_long_stall_only_the_last_minutes_count():
    found = schedule()
    assert add_all(found, START) == [0]
    assert add_all(found, START + 10 * HOUR + 10 * MINUTE) == []
    assert add_all(found, START + 20 * HOUR + MINUTE) == [20 * 60]


def test_a_clock_that_is_put_back_fires_nothing_twice():
    found = schedule()
    assert add_all(found, START + 59 * MINUTE) == [60]
    assert add_all(found, START - HOUR) == []
    assert add_all(found, START + 60 * MINUTE) == []
    assert add_all(found, START + 119 * MINUTE) == [120]


def test_a_firing_that_was_not_added_is_tried_again_until_it_is_too_late():
    found = schedule()
    now = START + 59 * MINUTE
    assert times(found.due(WallMs(now))) == [60]
    assert found.wait(WallMs(now)) == RETRY_MS
    assert times(found.due(WallMs(now + 2 * MINUTE))) == [60]
    assert found.given_up(WallMs(START + 60 * MINUTE + CATCH_UP_MS)) == []
    assert times(found.given_up(WallMs(START + 60 * MINUTE + CATCH_UP_MS + 1))) == [60]
    assert found.due(WallMs(START + 66 * MINUTE)) == ()


def test_of_firings_that_could_not_be_added_the_last_one_that_is_late_stays():
    found = schedule(every=MINUTE)
    assert times(found.due(START)) == [0, 1]
    assert times(found.due(WallMs(START + 3 * MINUTE))) == [3, 4]


def test_tasks_fire_in_the_order_of_time():
    found = Schedule(
        {("slow", "a"): Every(SpanMs(2 * MINUTE)), ("fast", "b"): Every(SpanMs(MINUTE))}, SpanMs(2 * MINUTE)
    )
    assert [each.task for each in found.due(WallMs(START + 1))] == ["slow", "fast", "fast", "slow", "fast"]


def test_all_schedulers_give_a_firing_one_identity_and_different_firings_others():
    one = Firing("tidy", "mail", START)
    assert one.request_id == Firing("tidy", "mail", START).request_id
    assert len(one.request_id) == 16
    others = [Firing("tidy", "mail", WallMs(START + 1)), Firing("tidy", "post", START), Firing("tide", "mail", START)]
    assert len({each.request_id for each in [one, *others]}) == 4
    assert one.key == f"tidy@{START}".encode()
    assert str(one) == "tidy at 1970-02-11T16:00:00+00:00"


def test_by_default_request_ids_suffice_whatever_the_queue_remembers():
    assert schedule().window_needed() is None
    assert AHEAD_MS + CATCH_UP_MS < RECORD_MS
    needed = schedule(catch_up=SpanMs(HOUR)).window_needed()
    assert needed == 65 * MINUTE
    check_window("mail", needed, needed)
    with pytest.raises(InvalidRequest, match=r"queueber configure --queue mail dedup-window-ms=3900000"):
        check_window("mail", SpanMs(needed - 1), needed)
