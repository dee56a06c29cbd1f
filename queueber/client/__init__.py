"""
A client of Queueber for Twisted programs.

`connect` returns a `Client`, which has queues.  Their methods return Deferreds, to
be awaited or given callbacks:

    async with connect(reactor, "queueber://127.0.0.1/mail") as client:
        mail = client.queue()
        await mail.add(b"hello")
        async with await mail.poll() as item:
            print(item.contents)  # removed at the end of the block

The reactor is an argument; this package does not install one.  The calls, their
checks and the connection's rules are those of `client_core`; this package knows
Twisted.  Start reading at `connect`, then `service` and `protocol`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

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
from queueber.client.delivery import Batch, Item
from queueber.client.queue import Queue
from queueber.client_core.errors import CallTimedOut, LeaseLost, NotConnected, OutcomeUnknown, ReplyTooLong
from queueber.client_core.items import new_item
from queueber.client_core.options import Tls
from queueber.client_core.queue_calls import GIVE_BACK_MS
from queueber.values import ControlOutcome, ItemState

if TYPE_CHECKING:
    from queueber.client.session import Session
    from queueber.client.stream import Items
    from queueber.client_core.kept_session import SessionState

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

if not TYPE_CHECKING:
    # Type checkers would take every name for one that a module with `__getattr__` has.

    _MODULES = {
        "Items": "queueber.client.stream",
        "Session": "queueber.client.session",
        "SessionState": "queueber.client_core.kept_session",
    }
    """The modules of classes that the command line, which does without Twisted, does not use."""

    def __getattr__(name: str) -> type:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found: type = getattr(import_module(_MODULES[name]), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *_MODULES})
