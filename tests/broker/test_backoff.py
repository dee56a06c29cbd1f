"""The wait after a failure."""

from hypothesis import given
from hypothesis import strategies as st

from queueber.broker.moves import backoff
from queueber.units import SpanMs


def longest(bound):
    return bound - 1


def waits(base, cap, count):
    return [backoff(each, SpanMs(base), SpanMs(cap), longest) for each in range(1, count + 1)]


def test_the_longest_wait_doubles_up_to_the_cap():
    assert waits(1_000, 7_500, 6) == [1_000, 2_000, 4_000, 7_500, 7_500, 7_500]


def test_a_base_above_the_cap_is_the_cap():
    assert waits(9, 5, 2) == [5, 5]


def test_with_a_base_of_0_there_is_no_wait():
    assert waits(0, 5, 3) == [0, 0, 0]


def test_no_number_of_failures_is_too_large():
    assert backoff(2**32, SpanMs(1), SpanMs(2**40), longest) == 2**40


@given(st.integers(1, 40), st.integers(0, 10_000), st.integers(0, 10**7), st.randoms(use_true_random=False))
def test_the_whole_wait_is_random(count, base, cap, random):
    asked = []

    def below(bound):
        asked.append(bound)
        return random.randrange(bound)

    wait = backoff(count, SpanMs(base), SpanMs(cap), below)

    assert asked == [min(cap, base * 2 ** (count - 1)) + 1]
    assert 0 <= wait < asked[0]
