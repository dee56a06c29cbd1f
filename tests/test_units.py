"""Numbers as people read them."""

import pytest

from queueber.units import counted


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 items"), (1, "1 item"), (2, "2 items"), (1_000, "1,000 items"), (1_001, "1,001 items")]
)
def test_one_is_singular(number, said):
    assert counted(number, "item") == said


def test_a_plural_may_be_irregular():
    assert [counted(number, "delivery", "deliveries") for number in (1, 2)] == ["1 delivery", "2 deliveries"]
