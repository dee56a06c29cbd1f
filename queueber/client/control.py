"""Looking into a queue and changing it, for operators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from attrs import fields_dict

from queueber import api
from queueber.api import control as wire
from queueber.api import control_types as types
from queueber.api.control_types import (
    ConfigureRequest,
    ItemView,
    LeasesRequest,
    LeaseView,
    Listed,
    PauseRequest,
    PeekRequest,
    QueueCounts,
    QueueSettings,
    QueuesRequest,
    QueueSummary,
    Redriven,
    RedriveRequest,
    RescheduleRequest,
    SettingsInForce,
)
from queueber.client.arguments import (
    SPAN_MS_MAX,
    buffer,
    elements,
    flag,
    identifier,
    instance,
    integer,
    texts,
    utf_8,
    wrong,
)
from queueber.client.errors import failed
from queueber.client.routes import Control
from queueber.errors import InvalidRequest
from queueber.limits import LISTED_MAX
from queueber.units import WallMs
from queueber.values import ControlOutcome, DeathReason, ItemState

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from typing_extensions import Buffer

    from queueber.client.service import Connector

_SETTINGS: Final = fields_dict(QueueSettings)


class QueueControl:
    """
    One queue, for operators; no method leases an item.

    Methods return Deferreds, as those of queues do.  All fail with
    `Unimplemented` on a server that is older than this interface.
    """

    def __init__(self, connector: Connector, queue: str) -> None:
        """Created by `Client.control`."""
        self._connector = connector
        self._place = Control(queue)

    def __repr__(self) -> str:
        return f"<QueueControl {self._place.queue}>"

    def stats(self, *, exact: bool = False) -> Deferred[QueueCounts]:
        """
        Count the queue's items by their state, and their bytes.

        Ready and delayed items are given as bounds where they are not known.  With *exact* they are counted, which
        takes a while.
        """
        return self._call(types.STATS, lambda: flag("exact", exact))

    def settings(self) -> Deferred[SettingsInForce]:
        """Return the settings in force, and the names of those that were never configured."""
        return self._call(types.SETTINGS, lambda: None)

    def configure(self, *, reset: Iterable[str] = (), **changes: Any) -> Deferred[QueueSettings]:  # noqa: ANN401
        """
        Change the settings with these names, the fields of `QueueSettings`, and return all.

        Those whose names are in *reset* go back to the server's default.  `labels` may be a mapping.  Fails with
        `InvalidRequest` for an unknown name, or a value that cannot be had; nothing is changed then.
        """

        def request() -> ConfigureRequest:
            settings = QueueSettings(**{name: _setting(name, value) for name, value in changes.items()})
            return ConfigureRequest(names=list(changes), settings=settings, reset=_reset(reset))

        return self._call(types.CONFIGURE, request)

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

        def request() -> PeekRequest:
            return PeekRequest(
                state=None if state is None else instance("state", state, ItemState, "an ItemState"),
                after=buffer("after", after),
                limit=_limit(limit),
                contents_bytes=None
                if contents_bytes is None
                else integer("contents_bytes", contents_bytes, 1, SPAN_MS_MAX, "bytes"),
            )

        return self._call(types.PEEK, request)

    def get(self, item_id: Buffer) -> Deferred[ItemView | None]:
        """Return one item, wherever it is, with the reason why it waits; None if there is none."""
        return self._call(types.GET, lambda: identifier("item_id", item_id))

    def cancel(self, item_id: Buffer) -> Deferred[ControlOutcome]:
        """Remove an item that is not leased, for ever."""
        return self._call(types.CANCEL, lambda: identifier("item_id", item_id))

    def kick(self, item_id: Buffer) -> Deferred[ControlOutcome]:
        """Make a delayed item ready."""
        return self._call(types.KICK, lambda: identifier("item_id", item_id))

    def reschedule(self, item_id: Buffer, due_ms: int) -> Deferred[ControlOutcome]:
        """Move an item that is not leased to *due_ms*, milliseconds since the Unix epoch; to now if that has passed."""

        def request() -> RescheduleRequest:
            due = WallMs(integer("due_ms", due_ms, 0, SPAN_MS_MAX, "ms"))
            return RescheduleRequest(id=identifier("item_id", item_id), due_ms=due)

        return self._call(types.RESCHEDULE, request)

    def purge(self, *, dead: bool = False) -> Deferred[int]:
        """Remove all ready and delayed items, or with *dead* the dead ones; return how many."""
        return self._call(types.PURGE, lambda: flag("dead", dead))

    def pause(self, *, adds: bool = False, polls: bool = True) -> Deferred[None]:
        """Refuse *adds*, or hand out nothing to *polls*, until `resume`."""
        return self._call(types.PAUSE, lambda: PauseRequest(adds=flag("adds", adds), polls=flag("polls", polls)))

    def resume(self, *, adds: bool = True, polls: bool = True) -> Deferred[None]:
        """End a pause of *adds*, or of *polls*."""
        return self._call(types.RESUME, lambda: PauseRequest(adds=flag("adds", adds), polls=flag("polls", polls)))

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

        def request() -> RedriveRequest:
            return RedriveRequest(
                ids=[identifier(f"ids[{at}]", each) for at, each in enumerate(elements("ids", ids, "a list of ids"))],
                reason=instance("reason", reason, DeathReason, "a DeathReason"),
                limit=_limit(limit),
                to=utf_8("to", to),
            )

        return self._call(types.REDRIVE, request)

    def leases(self, *, after: Buffer = b"", limit: int = LISTED_MAX) -> Deferred[Listed[LeaseView]]:
        """Show up to *limit* leases on items of this queue, from the first above the handle *after*."""
        return self._call(types.LEASES, lambda: LeasesRequest(after=buffer("after", after), limit=_limit(limit)))

    def end_lease(self, lease: Buffer) -> Deferred[bool]:
        """End the lease with this handle or id now, as if it had run out; return whether there was one."""
        return self._call(types.END_LEASE, lambda: buffer("lease", lease))

    def delete(self, *, force: bool = False) -> Deferred[ControlOutcome]:
        """Delete the queue with its settings and dead items; without *force* only one without items and polls."""
        return self._call(types.DELETE, lambda: flag("force", force))

    def _call(self, method: int, request: Any) -> Deferred[Any]:  # noqa: ANN401
        """Make a call with the parameters that the function *request* returns, or fail with what it raises."""
        try:
            content = wire.write_control_request(method, request())
        except InvalidRequest as why:
            return failed(why)
        return self._connector.call(
            self._place,
            method,
            content,
            lambda results: wire.read_control_response(method, results),
            types.CONTROL_INTERFACE_ID,
            wait_ms=None if method == types.STATS else 0,
        )


def list_queues(
    connector: Connector, prefix: str, label: tuple[str, str] | None, after: str, limit: int
) -> Deferred[Listed[QueueSummary]]:
    """Make the call of `Client.queues`."""
    try:
        request = QueuesRequest(
            prefix=utf_8("prefix", prefix),
            label=None if label is None else texts("label", label, "a name and a value"),
            after=utf_8("after", after),
            limit=_limit(limit),
        )
    except InvalidRequest as why:
        return failed(why)
    content = wire.write_queues_request(request)
    return connector.call(None, api.QUEUES, content, wire.read_queues_response, api.BROKER_INTERFACE_ID)


def _limit(limit: int) -> int:
    return integer("limit", limit, 1, LISTED_MAX, "elements")


def _reset(names: Iterable[str]) -> list[str]:
    """
    Return *names* as a list.

    Raises:
        InvalidRequest: one of them is no setting.
    """
    found = elements("reset", names, "a list of names")
    if not all(isinstance(name, str) and name in _SETTINGS for name in found):
        raise wrong("reset", found, "a list of fields of QueueSettings")
    return found


def _setting(name: str, value: Any) -> Any:  # noqa: ANN401
    """
    Return *value* for the setting *name*.

    Raises:
        InvalidRequest: there is no such setting, or it is of another type.
    """
    if name not in _SETTINGS:
        raise InvalidRequest(f"there is no setting {name}; it must be one of {', '.join(_SETTINGS)}")
    if name == "labels":
        pairs = list(value.items()) if isinstance(value, Mapping) else value
        return tuple(
            texts(f"labels[{at}]", each, "a name and a value")
            for at, each in enumerate(elements(name, pairs, "a mapping of names to values"))
        )
    if isinstance(_SETTINGS[name].default, bool):
        return flag(name, value)
    most = (1 << 32) - 1 if name == "max_attempts" else SPAN_MS_MAX
    return integer(name, value, 0, most, "ms" if name.endswith("_ms") else "pieces")
