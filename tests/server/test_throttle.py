"""What a peer can make us write to the log."""

from twisted.internet.task import Clock

from queueber.server.throttle import Throttle


def test_one_line_a_second_for_each_peer_and_kind():
    clock = Clock()
    throttle = Throttle(clock.seconds)
    assert throttle.passes("a", "bad") == ""
    assert throttle.passes("b", "bad") == ""
    assert throttle.passes("a", "late") == ""
    assert [throttle.passes("a", "bad") for _ in range(1_500)] == [None] * 1_500
    clock.advance(1)
    assert throttle.passes("a", "bad") == " (and 1,500 more like it)"
    assert throttle.passes("b", "bad") == ""


def test_peers_that_have_gone_quiet_are_forgotten():
    clock = Clock()
    throttle = Throttle(clock.seconds)
    for number in range(1_000):
        throttle.passes(number, "bad")
    clock.advance(3)
    throttle.passes("a", "bad")
    assert len(throttle._lines) == 1
