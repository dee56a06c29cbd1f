"""The facts of an item as the interface has them."""

from queueber import api
from queueber.broker import Item
from queueber.broker.model import Facts

_NO_FACTS = Facts()


def delivery_facts(item: Item) -> api.DeliveryFacts:
    """Return the facts of *item* before its present lease, if it has one."""
    facts = item.facts or _NO_FACTS
    return api.DeliveryFacts(
        failures=facts.failures,
        losses=max(item.attempts - facts.failures, 0),
        first_leased_at=facts.first_leased_at,
        last_error=facts.last_error,
        headers=facts.headers,
        death=facts.death,
    )
