"""
A client of Queueber for asyncio programs.

`connect` returns a `Client`, which has queues.  Their methods are coroutines:

    async with connect("queueber://127.0.0.1:9090/mail") as client:
        mail = client.queue()
        await mail.add(b"hello")
        async with await mail.poll() as item:
            print(item.contents)

Any event loop of asyncio's interface will do, uvloop too.  Knows no Twisted and no
thread; names, arguments, results and errors are those of `queueber.client` and
`queueber.sync`.  Start at `client` for the surface, then `connector` for the connection.
"""

from queueber.aio.client import Client, connect
from queueber.aio.items import Batch, Item, Items
from queueber.aio.queue import Queue
from queueber.aio.session import Session
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
from queueber.client_core.errors import CallTimedOut, LeaseLost, NotConnected, OutcomeUnknown, ReplyTooLong
from queueber.client_core.items import new_item
from queueber.client_core.kept_session import SessionState
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
    "Item",
    "ItemState",
    "Items",
    "LeaseLost",
    "NewItem",
    "NotConnected",
    "Outcome",
    "OutcomeUnknown",
    "PolledItem",
    "Queue",
    "ReplyTooLong",
    "ServerLimits",
    "Session",
    "SessionState",
    "Settled",
    "Settlement",
    "Tls",
    "connect",
    "new_item",
]
