"""
Every decision about items, leases and waiting polls.

`Broker` decides and returns a `Plan`.  A `Store` makes the plan's writes
durable, and then its reply may be sent.  Nothing here does I/O, reads a clock
or draws a random number.  Start at `broker`, then `claims`.
"""

from queueber.broker.adds import Ids
from queueber.broker.allocation import ClaimBounds
from queueber.broker.broker import Broker
from queueber.broker.claims import Delivery
from queueber.broker.leases import Lease
from queueber.broker.model import Item, ItemId, Key, LeaseId, TimeMark
from queueber.broker.plans import Plan
from queueber.broker.queue import Queue, Refill
from queueber.broker.session_table import Session
from queueber.broker.stats import Stats
from queueber.broker.storage import Scan, Store, StoreStalled, Write
from queueber.broker.waiter import Peer, Waiter

__all__ = [
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
    "Session",
    "Stats",
    "Store",
    "StoreStalled",
    "TimeMark",
    "Waiter",
    "Write",
]
