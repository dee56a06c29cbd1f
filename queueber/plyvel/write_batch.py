"""`WriteBatch`: several writes that are applied atomically."""

from types import TracebackType
from typing import Self

from queueber.plyvel.arguments import as_bytes, type_error
from queueber.plyvel.handle import Handle, KeyWrite, NoCopy

# LevelDB's encoding of a batch: a header, then for each write a type byte, and key and value, each after its length
# as a varint.
_HEADER_BYTES = 12
_TYPE_BYTES = 1
_VARINT_BITS_PER_BYTE = 7


class WriteBatch(NoCopy):
    """
    plyvel's `WriteBatch`: collects writes and applies them atomically.

    The writes are kept in Python and copied to a native batch by `write`,
    because rocksdict consumes a native batch even if the write fails.
    """

    __slots__ = ("_handle", "_prefix", "_sync", "_transaction", "_writes")

    def __init__(self, handle: Handle, prefix: bytes, *, transaction: bool, sync: bool) -> None:
        handle.check_open()
        self._handle = handle
        self._prefix = prefix
        self._transaction = transaction
        self._sync = sync
        self._writes: list[KeyWrite] = []
        """With full keys."""

    def put(self, key: bytes, value: bytes) -> None:
        """Add a put of *value*, any contiguous bytes-like object, which is copied."""
        if self._handle.closed:
            self._handle.check_open()
        if type(key) is not bytes:
            raise type_error("key", "bytes", key)
        self._writes.append((self._prefix + key, value if type(value) is bytes else as_bytes(value)))

    def delete(self, key: bytes) -> None:
        """Add a delete of *key*, which need not exist."""
        if self._handle.closed:
            self._handle.check_open()
        if type(key) is not bytes:
            raise type_error("key", "bytes", key)
        self._writes.append((self._prefix + key, None))

    def append(self, source: "WriteBatch") -> None:
        """Add the writes of *source*, with their full keys: this batch's prefix is not added."""
        self._handle.check_open()
        if not isinstance(source, WriteBatch):
            raise type_error("source", "a WriteBatch", source)
        self._writes.extend(list(source._writes))  # noqa: SLF001 - same class

    def clear(self) -> None:
        """Remove all writes from the batch."""
        self._handle.check_open()
        self._writes.clear()

    def approximate_size(self) -> int:
        """Return the size of the batch in LevelDB's log, in bytes."""
        self._handle.check_open()
        return _HEADER_BYTES + sum(
            _TYPE_BYTES + _encoded_size(key) + (0 if value is None else _encoded_size(value))
            for key, value in self._writes
        )

    def write(self) -> None:
        """
        Apply the writes.  They stay in the batch, which can be written again.

        Raises:
            Stalled: nothing was written.  Only from a batch of a `queueber.plyvel.rocksdb.RocksDB`.
        """
        self._handle.write(self._writes, sync=self._sync)

    def __enter__(self) -> Self:
        self._handle.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Write the batch, unless it is a transaction and the block raised, and clear it."""
        if kind is None or not self._transaction:
            self.write()
        self.clear()


def _encoded_size(content: bytes) -> int:
    """Return the size of *content* and of the varint length before it."""
    return max(1, -(-len(content).bit_length() // _VARINT_BITS_PER_BYTE)) + len(content)
