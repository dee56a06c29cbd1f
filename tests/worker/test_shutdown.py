"""The life of a worker from its first stop on, by the table of `shutdown`."""

import pytest

from queueber.worker.policy import ENDING_SECONDS, FORCED_SECONDS, SETTLE_SECONDS
from queueber.worker.shutdown import Life, Shutdown

GRACE = 10.0


@pytest.fixture
def life():
    """A life that was stopped at 0."""
    made = Shutdown()
    assert made.state is Life.SERVING
    made.stop(GRACE, 0.0)
    assert made.state is Life.GRACE
    return made


def test_handlers_are_asked_to_end_once_when_the_grace_is_over(life):
    assert not life.cancels(GRACE - 0.1)
    assert [life.cancels(GRACE), life.cancels(GRACE)] == [True, False]
    assert life.state is Life.CANCELLING


def test_the_time_for_handlers_and_verdicts_has_an_end(life):
    end = GRACE + ENDING_SECONDS + SETTLE_SECONDS
    assert not life.ends(end - 0.1, handlers=1, verdicts=1)
    assert life.ends(end, handlers=1, verdicts=1)
    assert life.state is Life.ENDED


@pytest.mark.parametrize("asked", [False, True])
def test_verdicts_have_a_time_of_their_own_once_no_handler_has_an_item(life, asked):
    now = GRACE if asked else 1.0
    assert life.cancels(now) is asked
    assert not life.ends(now, handlers=0, verdicts=1)
    assert life.state is Life.SETTLING
    assert not life.ends(now + SETTLE_SECONDS - 0.1, handlers=0, verdicts=1)
    assert life.ends(now + SETTLE_SECONDS, handlers=0, verdicts=1)


def test_without_handlers_and_verdicts_it_ends_at_once(life):
    assert life.ends(0.0, handlers=0, verdicts=0)


def test_a_second_stop_shortens_the_time_and_does_not_ask_handlers(life):
    life.stop(GRACE, 1.0)
    assert life.state is Life.SETTLING
    assert not life.cancels(GRACE)
    assert not life.ends(1.0 + FORCED_SECONDS - 0.1, handlers=0, verdicts=1)
    assert life.ends(1.0 + FORCED_SECONDS, handlers=0, verdicts=1)


def test_a_stop_does_not_extend_the_time_and_changes_nothing_after_the_end(life):
    life.stop(GRACE, 1.0)
    life.stop(GRACE, 2.0)
    assert life.ends(1.0 + FORCED_SECONDS, handlers=0, verdicts=1)
    life.stop(GRACE, 3.0)
    assert life.state is Life.ENDED
