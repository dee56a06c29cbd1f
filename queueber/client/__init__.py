"""
A client of Queueber for Twisted programs.

`connect` returns a `Client`, which has queues.  Their methods return Deferreds, to
be awaited or given callbacks:

    client = connect(reactor, "127.0.0.1:9090")
    mail = client.queue("mail")
    await mail.add(b"hello")
    batch = await mail.poll()
    for item in batch.items:
        await mail.remove(item.id, batch.lease)
    await client.close()

The reactor is an argument; this package does not install one.  The calls, their
checks and the connection's rules are those of `client_core`; this package knows
Twisted.  Start reading at `connect`, then `service` and `protocol`.
"""

from queueber.api import (
    Action,
    AddTo,
    DeathReason,
    DeliveryFacts,
    NewItem,
    Outcome,
    PolledItem,
    ServerLimits,
    Settled,
    Settlement,
)
from queueber.client.client import Client
from queueber.client.connect import connect
from queueber.client.queue import Batch, Queue
from queueber.client_core.errors import CallTimedOut, NotConnected, OutcomeUnknown, ReplyTooLong
from queueber.client_core.items import new_item
from queueber.client_core.options import Tls
from queueber.client_core.queue_calls import GIVE_BACK_MS
from queueber.values import ControlOutcome, ItemState

__all__ = [
    "GIVE_BACK_MS",
    "Action",
    "AddTo",
    "Batch",
    "CallTimedOut",
    "Client",
    "ControlOutcome",
    "DeathReason",
    "DeliveryFacts",
    "ItemState",
    "NewItem",
    "NotConnected",
    "Outcome",
    "OutcomeUnknown",
    "PolledItem",
    "Queue",
    "ReplyTooLong",
    "ServerLimits",
    "Settled",
    "Settlement",
    "Tls",
    "connect",
    "new_item",
]
