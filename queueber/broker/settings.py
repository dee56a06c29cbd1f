# ruff: noqa: RUF009  (a call makes each field, as attrs has it)
"""
The settings of queues.

A queue has the server's defaults, but for the fields that were configured for
it.  Only these are on the disk, by the names that they have in
``queueber.capnp``, so that a change of the defaults reaches every queue that
was not configured otherwise.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Final

from attrs import field, fields, frozen

from queueber.broker.storage import SettingFields, SettingValue
from queueber.errors import InvalidRequest
from queueber.fixed_limits import LABEL_BYTES_MAX, LABELS_MAX
from queueber.units import YEAR, SpanMs, Unit, counted, quantity

SPAN_MAX: Final = SpanMs(100 * YEAR)
"""The longest span.  It keeps sums of points and spans far below 64 bits."""

_U32_MAX: Final = 2**32 - 1
_COUNT_MAX: Final = 10**15
_BYTES_MAX: Final = 1 << 60
"""Beyond any disk, and easier to read than the largest number of 64 bits."""

NOT_CONFIGURED: SettingFields = MappingProxyType({})


@frozen
class Setting:
    """The definition of one field of `QueueConfig`."""

    wire: str
    """The schema's name of the field."""

    high: int | None
    """The highest number, from 0; None for fields that are no numbers."""

    unit: Unit
    description: str
    """For the help of the option that sets the default; empty for a field that has none."""


def _number(default: int, wire: str, high: int, description: str, unit: Unit = Unit.COUNT) -> Any:  # noqa: ANN401
    return field(default=default, metadata={"setting": Setting(wire, high, unit, description)})


def _span(default: int, wire: str, description: str) -> Any:  # noqa: ANN401
    return _number(default, wire, SPAN_MAX, description, Unit.MS)


def _other(default: Any, wire: str, description: str = "") -> Any:  # noqa: ANN401
    return field(default=default, metadata={"setting": Setting(wire, None, Unit.COUNT, description)})


@frozen(kw_only=True)
class QueueConfig:
    """The settings of one queue, with the fields of the struct `Settings` of ``queueber.capnp``."""

    lease_ms: SpanMs = _span(0, "leaseMs", "Length of the lease of a poll that gives none; 0: such a poll fails")
    max_lease_ms: SpanMs = _span(
        0, "maxLeaseMs", "Longest time for which one lease may be held, extensions included; 0: as the limit says"
    )
    max_attempts: int = _number(
        0, "maxAttempts", _U32_MAX, "Attempt with whose failure or loss an item dies; 0: it never does"
    )
    backoff_base_ms: SpanMs = _span(
        1_000, "backoffBaseMs", "Longest wait of an item after its first failure; each further one doubles it"
    )
    backoff_cap_ms: SpanMs = _span(3_600_000, "backoffCapMs", "Longest wait of an item after a failure")
    backoff_on_loss: bool = _other(
        default=False, wire="backoffOnLoss", description="Let an item wait after its lease ended by itself, too"
    )
    max_items: int = _number(0, "maxItems", _COUNT_MAX, "Most items of a queue, leased ones included; 0: no bound")
    max_bytes: int = _number(
        0, "maxBytes", _BYTES_MAX, "Most contents of all items of a queue; 0: no bound", Unit.BYTES
    )
    max_item_bytes: int = _number(
        0, "maxItemBytes", _BYTES_MAX, "Most contents of one item; 0: as the limit says", Unit.BYTES
    )
    ttl_ms: SpanMs = _span(0, "ttlMs", "Time after its add in which an item must be delivered; 0: it never expires")
    drop_expired: bool = _other(
        default=False, wire="dropExpired", description="Remove expired items, so that they are not among the dead ones"
    )
    dead_ttl_ms: SpanMs = _span(0, "deadTtlMs", "Time after which a dead item is removed; 0: never")
    dedup_window_ms: SpanMs = _span(
        300_000, "dedupWindowMs", "Time for which a deduplication key keeps a second item out"
    )
    idle_ttl_ms: SpanMs = _span(0, "idleTtlMs", "Time after which a queue without items and calls is deleted; 0: never")
    labels: tuple[tuple[str, str], ...] = _other((), "labels")
    """Names and values."""

    adds_paused: bool = _other(default=False, wire="addsPaused")
    polls_paused: bool = _other(default=False, wire="pollsPaused")

    def merged(self, configured: SettingFields) -> "QueueConfig":
        """Return these settings, the defaults, with the *configured* fields of a queue."""
        values = {each.name: getattr(self, each.name) for each in fields(QueueConfig)}
        values.update((FIELDS[wire], value) for wire, value in configured.items() if wire in FIELDS)
        return QueueConfig(**values)

    @property
    def bounds_adds(self) -> bool:
        """Whether an add can be refused because of these settings."""
        return bool(self.max_items or self.max_bytes or self.max_item_bytes or self.adds_paused)


DEFAULT_SETTINGS: Final = QueueConfig()

FIELDS: Final[Mapping[str, str]] = {each.metadata["setting"].wire: each.name for each in fields(QueueConfig)}
"""The attributes of `QueueConfig` by the schema's names of the fields."""

READ_ONLY: Final = frozenset({"addsPaused", "pollsPaused"})
"""Fields that `configure` does not change, but `pause` and `resume`."""

DEFINITIONS: Final[Mapping[str, Setting]] = {each.name: each.metadata["setting"] for each in fields(QueueConfig)}
"""The definitions by the name of the attribute."""


def check_changes(changes: SettingFields, reset: Collection[str] = ()) -> None:
    """
    Check new values of settings, and the names of those to reset, by the schema's names.

    Raises:
        InvalidRequest: names the field, the limit and the value.
    """
    for wire, value in changes.items():
        _check_name("fields", wire)
        _check(wire, value)
    for wire in reset:
        _check_name("reset", wire)
        if wire in changes:
            raise InvalidRequest(f"reset has {wire}, which fields has, too; a setting is changed or reset")


def _check_name(parameter: str, wire: str) -> None:
    if wire not in FIELDS:
        raise InvalidRequest(f"{parameter} has {wire!r}, which is no setting; settings are {', '.join(FIELDS)}")
    if wire in READ_ONLY:
        raise InvalidRequest(f"{parameter} has {wire}, which only pause and resume change")


def _check(wire: str, value: SettingValue) -> None:
    setting = DEFINITIONS[FIELDS[wire]]
    if wire == "labels":
        assert isinstance(value, tuple), "labels are pairs"
        _check_labels(value)
    elif setting.high is not None:
        assert isinstance(value, int), f"{wire} is a number"
        if not 0 <= value <= setting.high:
            raise InvalidRequest(f"{wire} is {value:,}; it must be 0 to {quantity(setting.high, setting.unit)}")


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
