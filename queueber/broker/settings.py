# ruff: noqa: RUF009  (a call makes each field, as attrs has it)
"""
The settings of queues.

A queue has the server's defaults, but for the fields that were configured for
it.  Only these are on the disk, by the names that they have in
``queueber.capnp``, so that a change of the defaults reaches every queue that
was not configured otherwise.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from attrs import field, fields, frozen

from queueber.broker.storage import SettingFields, SettingValue
from queueber.errors import InvalidRequest
from queueber.units import YEAR, SpanMs, Unit, counted, quantity

SPAN_MAX: Final = SpanMs(100 * YEAR)
"""The longest span.  It keeps sums of points and spans far below 64 bits."""

_U32_MAX: Final = 2**32 - 1
_U64_MAX: Final = 2**64 - 1

LABELS_MAX: Final = 16
LABEL_BYTES_MAX: Final = 63

NOT_CONFIGURED: SettingFields = MappingProxyType({})


def _setting(default: Any, wire: str, high: int | None, unit: Unit = Unit.COUNT) -> Any:  # noqa: ANN401
    return field(default=default, metadata={"setting": (wire, high, unit)})


def _span(default: int, wire: str) -> Any:  # noqa: ANN401
    return _setting(default, wire, SPAN_MAX, Unit.MS)


@frozen(kw_only=True)
class Settings:
    """The settings of one queue, with the fields of the struct `Settings` of ``queueber.capnp``."""

    lease_ms: SpanMs = _span(0, "leaseMs")
    """The lease of a poll that gives none; 0: such a poll is refused."""

    max_lease_ms: SpanMs = _span(0, "maxLeaseMs")
    """The longest time for which one lease may be held, extensions included; 0: no bound but the server's."""

    max_attempts: int = _setting(0, "maxAttempts", _U32_MAX)
    """An item dies when this attempt fails or is lost; 0: never."""

    backoff_base_ms: SpanMs = _span(1_000, "backoffBaseMs")
    backoff_cap_ms: SpanMs = _span(3_600_000, "backoffCapMs")
    backoff_on_loss: bool = _setting(default=False, wire="backoffOnLoss", high=None)
    """Whether an item waits after its lease ended by itself."""

    max_items: int = _setting(0, "maxItems", _U64_MAX)
    """Items, leased ones included; 0: no bound."""

    max_bytes: int = _setting(0, "maxBytes", _U64_MAX, Unit.BYTES)
    """Contents of all items; 0: no bound."""

    max_item_bytes: int = _setting(0, "maxItemBytes", _U64_MAX, Unit.BYTES)
    """Contents of one item; 0: no bound but the server's."""

    ttl_ms: SpanMs = _span(0, "ttlMs")
    """The time from its add until an item expires, unless it says otherwise; 0: never."""

    drop_expired: bool = _setting(default=False, wire="dropExpired", high=None)
    """Whether expired items are removed instead of dying."""

    dead_ttl_ms: SpanMs = _span(0, "deadTtlMs")
    """The time from its death until a dead item is removed; 0: never."""

    dedup_window_ms: SpanMs = _span(300_000, "dedupWindowMs")
    idle_ttl_ms: SpanMs = _span(0, "idleTtlMs")
    """The time after which a queue without items, waiting polls and calls is deleted; 0: never."""

    labels: tuple[tuple[str, str], ...] = _setting((), "labels", None)
    """Names and values."""

    adds_paused: bool = _setting(default=False, wire="addsPaused", high=None)
    polls_paused: bool = _setting(default=False, wire="pollsPaused", high=None)

    def merged(self, configured: SettingFields) -> "Settings":
        """Return these settings, the defaults, with the *configured* fields of a queue."""
        values = {each.name: getattr(self, each.name) for each in fields(Settings)}
        values.update((FIELDS[wire], value) for wire, value in configured.items() if wire in FIELDS)
        return Settings(**values)

    @property
    def bounds_adds(self) -> bool:
        """Whether an add can be refused because of these settings."""
        return bool(self.max_items or self.max_bytes or self.max_item_bytes or self.adds_paused)


DEFAULT_SETTINGS: Final = Settings()

FIELDS: Final[Mapping[str, str]] = {each.metadata["setting"][0]: each.name for each in fields(Settings)}
"""The attributes of `Settings` by the schema's names of the fields."""

READ_ONLY: Final = frozenset({"addsPaused", "pollsPaused"})
"""Fields that `configure` does not change, but `pause` and `resume`."""

_RANGES: Final = {each.metadata["setting"][0]: each.metadata["setting"] for each in fields(Settings)}


def check_changes(changes: SettingFields) -> None:
    """
    Check settings that are to be configured, by the schema's names.

    Raises:
        InvalidRequest: names the field, the limit and the value.
    """
    for wire, value in changes.items():
        if wire not in FIELDS:
            raise InvalidRequest(f"fields has {wire!r}, which is no setting; settings are {', '.join(FIELDS)}")
        if wire in READ_ONLY:
            raise InvalidRequest(f"fields has {wire}, which only pause and resume change")
        _check(wire, value)


def _check(wire: str, value: SettingValue) -> None:
    _, high, unit = _RANGES[wire]
    if wire == "labels":
        assert isinstance(value, tuple), "labels are pairs"
        _check_labels(value)
    elif high is not None:
        assert isinstance(value, int), f"{wire} is a number"
        if not 0 <= value <= high:
            raise InvalidRequest(f"{wire} is {value:,}; it must be 0 to {quantity(high, unit)}")


def _check_labels(labels: tuple[tuple[str, str], ...]) -> None:
    if len(labels) > LABELS_MAX:
        raise InvalidRequest(f"labels are {len(labels)}; the limit is {LABELS_MAX}")
    names = [name for name, _ in labels]
    for place, (name, value) in enumerate(labels):
        if not 1 <= len(name.encode()) <= LABEL_BYTES_MAX:
            size = counted(len(name.encode()), "byte")
            raise InvalidRequest(f"labels[{place}].name is {size} of UTF-8; it must be 1 to {LABEL_BYTES_MAX}")
        if len(value.encode()) > LABEL_BYTES_MAX:
            size = counted(len(value.encode()), "byte")
            raise InvalidRequest(f"labels[{place}].value is {size} of UTF-8; the limit is {LABEL_BYTES_MAX}")
        if name in names[:place]:
            raise InvalidRequest(f"labels[{place}].name is {name!r}, which an earlier label has; names must differ")
