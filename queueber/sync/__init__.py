"""
A client of Queueber for blocking programs: scripts, threads, Django and Flask.

`connect` returns a `Client`, which has queues.  Their methods block until they are done:

    with connect("queueber://127.0.0.1:9090/mail") as client:
        mail = client.queue()
        mail.add(b"hello")
        with mail.poll() as item:
            print(item.contents)

Any thread may use a client, and so may a forked process.  Knows no event loop; names, arguments, results and errors are
those of `queueber.client` and `queueber.aio`.  Start at `client` for the surface, then
`connector` for threads and processes, and `io_thread` for the connection.
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
from queueber.client_core.errors import CallTimedOut, LeaseLost, NotConnected, OutcomeUnknown, ReplyTooLong
from queueber.client_core.items import new_item
from queueber.client_core.kept_session import SessionState
from queueber.client_core.options import Tls
from queueber.client_core.queue_calls import GIVE_BACK_MS
from queueber.sync.client import Client, connect
from queueber.sync.items import Batch, Item, Items
from queueber.sync.queue import Queue
from queueber.sync.session import Session
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
