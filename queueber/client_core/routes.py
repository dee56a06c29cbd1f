"""
Targets of the calls to each queue.

State model of a route
----------------------

1. REQUESTED  the object was requested from the server.  Calls are pipelined to
              the promised answer.
2. RESOLVED   the answer arrived.  Calls go to the object, and the question is
              finished.
3. FAILED     the answer was an error.  Calls made before it arrived fail with it.
              The next call requests the object again, except for the bootstrap object.
"""

from collections.abc import Callable
from typing import TypeAlias

from queueber import api, capnp, rpc
from queueber.client_core.errors import error_of
from queueber.errors import QueueberError

ROUTES_MAX = 1_000
"""Named queues that one connection keeps.  The server's limit is 10,000 by default."""

QUEUE_PATH = (capnp.layout("Broker.queue$Results").slots["queue"],)
"""The position of the queue in the results of `Broker.queue`."""

# The other methods that return an object have the same parameters and results.
assert capnp.layout("Broker.control$Params").slots == capnp.layout("Broker.queue$Params").slots
assert (capnp.layout("Broker.control$Results").slots["control"],) == QUEUE_PATH
assert (capnp.layout("Queue.deadLetters$Results").slots["queue"],) == QUEUE_PATH


class _OfQueue:
    """An object of one queue, which is equal to others of its class and queue."""

    __slots__ = ("queue",)

    def __init__(self, queue: str | None) -> None:
        self.queue = queue
        """The queue's name; None for the default queue."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.queue == self.queue

    def __hash__(self) -> int:
        return hash((type(self), self.queue))


class DeadLettersOf(_OfQueue):
    """The dead items of a queue."""

    __slots__ = ()


class ControlOf(_OfQueue):
    """The control of a queue."""

    __slots__ = ()
    queue: str


Place: TypeAlias = str | DeadLettersOf | ControlOf | None
"""An object of the server: a queue by its name, the object with another interface, or None for the default queue."""


class Route:
    """The target of calls to one object of the server."""

    __slots__ = ("called", "error", "parent", "target")

    def __init__(self, target: rpc.Target, parent: "Route | None" = None, called: tuple[int, int] = (0, 0)) -> None:
        self.target = target
        self.parent = parent
        """The route to the object that was asked for this one; None for the bootstrap object."""

        self.called = called
        """The interface and method that return the object; zeros for the bootstrap object."""

        self.error: QueueberError | None = None
        """The error with which the server answered the request for the object."""


class Routes:
    """The routes of one connection to the queues that it uses."""

    def __init__(self, connection: rpc.Connection) -> None:
        """Request the bootstrap object, which is the default queue and gives access to all others."""
        self._connection = connection
        self._named: dict[Place, Route] = {}
        self._requests: dict[rpc.QuestionId, tuple[Route, Place, Callable[[rpc.Results], rpc.ImportId]]] = {}

        question = self._connection.bootstrap()
        self._root = Route(rpc.PromisedAnswer(question, ()))
        self._requests[question] = self._root, None, api.read_bootstrap

    def to(self, place: Place) -> Route:
        """Return the route to *place*."""
        if place is None:
            return self._root
        route = self._named.pop(place, None)
        if route is None:
            self._evict_oldest()
            route = self._request(place)
        self._named[place] = route  # keeps the dictionary in order of use
        return route

    def _request(self, place: str | DeadLettersOf | ControlOf) -> Route:
        parent, called = self._root, (api.BROKER_INTERFACE_ID, api.QUEUE)
        if isinstance(place, DeadLettersOf):
            parent, called = self.to(place.queue), (api.QUEUE_INTERFACE_ID, api.DEAD_LETTERS)
            content = api.write_dead_letters_request()
        elif isinstance(place, ControlOf):
            called = api.BROKER_INTERFACE_ID, api.CONTROL
            content = api.write_queue_request(place.queue)
        else:
            content = api.write_queue_request(place)
        question = self._connection.call(parent.target, *called, content)
        route = Route(rpc.PromisedAnswer(question, QUEUE_PATH), parent, called)
        self._requests[question] = route, place, api.read_queue_response
        return route

    def _evict_oldest(self) -> None:
        """Drop the least recently used route if there are too many, unless it is not resolved yet."""
        if len(self._named) >= ROUTES_MAX:
            oldest = next(iter(self._named))
            target = self._named[oldest].target
            if isinstance(target, rpc.ImportedCap):
                del self._named[oldest]
                self._connection.release(target.id)

    def returned(self, event: rpc.Returned) -> bool:
        """
        Process the answer to a request for an object.  Return False if *event* answers another question.

        Raises:
            RemoteProtocolError: the answer is malformed.
        """
        request = self._requests.pop(event.question, None)
        if request is None:
            return False
        route, name, read = request
        if isinstance(event.outcome, rpc.Results):
            route.target = rpc.ImportedCap(read(event.outcome))
            # This client owns the reference until it releases it.
            self._connection.finish(event.question, release_result_caps=False)
            return True
        route.error = (route.parent and route.parent.error) or error_of(event.outcome, *route.called)
        if name is None:
            return True  # not finished: later calls go to it and fail with the same reason
        self._connection.finish(event.question)
        if self._named.get(name) is route:
            del self._named[name]
        return True
