"""Whether each item that needs a place has one, and no place is without its item."""

from collections.abc import Callable
from typing import Final

from queueber.broker.model import Key, QueueNumber, off_time
from queueber.errors import StorageError
from queueber.store.rows.engine_port import KeyValueEngine
from queueber.store.rows.keys import item_key, place_key
from queueber.store.rows.side_records import decode_place

_ROWS_AT_ONCE: Final = 1_000


class PlaceCheck:
    """
    Compares items and places, some thousand at a time.

    First each item that must have a place is passed to `expect`, and then each row with a place to `check_row`.
    `finish` is called after each of the two.
    """

    def __init__(self, db: KeyValueEngine, report: Callable[[str], None]) -> None:
        """Read rows from *db*; *report* is called with each finding, a line."""
        self._db = db
        self._report = report
        self._expected: list[tuple[QueueNumber, Key]] = []
        self._found: list[tuple[QueueNumber, Key]] = []

    def expect(self, queue: QueueNumber, key: Key) -> None:
        """Report the item at *key* in *queue* unless there is a row with its place."""
        self._expected.append((queue, key))
        if len(self._expected) == _ROWS_AT_ONCE:
            self._check_expected()

    def check_row(self, row_key: bytes, value: bytes) -> None:
        """
        Report the place in the row at *row_key* unless there is an item, which needs it.

        Raises:
            StorageError: the row is damaged, or the item at that place does not need it.
        """
        queue, key = decode_place(row_key, value)
        if not off_time(key):
            raise StorageError(f"an item due at {key.due} is found by its id, and needs no place")
        self._found.append((queue, key))
        if len(self._found) == _ROWS_AT_ONCE:
            self._check_found()

    def finish(self) -> None:
        """Check the rest."""
        self._check_expected()
        self._check_found()

    def _check_expected(self) -> None:
        row_keys = [place_key(key.id) for _, key in self._expected]
        for (queue, key), row_key, value in zip(self._expected, row_keys, self._db.get_many(row_keys), strict=True):
            place = f"row in table items, key {item_key(queue, key).hex()}"
            if value is None:
                self._report(f"{place}: no place is known for it, so it is not found by its id")
                continue
            try:
                found = decode_place(row_key, value)
            except StorageError:
                continue  # `check_row` reports it
            if found != (queue, key):
                self._report(f"{place}: its place is said to be in queue {found[0]} and due at {found[1].due}")
        self._expected.clear()

    def _check_found(self) -> None:
        row_keys = [item_key(queue, key) for queue, key in self._found]
        for (_, key), value in zip(self._found, self._db.get_many(row_keys), strict=True):
            if value is None:
                self._report(f"row in table places, key {place_key(key.id).hex()}: there is no item at that place")
        self._found.clear()
