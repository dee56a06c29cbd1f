"""
Where calls to each queue go.

State model of a route
----------------------

1. ASKED     the server was asked for the object.  Calls go to what the answer
             will hold.
2. RESOLVED  the answer came.  Calls go to the object, and the question is over.
3. FAILED    the answer was an error.  Calls that were made meanwhile fail with
             it; the next call asks again, except for the server's first object.
"""

from collections.abc import Callable

from attrs import define

from queueber import wire
from queueber.client.errors import error_of
from queueber.errors import QueueberError

ROUTES_MAX = 1_000
"""Named queues that one connection keeps; a server lets it hold 10,000."""

QUEUE_PATH = (wire.layout("Broker.queue$Results").slots["queue"],)
"""Where the results of `Broker.queue` hold the queue."""


@define(eq=False)
class Route:
    """The way to one object of the server."""

    target: wire.Target
    error: QueueberError | None = None
    """Why the object could not be had."""


class Routes:
    """The ways to all queues that calls of one connection were made to."""

    def __init__(self, connection: wire.Connection) -> None:
        self._connection = connection
        self._named: dict[str, Route] = {}
        self._asked: dict[wire.QuestionId, tuple[Route, str | None, Callable[[wire.Results], wire.ImportId]]] = {}

    def begin(self) -> None:
        """Ask for the server's first object, which is the default queue and leads to all others."""
        question = self._connection.bootstrap()
        self._root = Route(wire.PromisedAnswer(question, ()))
        self._asked[question] = self._root, None, wire.read_bootstrap

    def to(self, queue: str | None) -> Route:
        """The way to the queue named *queue*, or to the default one."""
        if queue is None:
            return self._root
        route = self._named.pop(queue, None)
        if route is None:
            self._make_room()
            route = self._ask(queue)
        self._named[queue] = route  # the one used last is the last
        return route

    def _ask(self, queue: str) -> Route:
        content = wire.write_queue_request(queue)
        question = self._connection.call(self._root.target, wire.BROKER_INTERFACE_ID, wire.QUEUE, content)
        route = Route(wire.PromisedAnswer(question, QUEUE_PATH))
        self._asked[question] = route, queue, wire.read_queue_response
        return route

    def _make_room(self) -> None:
        """Let the route that was not used for longest go, if there are too many and it is not still being asked for."""
        if len(self._named) >= ROUTES_MAX:
            oldest = next(iter(self._named))
            target = self._named[oldest].target
            if isinstance(target, wire.ImportedCap):
                del self._named[oldest]
                self._connection.release(target.id)

    def returned(self, event: wire.Returned) -> bool:
        """
        Take the answer to a question for an object; False if it is the answer to something else.

        Raises:
            RemoteProtocolError: the answer is malformed.
        """
        asked = self._asked.pop(event.question, None)
        if asked is None:
            return False
        route, name, read = asked
        if isinstance(event.outcome, wire.Results):
            route.target = wire.ImportedCap(read(event.outcome))
            # The reference is ours until it is released.
            self._connection.finish(event.question, release_result_caps=False)
            return True
        route.error = self._root.error or error_of(event.outcome)
        if name is None:
            return True  # left open: later calls are made to it, and fail with the same reason
        self._connection.finish(event.question)
        if self._named.get(name) is route:
            del self._named[name]
        return True
