"""
Imports: objects of the peer that we can call.

State model
-----------

The peer counts a reference each time it sends us an object, and forgets the
object when all were released.  We count the same references: each that came in
results belongs to the caller until it is dropped.  When the last one is
dropped, a single Release returns all, so an object that is received again
before that costs no message.

Invariant: `held` is at least 1 and at most `received`.
"""

from collections.abc import Iterator

from queueber.errors import LocalProtocolError, RemoteProtocolError
from queueber.rpc.messages import ImportId
from queueber.units import counted


class Import:
    """One object of the peer."""

    __slots__ = ("held", "received")

    def __init__(self) -> None:
        self.received = 0
        """References that the peer counts."""

        self.held = 0
        """References that were not dropped."""


class Imports:
    """All objects of one peer that we can call."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: dict[ImportId, Import] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, number: ImportId) -> bool:
        return number in self._entries

    def items(self) -> Iterator[tuple[ImportId, Import]]:
        """Return all imports with their ids, the oldest first."""
        return iter(self._entries.items())

    def receive(self, number: ImportId) -> None:
        """
        Add a reference to the import *number*.

        Raises:
            RemoteProtocolError: the peer has sent more objects than the limit.
        """
        entry = self._entries.get(number)
        if entry is None:
            if len(self._entries) >= self._limit:
                raise RemoteProtocolError(
                    f"the peer sent more than {counted(self._limit, 'capability', 'capabilities')}"
                )
            entry = self._entries[number] = Import()
        entry.received += 1
        entry.held += 1

    def drop(self, number: ImportId) -> int:
        """
        Drop one reference, and return how many to release now; 0 while others are held.

        Raises:
            LocalProtocolError: no reference is held.
        """
        entry = self._entries.get(number)
        if entry is None:
            raise LocalProtocolError(f"{number} is not an import")
        entry.held -= 1
        if entry.held:
            return 0
        del self._entries[number]
        return entry.received

    def check(self) -> None:
        """Raise AssertionError if an import has impossible counts."""
        for entry in self._entries.values():
            assert 1 <= entry.held <= entry.received
