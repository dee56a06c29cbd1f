"""Rows as the store writes them, one at a time."""

from queueber.broker.model import Item, QueueNumber, TimeMark
from queueber.broker.storage import PutItems, Write
from queueber.store import Encoding
from queueber.store.rows.records import encode_writes
from queueber.units import WallMs

_MARK = TimeMark(b"b" * 16, 0, WallMs(0))


def encoded(write: Write, encoding: Encoding = Encoding.UNPACKED) -> tuple[bytes, bytes | None]:
    """Return the key and the value of the row that *write* writes."""
    return encode_writes([write], _MARK, encoding)[0]


def all_encoded(*writes: Write) -> list[tuple[bytes, bytes | None]]:
    """Return the keys and values of all rows that *writes* write."""
    return encode_writes(writes, _MARK, Encoding.UNPACKED)[:-1]


def item_value(item: Item, queue: int = 1, encoding: Encoding = Encoding.UNPACKED) -> bytes:
    """Return the value of *item*'s row."""
    _, value = encoded(PutItems(QueueNumber(queue), [item]), encoding)
    assert value is not None
    return value
