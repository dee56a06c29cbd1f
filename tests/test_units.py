"""Numbers and quantities as text."""

import pytest

from queueber.units import counted, measured


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 items"), (1, "1 item"), (2, "2 items"), (1_000, "1,000 items"), (1_001, "1,001 items")]
)
def test_one_is_singular(number, said):
    assert counted(number, "item") == said


def test_a_plural_may_be_irregular():
    assert [counted(number, "delivery", "deliveries") for number in (1, 2)] == ["1 delivery", "2 deliveries"]


def test_a_unit_is_singular_for_one_and_an_abbreviation_stays():
    assert [measured(number, "bytes") for number in (0, 1, 1_000)] == ["0 bytes", "1 byte", "1,000 bytes"]
    assert measured(1, "ms") == "1 ms"
