"""
The Cap'n Proto RPC protocol between two parties, without I/O.

Pass bytes to `Connection.receive_data`, act on the events, and send what
`data_to_send` returns.  Knows no method of any interface: parameters and
results pass through as `Params` and bytes.  Start at `connection`, then
`callee` for calls that arrive, `caller` for calls that are made, `fastpath` for speed.
"""

from queueber.rpc.connection import Connection, ConnectionStats
from queueber.rpc.events import Aborted, Calls, Event, Finished, Released, Returned
from queueber.rpc.messages import (
    AnswerId,
    Canceled,
    ImportedCap,
    ImportId,
    Params,
    PromisedAnswer,
    QuestionId,
    RemoteException,
    Results,
    Target,
)
from queueber.rpc.patterns import TemplateReaders

__all__ = [
    "Aborted",
    "AnswerId",
    "Calls",
    "Canceled",
    "Connection",
    "ConnectionStats",
    "Event",
    "Finished",
    "ImportId",
    "ImportedCap",
    "Params",
    "PromisedAnswer",
    "QuestionId",
    "Released",
    "RemoteException",
    "Results",
    "Returned",
    "Target",
    "TemplateReaders",
]
