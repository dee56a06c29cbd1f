"""The calls of a queue's control, for operators, with the checks of their arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from attrs import fields_dict

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
    Redriven,
    RedriveRequest,
    RescheduleRequest,
    SettingsInForce,
)
from queueber.client_core.arguments import (
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
from queueber.client_core.calls import Call, Resend
from queueber.client_core.routes import ControlOf
from queueber.errors import InvalidRequest
from queueber.fixed_limits import LISTED_MAX
from queueber.units import WallMs
from queueber.values import ControlOutcome, DeathReason, ItemState

if TYPE_CHECKING:
    from typing_extensions import Buffer

_SETTINGS: Final = fields_dict(QueueSettings)

_READS = {types.STATS, types.SETTINGS, types.PEEK, types.GET, types.LEASES}
"""The methods that change nothing."""


class ControlCalls:
    """The calls of one queue's control; errors are those of `QueueCalls`."""

    def __init__(self, queue: str) -> None:
        """Build calls of the control of *queue*, a checked name."""
        self._place = ControlOf(queue)

    def stats(self, *, exact: bool = False) -> Call[QueueCounts]:
        """Count the queue's items by their state."""
        return self._call(types.STATS, flag("exact", exact))

    def settings(self) -> Call[SettingsInForce]:
        """Return the settings in force."""
        return self._call(types.SETTINGS, None)

    def configure(self, *, reset: Iterable[str] = (), **changes: Any) -> Call[QueueSettings]:  # noqa: ANN401
        """Change the settings with these names, reset those in *reset* to the server's default, and return all."""
        settings = QueueSettings(**{name: _setting(name, value) for name, value in changes.items()})
        request = ConfigureRequest(names=list(changes), settings=settings, reset=_reset(reset))
        return self._call(types.CONFIGURE, request)

    def peek(
        self,
        state: ItemState | None = None,
        *,
        after: Buffer = b"",
        limit: int = 10,
        contents_bytes: int | None = None,
    ) -> Call[Listed[ItemView]]:
        """Show up to *limit* items in a *state*, after the place *after*."""
        request = PeekRequest(
            state=None if state is None else instance("state", state, ItemState, "an ItemState"),
            after=buffer("after", after),
            limit=_limit(limit),
            contents_bytes=None
            if contents_bytes is None
            else integer("contents_bytes", contents_bytes, 1, SPAN_MS_MAX, "bytes"),
        )
        return self._call(types.PEEK, request)

    def get(self, item_id: Buffer) -> Call[ItemView | None]:
        """Return one item with the reason why it waits; None if there is none."""
        return self._call(types.GET, identifier("item_id", item_id))

    def cancel(self, item_id: Buffer) -> Call[ControlOutcome]:
        """Remove an item that is not leased."""
        return self._call(types.CANCEL, identifier("item_id", item_id))

    def kick(self, item_id: Buffer) -> Call[ControlOutcome]:
        """Make a delayed item ready."""
        return self._call(types.KICK, identifier("item_id", item_id))

    def reschedule(self, item_id: Buffer, due_ms: int) -> Call[ControlOutcome]:
        """Move an item that is not leased to *due_ms*, a point in time."""
        due = WallMs(integer("due_ms", due_ms, 0, SPAN_MS_MAX, "ms"))
        return self._call(types.RESCHEDULE, RescheduleRequest(id=identifier("item_id", item_id), due_ms=due))

    def purge(self, *, dead: bool = False) -> Call[int]:
        """Remove all ready and delayed items, or the dead ones."""
        return self._call(types.PURGE, flag("dead", dead))

    def pause(self, *, adds: bool = False, polls: bool = True) -> Call[None]:
        """Refuse adds, or deliver nothing to polls."""
        return self._call(types.PAUSE, PauseRequest(adds=flag("adds", adds), polls=flag("polls", polls)))

    def resume(self, *, adds: bool = True, polls: bool = True) -> Call[None]:
        """End a pause."""
        return self._call(types.RESUME, PauseRequest(adds=flag("adds", adds), polls=flag("polls", polls)))

    def redrive(
        self,
        ids: Iterable[Buffer] = (),
        *,
        reason: DeathReason = DeathReason.NONE,
        limit: int = LISTED_MAX,
        to: str = "",
    ) -> Call[Redriven]:
        """Move up to *limit* dead items to the queue *to*, or back to this one."""
        request = RedriveRequest(
            ids=[identifier(f"ids[{at}]", each) for at, each in enumerate(elements("ids", ids, "a list of ids"))],
            reason=instance("reason", reason, DeathReason, "a DeathReason"),
            limit=_limit(limit),
            to=utf_8("to", to),
        )
        return self._call(types.REDRIVE, request)

    def leases(self, *, after: Buffer = b"", limit: int = LISTED_MAX) -> Call[Listed[LeaseView]]:
        """Show up to *limit* leases, from the first above the handle *after*."""
        return self._call(types.LEASES, LeasesRequest(after=buffer("after", after), limit=_limit(limit)))

    def end_lease(self, lease: Buffer) -> Call[bool]:
        """End the lease with this handle or id now; return whether there was one."""
        return self._call(types.END_LEASE, buffer("lease", lease))

    def delete(self, *, force: bool = False) -> Call[ControlOutcome]:
        """Delete the queue with its settings and dead items."""
        return self._call(types.DELETE, flag("force", force))

    def _call(self, method: int, request: Any) -> Call[Any]:  # noqa: ANN401
        """Return the call of *method* with its checked *request*."""
        return Call(
            self._place,
            types.CONTROL_INTERFACE_ID,
            method,
            wire.write_control_request(method, request),
            lambda results: wire.read_control_response(method, results),
            # A count may take long.
            None if method == types.STATS else 0,
            Resend.ALWAYS if method in _READS else Resend.NEVER,
        )


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
    return integer(name, value, 0, most, name.rpartition("_")[2])
