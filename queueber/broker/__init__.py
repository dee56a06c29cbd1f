"""
The queue as arithmetic: what happens to items, leases and waiting polls.

`Broker` decides and gives back a `Plan`; a `Store` makes the plan's writes
durable; its reply may be spoken then.  Nothing here does I/O, reads a clock
or draws a random number.
"""

from queueber.broker.broker import DEFAULT_QUEUE, Broker, Ids
from queueber.broker.claim import ClaimBounds
from queueber.broker.leases import Lease
from queueber.broker.model import Item, ItemId, Key, LeaseId, TimeMark
from queueber.broker.plans import Plan
from queueber.broker.polls import Delivery
from queueber.broker.queue import Queue, Refill
from queueber.broker.stats import Stats
from queueber.broker.storage import Scan, Store, StoreStalled, Write
from queueber.broker.waiter import Peer, Waiter

__all__ = [
    "DEFAULT_QUEUE",
    "Broker",
    "ClaimBounds",
    "Delivery",
    "Ids",
    "Item",
    "ItemId",
    "Key",
    "Lease",
    "LeaseId",
    "Peer",
    "Plan",
    "Queue",
    "Refill",
    "Scan",
    "Stats",
    "Store",
    "StoreStalled",
    "TimeMark",
    "Waiter",
    "Write",
]
