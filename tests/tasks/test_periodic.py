"""Times at which periodic tasks fire, over changes of the clock as well."""

import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueber.errors import InvalidRequest
from queueber.tasks.periodic import Cron, Every, checked_timing
from queueber.units import DAY, HOUR, MINUTE, SpanMs, WallMs

BERLIN = "Europe/Berlin"


def ms(text, zone=BERLIN, fold=0):
    return WallMs(int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1_000))


def firings(expression, start, count, fold=0):
    """The next firings, as local times with their offsets."""
    timing, moment, found = checked_timing(None, expression, BERLIN), ms(start, fold=fold), []
    for _ in range(count):
        moment = timing.after(moment)
        found.append(f"{datetime.fromtimestamp(moment / 1_000, ZoneInfo(BERLIN)):%m-%d %H:%M%z}")
    return found


def test_an_interval_counts_from_the_epoch_so_that_all_schedulers_agree():
    every = checked_timing(30, None, None)
    assert every.after(WallMs(1)) == 30_000
    assert every.after(WallMs(30_000)) == 60_000
    assert every.latest(WallMs(29_999), WallMs(95_000)) == 90_000
    assert every.latest(WallMs(90_000), WallMs(95_000)) is None
    assert checked_timing(timedelta(days=1), None, None) == Every(SpanMs(DAY))


def test_a_fixed_time_in_the_gap_comes_right_after_it():
    assert firings("30 2 * * *", "2026-03-28 12:00", 3) == ["03-29 03:00+0200", "03-30 02:30+0200", "03-31 02:30+0200"]


def test_fixed_times_in_the_gap_come_once_together():
    assert firings("15,45 2 * * *", "2026-03-28 12:00", 2) == ["03-29 03:00+0200", "03-30 02:15+0200"]


def test_a_fixed_time_that_the_clock_shows_twice_comes_once_at_the_first():
    assert firings("30 2 * * *", "2026-10-24 12:00", 2) == ["10-25 02:30+0200", "10-26 02:30+0100"]


def test_a_scheduler_that_starts_in_the_second_of_two_equal_hours_repeats_nothing():
    assert firings("30 2 * * *", "2026-10-25 02:10", 1, fold=1) == ["10-26 02:30+0100"]


def test_a_step_over_all_hours_goes_on_through_gap_and_fold():
    assert firings("*/30 * * * *", "2026-03-29 01:10", 3) == [
        "03-29 01:30+0100",
        "03-29 03:00+0200",
        "03-29 03:30+0200",
    ]
    assert firings("*/30 * * * *", "2026-10-25 02:10", 4) == [
        "10-25 02:30+0200",
        "10-25 02:00+0100",
        "10-25 02:30+0100",
        "10-25 03:00+0100",
    ]


def test_steps_of_an_hour_that_is_left_out_do_not_come():
    assert firings("*/30 2 * * *", "2026-03-28 12:00", 1) == ["03-30 02:00+0200"]


OVER_CHANGES = st.integers(ms("2026-10-24 00:00"), ms("2026-10-26 12:00")) | st.integers(
    ms("2026-03-28 00:00"), ms("2026-03-30 12:00")
)


@given(st.sampled_from(["*/7 * * * *", "30 2 * * *", "15,45 2 * * *", "0 */3 * * *", "0 2 25-31 * 0"]), OVER_CHANGES)
def test_schedulers_that_start_at_different_moments_agree(expression, start):
    """The next firing after a moment is the one that an earlier scheduler reaches by steps."""
    timing = checked_timing(None, expression, BERLIN)
    stepped = WallMs(start - 30 * HOUR)
    while stepped <= start:
        stepped = timing.after(stepped)
    assert timing.after(WallMs(start)) == stepped


def test_the_latest_firing_of_a_cron_expression():
    cron = checked_timing(None, "0 3 * * *", BERLIN)
    assert cron.latest(ms("2026-01-01 00:00"), ms("2026-01-03 02:59")) == ms("2026-01-02 03:00")
    assert cron.latest(ms("2026-01-02 03:00"), ms("2026-01-03 02:59")) is None


def test_utc_is_the_default_zone():
    assert checked_timing(None, "0 0 * * *", None).after(WallMs(0)) == DAY
    assert Cron("0 0 * * *", ZoneInfo("UTC")).after(WallMs(1)) == DAY


@pytest.mark.parametrize(
    ("every", "cron", "tz", "text"),
    [
        (30, "* * * * *", None, "every and cron are both given"),
        (30, None, BERLIN, "tz is given without cron"),
        (0.5, None, None, "every is 0.5 s; the least is 1 s"),
        (-1, None, None, "every is -1 s"),
        ("30", None, None, "every is '30'; it must be a number of seconds"),
        (None, "* * * *", None, "cron is '* * * *'; it must be five fields"),
        (None, "* * * * * *", None, "cron is '* * * * * *'; it must be five fields"),
        (None, "61 * * * *", None, "Bad minute"),
        (None, "@hourly", None, "it must be five fields"),
        (None, 5, None, "cron is 5; it must be five fields"),
        (None, "0 0 31 2 *", None, "cron is '0 0 31 2 *'"),
        (None, "* * */20 2 1L", None, "never fires"),
        (None, "* * * * *", "Europe/Nowhere", "tz is 'Europe/Nowhere'; it must be a time zone such as"),
        (None, "* * * * *", "../etc/passwd", "it must be a time zone such as"),
        (None, "* * * * *", 5, "tz is 5; it must be a time zone such as"),
    ],
)
def test_timings_that_cannot_be_had_are_refused(every, cron, tz, text):
    with pytest.raises(InvalidRequest) as caught:
        checked_timing(every, cron, tz)
    assert text in str(caught.value)


def test_cron_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(InvalidRequest, match=r"pip install 'queueber\[cron\]'"):
        checked_timing(None, "* * * * *", None)
    assert checked_timing(60, None, None) == Every(SpanMs(MINUTE))


def test_dates_are_those_of_the_zone():
    utc = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1_000)
    assert checked_timing(None, "0 0 1 1 *", "Asia/Tokyo").after(WallMs(utc - DAY)) == utc - 9 * HOUR
