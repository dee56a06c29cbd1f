"""The rate limit of log lines that peers can cause."""

from twisted.internet.task import Clock

from queueber.server.core.log_rate_limit import LINES_PER_SECOND, LeftOut, LogRateLimiter


def test_one_line_a_second_for_each_peer_and_kind():
    clock = Clock()
    limiter = LogRateLimiter(clock.seconds)
    assert limiter.passes("a", "bad") == ""
    assert limiter.passes("b", "bad") == ""
    assert limiter.passes("a", "late") == ""
    assert [limiter.passes("a", "bad") for _ in range(1_500)] == [None] * 1_500
    clock.advance(1)
    assert limiter.passes("a", "bad") == " (and 1,500 more like it)"
    assert limiter.passes("b", "bad") == ""


def test_quiet_peers_are_dropped():
    clock = Clock()
    limiter = LogRateLimiter(clock.seconds)
    for number in range(1_000):
        limiter.passes(number, "bad")
        clock.advance(1 / LINES_PER_SECOND)
    clock.advance(3)
    limiter.passes("a", "bad")
    assert len(limiter) == 2, "the last peer, and the kind"


def test_left_out_lines_are_reported_when_no_other_follows():
    clock = Clock()
    limiter = LogRateLimiter(clock.seconds)
    for _ in range(11):
        limiter.passes("a", "bad")
    limiter.passes("b", "bad")
    limiter.passes(None, "local")
    limiter.passes(None, "local")
    clock.advance(2)
    assert limiter.expire() == [], "a next line could still report it"
    clock.advance(0.1)
    assert limiter.expire() == [LeftOut("bad", 10, "a"), LeftOut("local", 1, "local peers")]
    assert limiter.expire() == []
    assert limiter.passes("a", "bad") == ""


def test_left_out_lines_of_a_whole_kind_are_reported_too():
    clock = Clock()
    limiter = LogRateLimiter(clock.seconds)
    limiter.passes("a", "late")
    limiter.passes("a", "late")
    clock.advance(3)
    for number in range(LINES_PER_SECOND + 7):
        limiter.passes(number, "bad")
    assert limiter.expire() == [LeftOut("late", 1, "a")]
    clock.advance(3)
    assert limiter.expire() == [LeftOut("bad", 7, "7 peers")]
    assert len(limiter) == 0


def test_a_kind_has_a_bounded_number_of_lines_a_second_over_all_peers():
    clock = Clock()
    limiter = LogRateLimiter(clock.seconds)
    said = [limiter.passes(number, "bad") for number in range(5_000)]
    assert said == [""] * LINES_PER_SECOND + [None] * (5_000 - LINES_PER_SECOND)
    assert limiter.passes(4_999, "bad") is None
    assert len(limiter) == LINES_PER_SECOND + 1, "left out lines are counted for the kind only"
    assert limiter.passes(0, "late") == "", "another kind has its own"
    clock.advance(1)
    assert limiter.passes("a", "bad") == " (and 4,951 more of this kind from 4,950 peers)"
    assert limiter.passes("b", "bad") == ""
    clock.advance(1)
    assert limiter.passes("b", "bad") == "", "a number is reported once"
