"""
The methods whose calls the broker decides into one plan: add, remove and extend.

One plan has the calls of one method and one queue.  They may be of several
connections, each with its share of the plan's replies.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

from attrs import frozen

from queueber import api, rpc
from queueber.broker import Broker, Plan, Queue
from queueber.errors import QueueberError
from queueber.limits import Limits
from queueber.server.core.replies import Replies, ReplySink
from queueber.units import KIB, WallMs

ITEM_BYTES: Final = 256
"""The least that an item counts in `request_bytes`: a thousand empty items fit in 32 bytes of a message."""

SHARED_BYTES: Final = 64 * KIB
"""Length of the messages whose calls are collected before they are decided; the message that passes it is the last."""

ITEM_MESSAGE_BYTES: Final = 8
"""The least that an item takes in a message."""


@frozen(eq=False)
class WriteMethod:
    """A method whose calls the broker decides into one plan."""

    name: str
    number: tuple[int, int]
    """The interface's id, and the method's number in it."""

    decide: Callable[[Broker], Callable[[Queue, Sequence[Any], WallMs], Plan[list[Any]]]]
    """Returns the broker's method that decides the requests."""

    read: Callable[[rpc.Calls, Limits], Any]
    """Returns the requests of calls that are still encoded in a list; of an add with keys without a list."""

    reply_types: frozenset[type]
    """Types of the replies to calls that are not refused."""

    encode: Callable[[Sequence[Any]], list[bytes]]
    """Returns the encoded results for replies of those types."""

    least_bytes: int | None
    """The least that a call counts in `request_bytes`; None if it counts nothing."""

    shared: bool
    """Whether one plan may have calls of several connections.  The writes of such a plan cost less than its calls."""


def _read_add(calls: rpc.Calls, limits: Limits) -> list[Sequence[api.NewItem]] | api.AddRequest:
    """Return a list of the only call's items, or its request if that has a request id or deduplication keys."""
    request = api.read_add_request(calls.params, limits)
    if request.request_id or any(item.options and item.options.dedup_key for item in request.items):
        return request
    return [request.items]


ADDS: Final = WriteMethod(
    "add",
    (api.QUEUE_INTERFACE_ID, api.ADD),
    attrgetter("add"),
    _read_add,
    frozenset({list}),
    api.write_add_responses,
    ITEM_BYTES,
    shared=True,
)
REMOVES: Final = WriteMethod(
    "remove",
    (api.QUEUE_INTERFACE_ID, api.REMOVE),
    attrgetter("remove"),
    api.read_remove_requests,
    frozenset({bool}),
    api.write_remove_responses,
    None,
    shared=True,
)
EXTENDS: Final = WriteMethod(
    "extend",
    (api.QUEUE_INTERFACE_ID, api.EXTEND),
    attrgetter("extend"),
    api.read_extend_requests,
    frozenset({bool}),
    api.write_extend_responses,
    0,
    shared=False,
)


class Share(NamedTuple):
    """The calls of one connection in a plan."""

    sink: ReplySink
    answers: list[rpc.AnswerId]
    sizes: list[int]
    """The part of each in `request_bytes`; for extends their sum, for removes empty."""


class Collected(NamedTuple):
    """Calls that are decided together."""

    method: WriteMethod
    queue: Queue
    requests: list[Any]
    shares: list[Share]
    began: float
    """When the first of them arrived."""


def release_unwritten(replies: Replies, shares: Sequence[Share], outcomes: Sequence[Any]) -> list[Share]:
    """
    Count adds that write nothing no longer in `request_bytes`, and return *shares* without their sizes.

    *outcomes* has the ids or the refusal of each add.  On their own, such adds would be answered at once, or wait only
    for the commits of others.
    """
    remaining = iter(outcomes)
    left: list[Share] = []
    for sink, answers, sizes in shares:
        written = []
        for size in sizes:
            outcome = next(remaining)
            if outcome and not isinstance(outcome, QueueberError):
                written.append(size)
        replies.release(sink.peer, sum(sizes) - sum(written))
        left.append(Share(sink, answers, written))
    return left


def reply_with_refusals(
    replies: Replies, method: WriteMethod, shares: Sequence[Share], seconds: float, outcomes: Sequence[Any]
) -> None:
    """Return *outcomes*, some of them refusals, to the connections of *shares* after that many seconds."""
    remaining = iter(outcomes)
    for sink, answers, _ in shares:
        returned: list[tuple[rpc.AnswerId, Any]] = []
        for answer, outcome in zip(answers, remaining, strict=False):
            if isinstance(outcome, QueueberError):
                replies.refuse(sink, answer, outcome, method.name)
            else:
                returned.append((answer, outcome))
        if returned:
            replies.stats.seconds[method.name].observe(seconds, len(returned))
            sink.results([answer for answer, _ in returned], method.encode([outcome for _, outcome in returned]))
