"""Items, leases and queues as peers see them, made of the broker's state."""

from collections.abc import Mapping

import attrs

from queueber import api
from queueber.api import control_types as types
from queueber.broker import Broker, Item, ItemId, Key, Lease, Peer, Queue
from queueber.broker.control import Located, handle_of
from queueber.broker.leases import FOREVER
from queueber.broker.model import Facts
from queueber.broker.settings import QueueConfig
from queueber.broker.stats import Bounds
from queueber.errors import InvalidRequest
from queueber.fixed_limits import ID_BYTES
from queueber.units import WallMs
from queueber.values import ItemState

_NO_FACTS = Facts()
_IDS_MAX = 100
"""The most items of a lease that are named."""

_DUE_BYTES = 8
PLACE_BYTES = _DUE_BYTES + ID_BYTES


def place_of(key: Key) -> bytes:
    """Return the position of an item as peers see it."""
    return key.due.to_bytes(_DUE_BYTES, "big") + key.id


def key_at(place: bytes) -> Key:
    """
    Return the key at a position that `place_of` has returned.

    Raises:
        InvalidRequest: it is none.
    """
    if len(place) != PLACE_BYTES:
        raise InvalidRequest(f"after is {len(place)} bytes; the place of an item has {PLACE_BYTES}")
    return Key(WallMs(int.from_bytes(place[:_DUE_BYTES], "big")), ItemId(place[_DUE_BYTES:]))


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


def view_item(item: Item, state: ItemState, size: int, waits: types.Waits | None = None) -> types.ItemView:
    """Return *item*, whose whole contents are *size* bytes."""
    facts = item.facts or _NO_FACTS
    return types.ItemView(
        id=item.key.id,
        state=state,
        contents=item.contents,
        contents_bytes=size,
        added_at_ms=item.added_at,
        due_ms=item.key.due,
        attempts=item.attempts,
        facts=delivery_facts(item),
        expires_at_ms=facts.expires_at,
        place=place_of(item.key),
        waits=waits,
    )


def view_lease(lease: Lease, addresses: Mapping[Peer, str]) -> types.LeaseView:
    """Return *lease* without the right to its items; *addresses* are those of the open connections."""
    return types.LeaseView(
        handle=handle_of(lease.id),
        items=len(lease.keys),
        since_ms=lease.leased_at,
        deadline_ms=WallMs(0) if lease.deadline == FOREVER else lease.deadline,
        peer="" if lease.peer is None else addresses.get(lease.peer, ""),
        session=bool(lease.session),
        ids=list(lease.keys)[:_IDS_MAX],
    )


def view_located(broker: Broker, queue: Queue, located: Located, addresses: Mapping[Peer, str]) -> types.ItemView:
    """Return an item that was looked up in *queue*, and why it waits or who has it."""
    lease = located.lease
    waits = types.Waits(
        lease=None if lease is None else view_lease(lease, addresses),
        ahead=broker.control.ahead(located),
        queue_paused=queue.settings.polls_paused,
        leases_full=broker.leases.full,
        waiting_polls=len(broker.polls.waiters_of(located.line)),
    )
    return view_item(located.item, located.state, len(located.item.contents), waits)


def view_settings(settings: QueueConfig) -> types.QueueSettings:
    """Return the settings of a queue."""
    return types.QueueSettings(**attrs.asdict(settings, recurse=False))


def view_counts(queue: Queue, bounds: Bounds, counting: int = 0) -> types.QueueCounts:
    """Return the counts of *queue*; *bounds* are those of its unleased items, *counting* is a count's progress."""
    dead = queue.dead
    return types.QueueCounts(
        items=queue.items,
        bytes=queue.bytes,
        ready=bounds.ready,
        ready_max=bounds.ready_max,
        delayed=bounds.delayed,
        delayed_max=bounds.delayed_max,
        leased=len(queue.held),
        dead=0 if dead is None else dead.items,
        dead_bytes=0 if dead is None else dead.bytes,
        waiting_polls=len(queue.waiters),
        oldest_due_ms=bounds.oldest or WallMs(0),
        added=queue.added,
        removed=queue.removed,
        adds_paused=queue.settings.adds_paused,
        polls_paused=queue.settings.polls_paused,
        counting=counting,
    )
