"""The stock of an iteration."""

import pytest

from queueber.api import Action, Outcome, PolledItem, Settled, Settlement, SettleResponse
from queueber.client_core.delivery import Delivered, DeliveredBatch
from queueber.client_core.held_leases import HeldLeases
from queueber.client_core.prefetch import Prefetch, passes
from queueber.errors import InvalidRequest, Overloaded, Stopping, Unimplemented

LEASE = b"l" * 16
EXTENSION = Settlement(LEASE, b"", Action.EXTEND)
EXTENDED = SettleResponse(settled=[Settled(Outcome.DONE)], changed=True)


class Time:
    now = 100.0

    def __call__(self):
        return self.now


def batch(count, *, session=False):
    items = [Delivered(PolledItem(b"", bytes([at]) * 16, 1, 1), LEASE) for at in range(count)]
    return DeliveredBatch(items, LEASE, 1, session)


@pytest.mark.parametrize(
    ("count", "stocked", "wanted"), [(0, 0, 1), (0, 1, 0), (1, 0, 1), (1, 1, 0), (10, 0, 10), (10, 5, 5), (10, 6, 0)]
)
def test_it_is_filled_when_half_of_it_is_gone(count, stocked, wanted):
    stock = Prefetch(count, 1_000, Time())
    stock.put(batch(stocked))
    assert stock.wanted() == wanted


def test_items_whose_lease_may_have_ended_are_left_out():
    time = Time()
    stock = Prefetch(10, 10_000, time)
    stock.put(batch(2))
    time.now += 8.5
    assert stock.take().id == bytes(16)
    stock.put(batch(1))
    time.now += 1
    assert stock.take().id == bytes(16)
    assert stock.take() is None


def test_an_item_of_a_session_lives_as_long_as_its_lease_is_held():
    time, held = Time(), HeldLeases()
    stock = Prefetch(10, 10_000, time, held)
    held.hold("session", LEASE, [bytes(16), b"\1" * 16])
    stock.put(batch(2, session=True))
    time.now += 1_000
    assert stock.take().id == bytes(16)
    held.forget(LEASE)
    assert stock.take() is None


def test_an_extension_of_its_lease_keeps_an_item_of_a_session_in_stock():
    held = HeldLeases()
    stock = Prefetch(10, 10_000, Time(), held)
    for extend in (held.after_extend, lambda lease, _: held.after_settle([EXTENSION], lambda _: EXTENDED)):
        held.hold("session", LEASE, [bytes(16), b"\1" * 16])
        stock.put(batch(1, session=True))
        extend(LEASE, lambda _: True)(None)
        assert held.of("session") == []
        assert stock.take().id == bytes(16)
        assert (held.forget(LEASE, bytes(16)), LEASE in held) == (True, True)
        assert (held.forget(LEASE, b"\1" * 16), LEASE in held) == (True, False)


def test_an_extension_that_came_too_late_drops_its_items():
    held = HeldLeases()
    stock = Prefetch(10, 10_000, Time(), held)
    held.hold("session", LEASE, [bytes(16)])
    stock.put(batch(1, session=True))
    held.after_extend(LEASE, lambda _: False)(None)
    assert stock.take() is None


def test_an_item_of_a_session_that_the_program_keeps_is_handed_out():
    stock = Prefetch(10, 10_000, Time())
    stock.put(batch(1, session=True))
    assert stock.take() is not None


def test_what_is_left_is_given_back():
    stock = Prefetch(10, 10_000, Time())
    stock.put(batch(2))
    stock.take()
    assert stock.give_back() == [Settlement(LEASE, b"\1" * 16, Action.DEFER)]
    assert stock.give_back() == []


def test_errors_that_pass():
    assert passes(Stopping("x"))
    assert passes(Overloaded("x"))
    assert not passes(Unimplemented("x"))
    assert not passes(InvalidRequest("x"))
