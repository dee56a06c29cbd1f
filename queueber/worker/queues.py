"""The argument `queue` of a worker: URLs, or queues of any client, one or several."""

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from queueber.client_core.address import TcpAddress
from queueber.client_core.queue_calls import checked_name
from queueber.client_core.routes import Place
from queueber.client_core.url import Target, target_of
from queueber.errors import InvalidRequest
from queueber.fixed_limits import POLL_ANY_QUEUES_MAX, WEIGHT_MAX
from queueber.values import DEFAULT_QUEUE
from queueber.worker.source import QueueSource

_WANTED = "a queueber:// URL or a Queue, or a list of them, or a mapping from them to weights"


@frozen
class ResolvedQueues:
    """The server and the queues of a worker."""

    target: Target
    source: QueueSource

    @property
    def server(self) -> tuple[str, int] | None:
        """The host and port, unless it is a Unix socket."""
        address = self.target.address
        return (address.host, address.port) if isinstance(address, TcpAddress) else None


def resolve(queue: object, names: Iterable[str] | Mapping[str, int] | None, *, strict: bool) -> ResolvedQueues:
    """
    Return the server of *queue*, and its queues, or the ones with these *names*.

    Raises:
        InvalidRequest: an argument is of the wrong type, or the queues are on several servers.
    """
    if names is not None:
        target, _ = _one(queue)
        return ResolvedQueues(target, _several(names, strict=strict))
    # A queue of a client is iterable itself: over its items.
    if isinstance(queue, Mapping | Iterable) and not isinstance(queue, str | bytes) and not hasattr(queue, "target"):
        return _of_many(queue, strict=strict)
    target, place = _one(queue)
    if strict:
        raise InvalidRequest("strict is True; it needs several queues")
    return ResolvedQueues(target, QueueSource(place))


def _of_many(queues: Mapping[Any, int] | Iterable[Any], *, strict: bool) -> ResolvedQueues:
    each = list(queues)
    if not each:
        raise InvalidRequest(f"queue is empty; it must be {_WANTED}")
    found = [_one(one) for one in each]
    first = found[0][0]
    names: list[str] = []
    for target, place in found:
        if (target.address, target.options) != (first.address, first.options):
            raise InvalidRequest(f"the queues are on several servers, {first.name} and {target.name}; a worker has one")
        if not isinstance(place, str | None):
            raise InvalidRequest("dead items cannot be polled together with other queues")
        names.append(place or DEFAULT_QUEUE)
    weights = dict(zip(names, queues.values(), strict=True)) if isinstance(queues, Mapping) else names
    return ResolvedQueues(first, _several(weights, strict=strict))


def _several(names: Iterable[str] | Mapping[str, int], *, strict: bool) -> QueueSource:
    """
    Return the source of the queues with these names, or names and weights.

    Raises:
        InvalidRequest: there are none or too many, one is there twice, or a name or a weight is invalid.
    """
    if isinstance(names, str | bytes) or not isinstance(names, Iterable):
        raise InvalidRequest(f"queues is {names!r}; it must be names of queues, or a mapping from names to weights")
    each = [checked_name(name) for name in names]
    if not 1 <= len(each) <= POLL_ANY_QUEUES_MAX:
        raise InvalidRequest(f"queues is {len(each)} queues; it must be 1 to {POLL_ANY_QUEUES_MAX}")
    if len(set(each)) < len(each):
        raise InvalidRequest(f"queues has {next(name for name in each if each.count(name) > 1)!r} twice")
    weights = dict(names) if isinstance(names, Mapping) else dict.fromkeys(each, 1)
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= WEIGHT_MAX:
            raise InvalidRequest(f"queues[{name!r}] is {weight!r}; it must be a weight of 1 to {WEIGHT_MAX:,}")
    if len(each) == 1:
        return QueueSource(each[0])
    return QueueSource(None, weights, strict)


def _one(queue: object) -> tuple[Target, Place]:
    """Return the server and the place of *queue*, a URL or a queue of any client."""
    if isinstance(queue, str):
        target = target_of(queue)
        return target, target.queue
    of_queue, place = getattr(queue, "target", None), getattr(queue, "place", None)
    if not isinstance(of_queue, Target):
        raise InvalidRequest(f"queue is {queue!r}; it must be {_WANTED}")
    return of_queue, place
