"""
The parameters and results of `QueueControl`, and of `Broker.queues`.

The methods of `QueueControl` are read and written through one table by their
number.  None of these calls is frequent, so responses go through the layouts.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
from attrs import frozen

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
    Waits,
)
from queueber.api.fields import Fields, answered, fields_of, values_of
from queueber.api.options import facts_fields, facts_from
from queueber.capnp.layout import field_name, layout
from queueber.capnp.schema import schema
from queueber.errors import InvalidRequest
from queueber.fixed_limits import LABEL_BYTES_MAX, LABELS_MAX, LISTED_MAX, QUEUE_NAME_BYTES_MAX
from queueber.rpc.messages import Params, Results
from queueber.units import WallMs
from queueber.values import ControlOutcome, DeathReason, ItemState

_CONTROL = schema().interfaces["QueueControl"]

_PLACE_BYTES_MAX: Final = 64
_HANDLE_BYTES_MAX: Final = 32
"""The longest place of an item, and handle of a lease, that a server gives."""

_PEEKED: Final = 10
"""The items of a peek without a limit."""

_READ_ONLY: Final = {"addsPaused", "pollsPaused"}
_SETTINGS: Final = {field_name(each.name): each.name for each in attrs.fields(QueueSettings)}
"""Our names of the settings, by those of the schema."""


def read_control_request(method: int, params: Params) -> Any:  # noqa: ANN401
    """
    Read the parameters of a *method* of `CONTROL_INTERFACE_ID`; `control_types` has the type of each method's request.

    Raises:
        KeyError: there is no such method.
        InvalidRequest: a value exceeds a limit, a name is unknown, or an id is not 16 bytes.
        RemoteProtocolError: the parameters are malformed.
    """
    codec = _CODECS[method]
    return codec.read_request(fields_of(params, _CONTROL.params[method]))


def write_control_request(method: int, request: Any) -> bytes:  # noqa: ANN401
    """Write the parameters of a *method* of `CONTROL_INTERFACE_ID`."""
    return layout(_CONTROL.params[method]).build(**_CODECS[method].request_fields(request))


def write_control_response(method: int, response: Any) -> bytes:  # noqa: ANN401
    """Write the results of a *method* of `CONTROL_INTERFACE_ID`."""
    return layout(_CONTROL.results[method]).build(**_CODECS[method].response_fields(response))


def read_control_response(method: int, results: Results) -> Any:  # noqa: ANN401
    """
    Read the results of a *method* of `CONTROL_INTERFACE_ID`.

    Raises:
        RemoteProtocolError: the results are malformed, or have an unknown enumerator.
    """
    return _CODECS[method].response_from(values_of(results.content, _CONTROL.results[method]))


def read_queues_request(params: Params) -> QueuesRequest:
    """
    Read the parameters of `Broker.queues`.

    Raises:
        InvalidRequest: a name or a label is too long, or not UTF-8.
        RemoteProtocolError: the parameters are malformed.
    """
    fields = fields_of(params, "Broker.queues$Params")
    label = fields.inner("label", "Label")
    found = ("", "") if label is None else _label(label)
    return QueuesRequest(
        prefix=fields.text("prefix", QUEUE_NAME_BYTES_MAX),
        label=found if found[0] else None,
        after=fields.text("after", QUEUE_NAME_BYTES_MAX),
        limit=_limit(fields, LISTED_MAX),
    )


def write_queues_request(request: QueuesRequest) -> bytes:
    """Write the parameters of `Broker.queues`."""
    fields: dict[str, Any] = {"prefix": request.prefix, "after": request.after, "limit": request.limit}
    if request.label is not None:
        fields["label"] = _label_fields(request.label)
    return layout("Broker.queues$Params").build(**fields)


def write_queues_response(response: Listed[QueueSummary]) -> bytes:
    """Write the results of `Broker.queues`."""
    queues = [
        {"name": each.name, "stats": _plain(each.stats), "labels": list(map(_label_fields, each.labels))}
        for each in response.found
    ]
    return layout("Broker.queues$Results").build(queues=queues, more=response.more)


def read_queues_response(results: Results) -> Listed[QueueSummary]:
    """Read the results of `Broker.queues`."""
    found = values_of(results.content, "Broker.queues$Results")
    queues = [
        QueueSummary(name=each["name"], stats=_counts_from(each["stats"]), labels=_labels_from(each["labels"]))
        for each in found["queues"]
    ]
    return Listed(queues, found["more"])


# Requests


def _limit(fields: Fields, default: int) -> int:
    return min(fields.number("limit") or default, LISTED_MAX)


def _label(fields: Fields) -> tuple[str, str]:
    return fields.text("name", LABEL_BYTES_MAX), fields.text("value", LABEL_BYTES_MAX)


def _label_fields(label: tuple[str, str]) -> dict[str, str]:
    return dict(zip(("name", "value"), label, strict=True))


def _read_configure(fields: Fields) -> ConfigureRequest:
    settings = fields.inner("settings", "Settings")
    found = QueueSettings() if settings is None else _read_settings(settings)
    return ConfigureRequest(
        names=_setting_names(fields, "fields"), settings=found, reset=_setting_names(fields, "reset")
    )


def _setting_names(fields: Fields, parameter: str) -> list[str]:
    """Return our names of the settings that *parameter* lists by those of the schema."""
    names = fields.texts(parameter, len(_SETTINGS), max(map(len, _SETTINGS)))
    for index, name in enumerate(names):
        if name not in _SETTINGS or name in _READ_ONLY:
            known = ", ".join(sorted(_SETTINGS.keys() - _READ_ONLY))
            raise InvalidRequest(f"{parameter}[{index}] is {name!r}; a setting that can be changed is one of {known}")
    return [_SETTINGS[name] for name in names]


def _read_settings(fields: Fields) -> QueueSettings:
    values: dict[str, Any] = {
        ours: (fields.flag if fields.layout.numbers[name].mask == 1 else fields.number)(name)
        for name, ours in _SETTINGS.items()
        if name in fields.layout.numbers
    }
    return QueueSettings(labels=tuple(map(_label, fields.structs("labels", "Label", LABELS_MAX))), **values)


def _configure_fields(request: ConfigureRequest) -> dict[str, Any]:
    fields = {"fields": list(map(field_name, request.names)), "settings": _settings_fields(request.settings)}
    # An absent list takes no room, an empty one does.
    return {**fields, "reset": list(map(field_name, request.reset))} if request.reset else fields


def _read_peek(fields: Fields) -> PeekRequest:
    request = fields.request("PeekRequest")
    states = request.choices("states", ItemState, 1)
    if ItemState.LEASED in states:
        raise InvalidRequest("states[0] is leased; only ready, delayed and dead items have an order")
    return PeekRequest(
        state=states[0] if states else None,
        after=request.data("after", _PLACE_BYTES_MAX),
        limit=_limit(request, _PEEKED),
        contents_bytes=request.number("contentsBytes") or None,
    )


def _peek_fields(request: PeekRequest) -> dict[str, Any]:
    states = [] if request.state is None else [request.state]
    return {
        "req": {
            "states": states,
            "after": request.after,
            "limit": request.limit,
            "contentsBytes": request.contents_bytes or 0,
        }
    }


def _read_redrive(fields: Fields) -> RedriveRequest:
    request = fields.request("RedriveRequest")
    return RedriveRequest(
        ids=request.ids("ids", LISTED_MAX),
        reason=request.choice("reason", DeathReason),
        limit=_limit(request, LISTED_MAX),
        to=request.text("to", QUEUE_NAME_BYTES_MAX),
    )


# Responses


def _plain(value: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the fields of *value* by the names of the schema.  No field is an object of ours."""
    return {field_name(each.name): getattr(value, each.name) for each in attrs.fields(type(value))}


def _settings_fields(settings: QueueSettings) -> dict[str, Any]:
    return {**_plain(settings), "labels": list(map(_label_fields, settings.labels))}


def _labels_from(found: Sequence[Mapping[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((each["name"], each["value"]) for each in found)


def _settings_from(found: Mapping[str, Any] | None) -> QueueSettings:
    if found is None:
        return QueueSettings()
    values = {ours: found[name] for name, ours in _SETTINGS.items()}
    return QueueSettings(**{**values, "labels": _labels_from(found["labels"])})


def _counts_from(found: Mapping[str, Any] | None) -> QueueCounts:
    names = [each.name for each in attrs.fields(QueueCounts)]
    return QueueCounts() if found is None else QueueCounts(**{name: found[field_name(name)] for name in names})


def _lease_from(found: Mapping[str, Any]) -> LeaseView:
    return LeaseView(**{each.name: found[field_name(each.name)] for each in attrs.fields(LeaseView)})


def _item_fields(item: ItemView) -> dict[str, Any]:
    fields = {**_plain(item), "facts": facts_fields(item.facts)}
    del fields["waits"]
    if item.waits is not None:
        fields["waits"] = _plain(item.waits)
        lease = fields["waits"].pop("lease")
        if lease is not None:
            fields["waits"]["lease"] = _plain(lease)
    return fields


def _item_from(found: Mapping[str, Any]) -> ItemView:
    values = {each.name: found[field_name(each.name)] for each in attrs.fields(ItemView)}
    waits = values["waits"]
    if waits is not None:
        inner = {each.name: waits[field_name(each.name)] for each in attrs.fields(Waits)}
        values["waits"] = Waits(**{**inner, "lease": inner["lease"] and _lease_from(inner["lease"])})
    return ItemView(**{**values, "state": answered(values["state"], ItemState), "facts": facts_from(values["facts"])})


def _outcome_from(found: Mapping[str, Any]) -> ControlOutcome:
    return answered(found["outcome"], ControlOutcome)


@frozen
class _Codec:
    """The readers and writers of one method."""

    read_request: Callable[[Fields], Any]
    request_fields: Callable[[Any], dict[str, Any]]
    response_fields: Callable[[Any], dict[str, Any]]
    response_from: Callable[[Mapping[str, Any]], Any]


def _flag_codec(
    name: str, response_fields: Callable[[Any], dict[str, Any]], response_from: Callable[[Mapping[str, Any]], Any]
) -> _Codec:
    """Return the codec of a method whose only parameter is the Bool *name*."""
    return _Codec(lambda fields: fields.flag(name), lambda flag: {name: flag}, response_fields, response_from)


def _outcome_fields(outcome: ControlOutcome) -> dict[str, Any]:
    return {"outcome": outcome}


_ON_ITEM = _Codec(lambda fields: fields.id("id"), lambda item: {"id": item}, _outcome_fields, _outcome_from)
_PAUSE = _Codec(
    lambda fields: PauseRequest(adds=fields.flag("adds"), polls=fields.flag("polls")),
    _plain,
    lambda _: {},
    lambda _: None,
)

_CODECS: Final = {
    types.STATS: _flag_codec(
        "exact", lambda counts: {"stats": _plain(counts)}, lambda found: _counts_from(found["stats"])
    ),
    types.SETTINGS: _Codec(
        lambda _: None,
        lambda _: {},
        lambda reply: {
            "settings": _settings_fields(reply.settings),
            "defaults": list(map(field_name, reply.defaults)),
        },
        lambda found: SettingsInForce(
            settings=_settings_from(found["settings"]),
            defaults=[_SETTINGS[name] for name in found["defaults"] if name in _SETTINGS],
        ),
    ),
    types.CONFIGURE: _Codec(
        _read_configure,
        _configure_fields,
        lambda settings: {"settings": _settings_fields(settings)},
        lambda found: _settings_from(found["settings"]),
    ),
    types.PEEK: _Codec(
        _read_peek,
        _peek_fields,
        lambda reply: {"items": list(map(_item_fields, reply.found)), "more": reply.more},
        lambda found: Listed(list(map(_item_from, found["items"])), found["more"]),
    ),
    types.GET: _Codec(
        lambda fields: fields.id("id"),
        lambda item: {"id": item},
        lambda item: {} if item is None else {"found": True, "item": _item_fields(item)},
        lambda found: _item_from(found["item"]) if found["found"] and found["item"] is not None else None,
    ),
    types.CANCEL: _ON_ITEM,
    types.KICK: _ON_ITEM,
    types.RESCHEDULE: _Codec(
        lambda fields: RescheduleRequest(id=fields.id("id"), due_ms=WallMs(fields.number("dueMs"))),
        _plain,
        _outcome_fields,
        _outcome_from,
    ),
    types.PURGE: _flag_codec("dead", lambda items: {"items": items}, lambda found: found["items"]),
    types.PAUSE: _PAUSE,
    types.RESUME: _PAUSE,
    types.REDRIVE: _Codec(
        _read_redrive,
        lambda request: {"req": _plain(request)},
        _plain,
        lambda found: Redriven(moved=found["moved"], more=found["more"]),
    ),
    types.LEASES: _Codec(
        lambda fields: LeasesRequest(after=fields.data("after", _HANDLE_BYTES_MAX), limit=_limit(fields, LISTED_MAX)),
        _plain,
        lambda reply: {"leases": list(map(_plain, reply.found)), "more": reply.more},
        lambda found: Listed(list(map(_lease_from, found["leases"])), found["more"]),
    ),
    types.END_LEASE: _Codec(
        lambda fields: fields.data("lease", _HANDLE_BYTES_MAX),
        lambda lease: {"lease": lease},
        lambda ended: {"ended": ended},
        lambda found: found["ended"],
    ),
    types.DELETE: _flag_codec("force", _outcome_fields, _outcome_from),
}
assert _CODECS.keys() == set(range(len(_CONTROL.methods)))
