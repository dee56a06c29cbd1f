"""The verdicts of handlers, and the texts of their errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from queueber.errors import InvalidRequest
from queueber.fixed_limits import ERROR_BYTES_MAX
from queueber.values import Action, AddTo
from queueber.worker.verdicts import (
    REMOVE,
    Defer,
    Done,
    Fail,
    Reject,
    Verdict,
    bounded,
    error_text,
    verdict_of,
    verdict_of_error,
)


def raised(error):
    try:
        raise error  # noqa: TRY301
    except BaseException as why:  # noqa: BLE001
        return why


def deep(depth):
    if depth:
        return deep(depth - 1)
    raise ValueError("x" * 10)


class TestText:
    def test_the_exception_comes_first_and_then_the_last_lines_of_its_traceback(self):
        first, empty, *lines = error_text(raised(ValueError("no picture"))).splitlines()
        assert (first, empty, lines[-1]) == ("ValueError: no picture", "", "ValueError: no picture")
        assert [line for line in lines if line.strip().startswith("raise error")]

    def test_a_deep_traceback_is_cut_at_its_far_end(self):
        try:
            deep(900)
        except ValueError as why:
            text = error_text(why)
        assert len(text.encode()) <= ERROR_BYTES_MAX
        assert text.startswith("ValueError: xxxxxxxxxx\n\n")
        assert text.endswith("ValueError: xxxxxxxxxx")

    @given(st.text(max_size=5_000))
    def test_a_text_of_any_length_fits(self, message):
        text = error_text(raised(KeyError(message)))
        assert len(text.encode()) <= ERROR_BYTES_MAX
        assert text.startswith("KeyError")

    def test_lone_surrogates_can_be_sent(self):
        assert error_text(raised(OSError("caf\udce9"))).startswith("OSError: caf?")
        assert bounded("caf\udce9") == "caf?"

    def test_an_exception_without_a_text_of_its_own(self):
        class Broken(Exception):
            def __str__(self):
                raise RuntimeError

        assert "Broken" in error_text(raised(Broken()))

    def test_a_cut_never_splits_a_character(self):
        assert bounded("é" * 5_000).encode()[:-6].decode()

    def test_groups_and_causes_are_there(self):
        try:
            try:
                deep(0)
            except ValueError as why:
                raise KeyError("no picture") from why
        except KeyError as why:
            text = error_text(why)
        assert "ValueError: xxxxxxxxxx" in text
        group = error_text(raised(ExceptionGroup("two", [ValueError("a"), TypeError("b")])))
        assert "ExceptionGroup: two (2 sub-exceptions)" in group


class TestVerdict:
    def test_what_a_handler_returns_means_nothing_unless_it_is_a_decision(self):
        assert [verdict_of(each) for each in (None, False, 3, "fail", ValueError())] == [REMOVE] * 5

    def test_a_class_of_decisions_is_one_without_arguments(self):
        assert [verdict_of(each) for each in (Reject, Defer, Fail, Done)] == [
            Verdict(Action.REJECT),
            Verdict(Action.DEFER, 1_000),
            Verdict(Action.FAIL),
            REMOVE,
        ]

    def test_code_that_has_not_run_is_an_error(self):
        async def coroutine():
            """Is not awaited."""

        async def numbers():
            yield 1

        for returned, text in [
            ((each for each in "ab"), "the handler returned generator, which was never iterated"),
            (numbers(), "the handler returned async_generator, which was never iterated"),
            (coroutine(), "the handler returned coroutine, which was not awaited"),
            (Deferred(), "the handler returned Deferred, which was not awaited"),
        ]:
            with pytest.raises(TypeError) as caught:
                verdict_of(returned)
            assert str(caught.value) == text

    def test_decisions(self):
        adds = [AddTo("next", [])]
        assert verdict_of(Reject("no")) == Verdict(Action.REJECT, None, "no")
        assert verdict_of(Defer()) == Verdict(Action.DEFER, 1_000)
        assert verdict_of(Defer(None)) == Verdict(Action.DEFER)
        assert verdict_of(Defer(2)) == Verdict(Action.DEFER, 2_000)
        assert verdict_of(Fail()) == Verdict(Action.FAIL)
        assert verdict_of(Fail(0.5, "later")) == Verdict(Action.FAIL, 500, "later")
        assert verdict_of(Done(adds)) == Verdict(Action.REMOVE, None, "", tuple(adds))
        assert verdict_of_error(Reject("no")) == verdict_of(Reject("no"))

    def test_a_long_text_of_a_decision_is_cut(self):
        assert len(Fail(text="é" * 5_000).verdict.error.encode()) <= ERROR_BYTES_MAX

    @pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), True, "5", None.__class__, 4e8])
    def test_a_delay_that_cannot_be_had_is_an_error_that_names_it(self, delay):
        with pytest.raises(InvalidRequest, match="the delay of Defer is"):
            Defer(delay)
        with pytest.raises(InvalidRequest, match="the delay of Fail is"):
            Fail(delay)

    def test_a_text_that_is_none_is_an_error_that_names_it(self):
        with pytest.raises(InvalidRequest, match="the text of Reject is int"):
            Reject(5)
