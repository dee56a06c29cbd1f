"""What a peer can make us write to the log."""

from twisted.internet.task import Clock

from queueber.server.net.log_rate_limit import LINES_PER_SECOND, LeftOut, LogRateLimiter


def test_one_line_a_second_for_each_peer_and_kind():
    clock = Clock()
    throttle = LogRateLimiter(clock.seconds)
    assert throttle.passes("a", "bad") == ""
    assert throttle.passes("b", "bad") == ""
    assert throttle.passes("a", "late") == ""
    assert [throttle.passes("a", "bad") for _ in range(1_500)] == [None] * 1_500
    clock.advance(1)
    assert throttle.passes("a", "bad") == " (and 1,500 more like it)"
    assert throttle.passes("b", "bad") == ""


def test_peers_that_have_gone_quiet_are_forgotten():
    clock = Clock()
    throttle = LogRateLimiter(clock.seconds)
    for number in range(1_000):
        throttle.passes(number, "bad")
        clock.advance(1 / LINES_PER_SECOND)
    clock.advance(3)
    throttle.passes("a", "bad")
    assert len(throttle._lines) == 1


def test_what_was_left_out_is_told_when_nothing_more_comes():
    clock = Clock()
    throttle = LogRateLimiter(clock.seconds)
    for _ in range(11):
        throttle.passes("a", "bad")
    throttle.passes("b", "bad")
    throttle.passes(None, "local")
    throttle.passes(None, "local")
    clock.advance(2)
    assert throttle.forgotten() == [], "a next line could still tell"
    clock.advance(0.1)
    assert throttle.forgotten() == [LeftOut("bad", 10, "a"), LeftOut("local", 1, "local peers")]
    assert throttle.forgotten() == []
    assert throttle.passes("a", "bad") == ""


def test_what_was_left_out_of_a_whole_kind_is_told_too_and_of_what_others_pushed_out():
    clock = Clock()
    throttle = LogRateLimiter(clock.seconds)
    throttle.passes("a", "late")
    throttle.passes("a", "late")
    clock.advance(3)
    for number in range(LINES_PER_SECOND + 7):
        throttle.passes(number, "bad")
    assert throttle.forgotten() == [LeftOut("late", 1, "a")]
    clock.advance(3)
    assert throttle.forgotten() == [LeftOut("bad", 7, "7 peers")]
    assert (throttle._lines, throttle._kinds) == ({}, {})


def test_a_kind_has_so_many_lines_a_second_however_many_peers_there_are():
    clock = Clock()
    throttle = LogRateLimiter(clock.seconds)
    said = [throttle.passes(number, "bad") for number in range(5_000)]
    assert said == [""] * LINES_PER_SECOND + [None] * (5_000 - LINES_PER_SECOND)
    assert throttle.passes(4_999, "bad") is None
    assert len(throttle._lines) == LINES_PER_SECOND, "those that are left out are remembered by the kind only"
    assert throttle.passes(0, "late") == "", "another kind has its own"
    clock.advance(1)
    assert throttle.passes("a", "bad") == " (and 4,951 more of this kind from 4,950 peers)"
    assert throttle.passes("b", "bad") == ""
    clock.advance(1)
    assert throttle.passes("b", "bad") == "", "what was told is told once"
