"""A key-value engine without a disk."""

from contextlib import contextmanager


class RowsInMemory:
    """A key-value engine in a dictionary."""

    def __init__(self, rows: dict[bytes, bytes] | None = None) -> None:
        self.rows = {} if rows is None else rows

    def get(self, key):
        return self.rows.get(key)

    def get_many(self, keys):
        return [self.rows.get(key) for key in keys]

    def write_many(self, writes) -> int:
        for key, value in writes:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        return 0

    @contextmanager
    def iterator(self, *, prefix=b"", start=None, stop=None, include_start=True, include_value=True):
        first = start or b""
        found = sorted(
            (key, value)
            for key, value in self.rows.items()
            if key.startswith(prefix or b"")
            and (first < key or (include_start and key == first))
            and (stop is None or key < stop)
        )
        yield iter(found if include_value else [key for key, _ in found])
