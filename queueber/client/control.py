"""The methods for operators: looking into a queue, and changing it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from queueber.api.control_types import (
    ItemView,
    LeaseView,
    Listed,
    QueueCounts,
    QueueSettings,
    Redriven,
    SettingsInForce,
)
from queueber.client_core.control_calls import ControlCalls
from queueber.fixed_limits import LISTED_MAX
from queueber.values import ControlOutcome, DeathReason, ItemState

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from typing_extensions import Buffer

    from queueber.client.service import Connector


class QueueControl:
    """
    The methods for operators of one queue.  None of them leases an item.

    Methods return Deferreds, as those of queues do.  All fail with
    `Unimplemented` on a server that is older than this interface.
    """

    def __init__(self, connector: Connector, queue: str) -> None:
        """Created by `Client.control`."""
        self._start = connector.start
        self._calls = ControlCalls(queue)
        self.name = queue
        """The queue's name."""

    def __repr__(self) -> str:
        return f"<QueueControl {self.name}>"

    def stats(self, *, exact: bool = False) -> Deferred[QueueCounts]:
        """
        Count the queue's items by their state, and their bytes.

        Ready and delayed items are given as bounds where they are not known.  With *exact* they are counted, which
        takes a while.
        """
        return self._start(lambda: self._calls.stats(exact=exact))

    def settings(self) -> Deferred[SettingsInForce]:
        """Return the settings in force, and the names of those that were never configured."""
        return self._start(self._calls.settings)

    def configure(self, *, reset: Iterable[str] = (), **changes: Any) -> Deferred[QueueSettings]:  # noqa: ANN401
        """
        Change the settings with these names, the fields of `QueueSettings`, and return all.

        Settings named in *reset* get the server's default again.  `labels` may be a mapping.  Fails with
        `InvalidRequest` for an unknown name, or an invalid value; nothing is changed then.
        """
        return self._start(lambda: self._calls.configure(reset=reset, **changes))

    def peek(
        self,
        state: ItemState | None = None,
        *,
        after: Buffer = b"",
        limit: int = 10,
        contents_bytes: int | None = None,
    ) -> Deferred[Listed[ItemView]]:
        """
        Show up to *limit* items, at most 1,000, in the order in which they become due.

        *state* is `READY`, `DELAYED` or `DEAD`; None for ready and delayed items.  *after* is the `place` of the last
        item that was seen.  *contents_bytes* cuts off the contents; None for all.
        """
        return self._start(lambda: self._calls.peek(state, after=after, limit=limit, contents_bytes=contents_bytes))

    def get(self, item_id: Buffer) -> Deferred[ItemView | None]:
        """Return one item, wherever it is, with the reason why it waits; None if there is none."""
        return self._start(lambda: self._calls.get(item_id))

    def cancel(self, item_id: Buffer) -> Deferred[ControlOutcome]:
        """Remove an item that is not leased, for ever."""
        return self._start(lambda: self._calls.cancel(item_id))

    def kick(self, item_id: Buffer) -> Deferred[ControlOutcome]:
        """Make a delayed item ready."""
        return self._start(lambda: self._calls.kick(item_id))

    def reschedule(self, item_id: Buffer, due_ms: int) -> Deferred[ControlOutcome]:
        """Move an item that is not leased to *due_ms*, milliseconds since the Unix epoch; to now if that has passed."""
        return self._start(lambda: self._calls.reschedule(item_id, due_ms))

    def purge(self, *, dead: bool = False) -> Deferred[int]:
        """Remove all ready and delayed items, or with *dead* the dead ones; return how many."""
        return self._start(lambda: self._calls.purge(dead=dead))

    def pause(self, *, adds: bool = False, polls: bool = True) -> Deferred[None]:
        """Refuse *adds*, or deliver nothing to *polls*, until `resume`."""
        return self._start(lambda: self._calls.pause(adds=adds, polls=polls))

    def resume(self, *, adds: bool = True, polls: bool = True) -> Deferred[None]:
        """End a pause of *adds*, or of *polls*."""
        return self._start(lambda: self._calls.resume(adds=adds, polls=polls))

    def redrive(
        self,
        ids: Iterable[Buffer] = (),
        *,
        reason: DeathReason = DeathReason.NONE,
        limit: int = LISTED_MAX,
        to: str = "",
    ) -> Deferred[Redriven]:
        """
        Move up to *limit* dead items, at most 1,000, to the queue *to*, or back to this one.

        Only those in *ids* if there are any, and only those that died of *reason* unless it is `NONE`.
        """
        return self._start(lambda: self._calls.redrive(ids, reason=reason, limit=limit, to=to))

    def leases(self, *, after: Buffer = b"", limit: int = LISTED_MAX) -> Deferred[Listed[LeaseView]]:
        """Show up to *limit* leases on items of this queue, from the first above the handle *after*."""
        return self._start(lambda: self._calls.leases(after=after, limit=limit))

    def end_lease(self, lease: Buffer) -> Deferred[bool]:
        """End the lease with this handle or id now, as if it had expired; return whether there was one."""
        return self._start(lambda: self._calls.end_lease(lease))

    def delete(self, *, force: bool = False) -> Deferred[ControlOutcome]:
        """Delete the queue with its settings and dead items; without *force* only one without items and polls."""
        return self._start(lambda: self._calls.delete(force=force))
