"""
Rows next to those of items, leases and queues: places, settings, numbers, deduplication.

Every decoding function raises `Damaged`, with the table and the key, for a row
that is not exactly as it was written.
"""

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any, Final

from queueber.broker.model import ItemId, Key, QueueNumber
from queueber.broker.storage import (
    DedupRecord,
    DeleteDedup,
    DeleteEnded,
    DeleteQueue,
    DeleteRequest,
    DeleteRetired,
    DeleteSettings,
    Ended,
    PutDedup,
    PutNumbers,
    PutRequest,
    PutRetired,
    PutSettings,
    SettingFields,
    SettingValue,
)
from queueber.errors import RemoteProtocolError
from queueber.fixed_limits import ID_BYTES
from queueber.store.rows.engine_port import KeyWrite
from queueber.store.rows.keys import (
    NUMBERS_KEY,
    damaged,
    decode_end_key,
    decode_place_key,
    dedup_key,
    end_key,
    place_key,
    queue_key,
    request_key,
    retired_key,
    settings_key,
)
from queueber.store.rows.structs import (
    DEDUP_RECORD,
    NUMBERS_STRUCT,
    PLACE_STRUCT,
    RETIRED_STRUCT,
    SETTINGS_STRUCT,
    STORED_SETTINGS,
)
from queueber.store.rows.values import Encoding, decode_row, encode_row

_NO_QUEUE: Final = QueueNumber(0)
_PLACE_INDEX: Final = Struct("<I")


class _NoFields:
    """The reader of a row whose key says everything."""

    def read(self, struct: bytes, /) -> None:
        """Raise `RemoteProtocolError` unless *struct* is empty."""
        if struct:
            raise RemoteProtocolError("its value must be empty")


_NO_FIELDS: Final = _NoFields()


def encode_side_write(write: Any, encoding: Encoding) -> list[KeyWrite]:  # noqa: ANN401 -- a write of `_ENCODERS`
    """Return the rows of *write*: keys and values, None to delete."""
    return [
        (row_key, None if struct is None else encode_row(row_key, struct, encoding))
        for row_key, struct in _ENCODERS[type(write)](write)
    ]


def encode_place(item: ItemId, queue: QueueNumber, due: int, encoding: Encoding) -> KeyWrite:
    """Return the row with the place of *item*: at *due* in *queue*."""
    row_key = place_key(item)
    return row_key, encode_row(row_key, PLACE_STRUCT.build(queue=queue, dueMs=due), encoding)


def decode_place(row_key: bytes, value: bytes) -> tuple[QueueNumber, Key]:
    """Return the queue and the key of the item whose place is in the row at *row_key*."""
    fields = decode_row(row_key, value, PLACE_STRUCT)
    return fields["queue"], Key(fields["dueMs"], decode_place_key(row_key))


def decode_settings(row_key: bytes, value: bytes) -> SettingFields:
    """Return the configured settings in the row at *row_key*."""
    row = decode_row(row_key, value, STORED_SETTINGS)
    try:
        fields = SETTINGS_STRUCT.read(row["settings"])
    except RemoteProtocolError as error:
        raise damaged(row_key, str(error)) from error
    configured = [name.decode(errors="replace") for name in row["configured"]]
    unknown = [name for name in configured if name not in fields]
    if unknown:
        raise damaged(row_key, f"it has a setting {unknown[0]!r}, which this Queueber does not know")
    return {name: _setting_value(fields[name]) for name in configured}


def decode_retired(row_key: bytes, value: bytes) -> QueueNumber:
    """Return the id of the queue that had the retired number at *row_key*; 0 if it was deleted."""
    return QueueNumber(decode_row(row_key, value, RETIRED_STRUCT)["queue"])


def decode_numbers(row_key: bytes, value: bytes) -> QueueNumber:
    """Return the lowest number that no queue ever had."""
    return QueueNumber(decode_row(row_key, value, NUMBERS_STRUCT)["next"])


def decode_dedup(row_key: bytes, value: bytes) -> DedupRecord:
    """Return the record in the row at *row_key*, of a deduplication key or a request id."""
    fields = decode_row(row_key, value, DEDUP_RECORD)
    ids, places = fields["ids"], fields["duplicates"]
    if len(ids) % ID_BYTES or len(places) % _PLACE_INDEX.size:
        raise damaged(row_key, "its list of ids or of places is cut off")
    return DedupRecord(
        fields["endsMs"],
        tuple(ItemId(ids[at : at + ID_BYTES]) for at in range(0, len(ids), ID_BYTES)),
        tuple(place for (place,) in _PLACE_INDEX.iter_unpack(places)),
        fields["checkMs"],
    )


def decode_end(row_key: bytes, value: bytes) -> Ended:
    """Return the entry of the index of ends at *row_key*."""
    decode_row(row_key, value, _NO_FIELDS)
    return decode_end_key(row_key)


def _settings_struct(configured: SettingFields) -> bytes:
    fields = {name: _schema_value(value) for name, value in configured.items()}
    return STORED_SETTINGS.build(
        settings=SETTINGS_STRUCT.build(**fields), configured=[name.encode() for name in configured]
    )


def _schema_value(value: SettingValue) -> Any:  # noqa: ANN401 -- as `Layout.build` takes it
    return [{"name": name, "value": label} for name, label in value] if isinstance(value, tuple) else value


def _setting_value(value: Any) -> SettingValue:  # noqa: ANN401 -- as `Layout.read` gives it
    if isinstance(value, list):
        return tuple((label["name"], label["value"]) for label in value)
    assert isinstance(value, int)
    return value


def _dedup_struct(record: DedupRecord) -> bytes:
    return DEDUP_RECORD.build(
        endsMs=record.ends,
        checkMs=record.check,
        ids=b"".join(record.ids),
        duplicates=b"".join(map(_PLACE_INDEX.pack, record.duplicates)),
    )


def _put_dedup(write: PutDedup) -> list[KeyWrite]:
    row = dedup_key(write.queue, write.digest), _dedup_struct(write.record)
    return [row, (end_key(Ended(write.record.indexed_at, write.queue, write.digest)), b"")]


def _put_request(write: PutRequest) -> list[KeyWrite]:
    end = Ended(write.record.ends, _NO_QUEUE, write.id)
    return [(request_key(write.id), _dedup_struct(write.record)), (end_key(end), b"")]


_ENCODERS: Final[Mapping[type, Callable[[Any], list[KeyWrite]]]] = {
    DeleteQueue: lambda write: [(queue_key(write.number), None)],
    PutSettings: lambda write: [(settings_key(write.queue), _settings_struct(write.configured))],
    DeleteSettings: lambda write: [(settings_key(write.queue), None)],
    PutRetired: lambda write: [(retired_key(write.number), RETIRED_STRUCT.build(queue=write.queue))],
    DeleteRetired: lambda write: [(retired_key(write.number), None)],
    PutNumbers: lambda write: [(NUMBERS_KEY, NUMBERS_STRUCT.build(next=write.next))],
    PutDedup: _put_dedup,
    DeleteDedup: lambda write: [(dedup_key(write.queue, write.digest), None)],
    PutRequest: _put_request,
    DeleteRequest: lambda write: [(request_key(write.id), None)],
    DeleteEnded: lambda write: [(end_key(write.entry), None)],
}
"""The key and the struct of each row of a write, by the kind of write; None to delete the row."""
