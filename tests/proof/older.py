"""
Data of format 1, made of what a killed server has left: without the rows and counters that format 2 has added.

The golden directories of `tests/store/golden` are older data that is real, with items that no history knows.
"""

from queueber.store.datadir.database import open_database
from queueber.store.rows.keys import PLACES_TABLE, QUEUES_TABLE
from queueber.store.rows.meta import write_format
from queueber.store.rows.state_records import build_queue, decode_queue
from queueber.store.rows.values import encode_row


def set_back(data):
    """Set the data directory *data* back to format 1; return the number of places that a start has to write."""
    with open_database(data / "db") as db:
        with db.iterator(prefix=PLACES_TABLE, include_value=False) as rows:
            places = [(key, None) for key in rows]
        with db.iterator(prefix=QUEUES_TABLE) as rows:
            queues = [(key, decode_queue(key, value)._replace(bytes=0, off_time=0)) for key, value in rows]
        db.write_many([*places, *((key, encode_row(key, build_queue(record))) for key, record in queues)])
        write_format(db, "", 1)
        db.sync()
    return len(places)
