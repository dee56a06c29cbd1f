"""Delivered items, and how the end of a context settles them."""

import asyncio

import pytest

from queueber.api import Action, DeliveryFacts, PolledItem, PollResponse
from queueber.client_core.delivery import Delivered, DeliveredBatch, exit_for, items_of, lease_lost, text_of
from queueber.errors import InvalidRequest
from queueber.fixed_limits import ERROR_BYTES_MAX
from queueber.values import Death, DeathReason

ID, LEASE = bytes(range(16)), b"l" * 16
FACTS = DeliveryFacts(2, 1, 77, "broken", (("user", b"ann"),), Death(DeathReason.LOST, 3, "mail"))


def test_an_item_has_its_facts_as_attributes():
    item = Delivered(PolledItem(b"x", ID, 3, 5), LEASE, FACTS)
    assert (item.id, item.contents, item.attempt, item.added_at, item.lease) == (ID, b"x", 3, 5, LEASE)
    assert (item.failures, item.losses, item.first_leased_at, item.last_error) == (2, 1, 77, "broken")
    assert item.headers == {"user": b"ann"}
    assert item.death is FACTS.death
    assert repr(item) == f"<Delivered {ID.hex()}, attempt 3>"


def test_items_get_the_facts_of_their_place():
    polled = [PolledItem(b"x", ID, 1, 1), PolledItem(b"y", ID, 1, 1)]
    for facts, expected in ((), [DeliveryFacts()] * 2), ((FACTS,), [FACTS, DeliveryFacts()]):
        items = items_of(PollResponse(polled, LEASE, 1, False, facts), Delivered)
        assert [(item.polled, item.lease, item.facts) for item in items] == [
            (each, LEASE, fact) for each, fact in zip(polled, expected, strict=True)
        ]


def test_a_batch_is_a_collection_that_does_not_show_its_lease():
    items = items_of(PollResponse([PolledItem(b"x", ID, 1, 1)] * 2, LEASE, 1), Delivered)
    batch = DeliveredBatch(items, LEASE, 1)
    assert (list(batch), len(batch), bool(batch), bool(DeliveredBatch(()))) == (list(items), 2, True, False)
    assert repr(LEASE) not in repr(batch)
    assert DeliveredBatch(items[:1]).only() is items[0]
    assert DeliveredBatch(()).only() is None
    with pytest.raises(InvalidRequest, match="the batch has 2 items"):
        batch.only()


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("error", "action", "text"),
    [
        (None, Action.REMOVE, ""),
        (ValueError("no picture"), Action.FAIL, "ValueError: no picture"),
        (ValueError(), Action.FAIL, "ValueError"),
        (Unprintable(), Action.FAIL, "Unprintable"),
        (ValueError("\ud800"), Action.FAIL, "ValueError: ?"),
        (asyncio.CancelledError(), Action.DEFER, ""),
        (KeyboardInterrupt(), Action.DEFER, ""),
        (SystemExit(1), Action.DEFER, ""),
        (GeneratorExit(), Action.DEFER, ""),
        (LookupError("cancelled here"), Action.DEFER, ""),
    ],
)
def test_the_end_of_a_context_settles_its_item(error, action, text):
    assert exit_for(error, (LookupError,)) == (action, text)


def test_a_long_text_is_cut_within_what_a_settlement_carries():
    text = text_of(ValueError("ü" * ERROR_BYTES_MAX))
    assert ERROR_BYTES_MAX - 1 <= len(text.encode()) <= ERROR_BYTES_MAX
    assert text.startswith("ValueError: üü")


def test_a_lost_lease_is_an_error_that_names_the_item():
    assert "00010203-0405-0607-0809-0a0b0c0d0e0f" in str(lease_lost(Delivered(PolledItem(b"", ID, 1, 1), LEASE)))
