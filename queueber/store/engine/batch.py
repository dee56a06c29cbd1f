"""Several writes as one."""

from types import TracebackType
from typing import TYPE_CHECKING, Self

import rocksdict

from queueber.store.engine.errors import translating

if TYPE_CHECKING:
    from queueber.store.engine.db import DB


def as_bytes(value: object) -> bytes:
    """
    A copy of *value*, or itself if it is bytes already.

    Raises:
        TypeError: it is not a bytes-like object.
    """
    return value if type(value) is bytes else bytes(memoryview(value))  # type: ignore[arg-type]


class WriteBatch:
    """
    plyvel's `WriteBatch`: collects writes, then does them together or not at all.

    The writes are kept here and given to RocksDB only in `write`, because
    rocksdict uses its own batches up even when the write fails.
    """

    def __init__(self, db: "DB", *, prefix: bytes = b"", transaction: bool = False, sync: bool = False) -> None:
        self._db = db
        self._prefix = prefix
        self._transaction = transaction
        self._sync = sync
        self._writes: list[tuple[bytes, bytes | None]] = []

    def put(self, key: bytes, value: bytes) -> None:
        """Set *key* to *value*; either may be any bytes-like object."""
        self._writes.append((self._prefix + as_bytes(key), as_bytes(value)))

    def delete(self, key: bytes) -> None:
        """Remove *key*, whether or not it is there."""
        self._writes.append((self._prefix + as_bytes(key), None))

    def clear(self) -> None:
        """Forget what was collected."""
        self._writes.clear()

    def write(self) -> None:
        """
        Do what was collected, which stays collected.

        Raises:
            Stalled: nothing was written.
        """
        native = rocksdict.WriteBatch(raw_mode=True)
        put, delete = native.put, native.delete
        with translating():
            for key, value in self._writes:
                if value is None:
                    delete(key)
                else:
                    put(key, value)
        self._db.write_native(native, sync=self._sync)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Write, unless this is a transaction that failed."""
        if kind is not None and self._transaction:
            self.clear()
        else:
            self.write()
