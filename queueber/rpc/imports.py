"""
The objects of the peer that we can call.

State model
-----------

The peer counts a reference for each time it sent us an object, and forgets the
object when all have been given back.  Our side counts the same ones: each that
came in results belongs to who took the results, until it is dropped.  With the
last one a single Release gives back all, so an object that comes again in the
meantime costs no message.

At all times: `held` is at least 1 and at most `received`.
"""

from collections.abc import Iterator

from attrs import define

from queueber.errors import LocalProtocolError, RemoteProtocolError
from queueber.rpc.messages import ImportId
from queueber.units import counted


@define(eq=False)
class Import:
    """One object of the peer's."""

    received: int = 0
    """References the peer counts."""

    held: int = 0
    """References that somebody here still holds."""


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
        """All imports with their numbers, the oldest first."""
        return iter(self._entries.items())

    def receive(self, number: ImportId) -> None:
        """
        The peer has sent the object *number*, with one reference.

        Raises:
            RemoteProtocolError: it has sent more objects than the limit.
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
        One reference is not held any more; how many are to be given back now, 0 while others are held.

        Raises:
            LocalProtocolError: none is held.
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
        """Raise AssertionError if an import has counts that cannot be."""
        for entry in self._entries.values():
            assert 1 <= entry.held <= entry.received
