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

The reactor is an argument; this package does not install one.  It knows the methods
of the `.capnp` files and the RPC protocol, and nothing of the server.  Start reading
at `connect`, then `service` for reconnecting and `protocol` for one connection.
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
from queueber.client.connect import Tls, connect
from queueber.client.errors import CallTimedOut, NotConnected, OutcomeUnknown, ReplyTooLong
from queueber.client.items import new_item
from queueber.client.queue import GIVE_BACK_MS, Batch, Queue
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
