"""Several writes as one."""

from types import TracebackType
from typing import Self

import rocksdict

from queueber.plyvel.arguments import as_bytes, wrong_type
from queueber.plyvel.handle import Handle, NoCopy

# How LevelDB lays out a batch: a header, then for each write its kind, and the lengths before key and value.
_HEADER_BYTES = 12
_BITS_PER_LENGTH_BYTE = 7


class WriteBatch(NoCopy):
    """
    plyvel's `WriteBatch`: collects writes, then does them together or not at all.

    The writes are kept here and given to RocksDB only in `write`, because
    rocksdict uses its own batches up even when the write fails.
    """

    __slots__ = ("_handle", "_prefix", "_sync", "_transaction", "_writes")

    def __init__(self, handle: Handle, prefix: bytes, *, transaction: bool, sync: bool) -> None:
        handle.check()
        self._handle = handle
        self._prefix = prefix
        self._transaction = transaction
        self._sync = sync
        self._writes: list[tuple[bytes, bytes | None]] = []

    def put(self, key: bytes, value: bytes) -> None:
        """Set *key* to *value*, which may be any bytes-like object and is copied."""
        if self._handle.closed:
            self._handle.check()
        if type(key) is not bytes:
            raise wrong_type("key", "bytes", key)
        self._writes.append((self._prefix + key, value if type(value) is bytes else as_bytes(value)))

    def delete(self, key: bytes) -> None:
        """Remove *key*, whether or not it is there."""
        if self._handle.closed:
            self._handle.check()
        if type(key) is not bytes:
            raise wrong_type("key", "bytes", key)
        self._writes.append((self._prefix + key, None))

    def append(self, source: "WriteBatch") -> None:
        """Collect what *source* has collected, under its keys in the whole database."""
        self._handle.check()
        if not isinstance(source, WriteBatch):
            raise wrong_type("source", "a WriteBatch", source)
        self._writes.extend(list(source._writes))  # noqa: SLF001 - one of its kind

    def clear(self) -> None:
        """Forget what was collected."""
        self._handle.check()
        self._writes.clear()

    def approximate_size(self) -> int:
        """The bytes that this would take in LevelDB's log."""
        self._handle.check()
        return _HEADER_BYTES + sum(
            1 + _sized(key) + (0 if value is None else _sized(value)) for key, value in self._writes
        )

    def write(self) -> None:
        """
        Do what was collected, which stays collected.

        Raises:
            Stalled: nothing was written.  Only for the store, whose database does not wait.
        """
        self._handle.write(self._attempt, sync=self._sync)

    def _attempt(self) -> None:
        native = rocksdict.WriteBatch(raw_mode=True)
        put, delete = native.put, native.delete
        for key, value in self._writes:
            if value is None:
                delete(key)
            else:
                put(key, value)
        self._handle.native.write(native, self._handle.write_options)

    def __enter__(self) -> Self:
        self._handle.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Write, unless this is a transaction that failed, and forget what was collected."""
        if kind is None or not self._transaction:
            self.write()
        self.clear()


def _sized(content: bytes) -> int:
    """The bytes that *content* takes with its length before it."""
    return max(1, -(-len(content).bit_length() // _BITS_PER_LENGTH_BYTE)) + len(content)
