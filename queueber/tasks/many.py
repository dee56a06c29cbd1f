"""
Adds of many calls at once, in one commit: `Tasks.add_many`, and its twins for asyncio and Twisted.

    app.add_many(greet.call(name) for name in names)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from queueber.client_core.arguments import elements, instance
from queueber.client_core.items import with_headers
from queueber.errors import InvalidRequest
from queueber.tasks.connections import AppConnections
from queueber.tasks.task import Added, ToAdd

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

_WANTED = "calls, which the method call of a task returns"


def checked_calls(connections: AppConnections, calls: Iterable[ToAdd]) -> list[ToAdd]:
    """
    Return *calls* as a list.

    Raises:
        InvalidRequest: one is no call of a task, or is of an app with other *connections*, or they are for several
            queues.
    """
    found = elements("calls", calls, _WANTED)
    for at, each in enumerate(found):
        instance(f"calls[{at}]", each, ToAdd, "what the method call of a task returns")
        if each.producer is not connections:
            raise InvalidRequest(f"calls[{at}] is of a task of another app, which adds it to its own server")
        if each.queue != found[0].queue:
            raise InvalidRequest(
                f"calls[{at}] is for queue {each.queue!r}, and calls[0] for {found[0].queue!r}; "
                "the calls of one add are for one queue"
            )
    return found


def with_context(calls: list[ToAdd], context: Mapping[str, bytes]) -> list[ToAdd]:
    """
    Return *calls*, whose items carry the headers *context* of the span that adds them.

    Raises:
        InvalidRequest: the headers of an item exceed a limit.
    """
    if not context:
        return calls
    return [call._replace(item=with_headers(call.item, context)) for call in calls]


class AioApp:
    """`add_many` as a coroutine for asyncio."""

    def __init__(self, connections: AppConnections) -> None:
        self._connections = connections

    async def add_many(self, calls: Iterable[ToAdd]) -> list[Added]:
        """Add calls, as `Tasks.add_many` does, without blocking the loop."""
        found = checked_calls(self._connections, calls)
        if not found:
            return []
        with self._connections.publishing(found[0].queue, len(found)) as context:
            return await self._connections.add_many_aio(with_context(found, context))


class TxApp:
    """`add_many` with a Deferred for Twisted."""

    def __init__(self, connections: AppConnections) -> None:
        self._connections = connections

    def add_many(self, calls: Iterable[ToAdd]) -> Deferred[list[Added]]:
        """Add calls, as `Tasks.add_many` does.  Errors of calls are raised, those of the server are in the Deferred."""
        from twisted.internet.defer import succeed  # noqa: PLC0415

        found = checked_calls(self._connections, calls)
        if not found:
            return succeed([])
        with self._connections.publishing(found[0].queue, len(found)) as context:
            return self._connections.add_many_tx(with_context(found, context))
