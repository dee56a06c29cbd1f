"""
The mark of a server that closed its store in order, as against died.

It is the last row that such a server writes, and names the write before it.  So
one that is followed by others, which nobody writes without removing it first,
is no such mark; and one that is damaged is refused like any other damaged row.
"""

from queueber.store.rows.engine_port import KeyValue, write_all
from queueber.store.rows.keys import CLEAN_KEY
from queueber.store.rows.records import decode_sequence, encode_sequence


def mark_closed(db: KeyValue) -> None:
    """Write the mark; nothing may be written behind it."""
    write_all(db, [(CLEAN_KEY, encode_sequence(CLEAN_KEY, db.sequence()))])


def unmark(db: KeyValue) -> None:
    """Remove the mark, if it is there; durable after the next sync."""
    write_all(db, deletes=[CLEAN_KEY])


def was_closed(db: KeyValue) -> bool:
    """
    Whether the last server on *db*, to which nothing was written since it was opened, closed it in order.

    Raises:
        StorageError: the mark is not as it was written.
    """
    value = db.get(CLEAN_KEY)
    return value is not None and decode_sequence(CLEAN_KEY, value) + 1 == db.sequence()
