"""
The objects of ours that a peer can call.

State model
-----------

An object is exported under one number while the peer holds references to it:
each time it is sent adds one, and Release takes some back.  It is pinned while
an answer holds it, because calls may be made to what that answer returned; the
number may be gone by then, if the peer was quick to release it.  With neither
references nor pins the object is gone, and may be forgotten by who made it.

At all times: an export has a number if and only if it has references, and it
is known at all if and only if it has references or pins.
"""

from collections.abc import Iterator, Sequence

from attrs import define

from queueber.errors import Overloaded, RemoteProtocolError
from queueber.rpc.messages import ExportId
from queueber.rpc.tables import OwnedTable
from queueber.units import counted


@define(eq=False)
class Export:
    """One object that the peer can call."""

    object: object
    id: ExportId | None = None
    """Its number; None while the peer holds no reference."""

    references: int = 0
    """References the peer holds."""

    pins: int = 0
    """Answers that hold it."""

    @property
    def gone(self) -> bool:
        """Nothing can call it any more."""
        return not self.references and not self.pins


class Exports:
    """All objects that one peer can call."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._numbered: OwnedTable[Export] = OwnedTable()
        self.entries: dict[int, Export] = {}
        """Every export by its object's identity, which cannot be reused while the export holds the object."""

    def __len__(self) -> int:
        return len(self.entries)

    def items(self) -> Iterator[Export]:
        """All exports, the oldest first."""
        return iter(self.entries.values())

    def admit(self, objects: Sequence[object]) -> None:
        """
        Make sure that *objects* can be exported.

        Raises:
            Overloaded: the peer would hold more than the limit.
        """
        new = {id(each) for each in objects} - self.entries.keys()
        count = len(self.entries) + len(new)
        if count > self._limit:
            raise Overloaded(
                f"capabilities of this connection would be {count:,}; the limit is {self._limit:,} (exports)",
                limit="exports",
            )

    def knows(self, each: object) -> bool:
        """Whether the peer can call *each*."""
        return id(each) in self.entries

    def send(self, each: object) -> Export:
        """The export of *each*, with one more reference and one more pin."""
        export = self.entries.get(id(each))
        if export is None:
            export = self.entries[id(each)] = Export(each)
        if export.id is None:
            export.id = ExportId(self._numbered.add(export))
        export.references += 1
        export.pins += 1
        return export

    def find(self, number: ExportId) -> Export:
        """
        The export under *number*.

        Raises:
            RemoteProtocolError: there is none; the peer names what it does not hold.
        """
        export = self.get(number)
        if export is None:
            raise RemoteProtocolError(f"{number} is not an export")
        return export

    def get(self, number: ExportId) -> Export | None:
        """The export under *number*; None if the peer does not hold it."""
        return self._numbered.find(number)

    def release(self, export: Export, count: int) -> bool:
        """
        The peer has given back *count* references; whether the export is gone.

        Raises:
            RemoteProtocolError: it never had so many.
        """
        if count > export.references or export.id is None:
            raise RemoteProtocolError(
                f"{counted(count, 'reference was', 'references were')} released"
                f" where {counted(export.references, 'was', 'were')} held"
            )
        export.references -= count
        if not export.references:
            self._numbered.drop(export.id)
            export.id = None
        return self._forget_if_gone(export)

    def unpin(self, export: Export) -> bool:
        """An answer holds *export* no longer; whether the export is gone."""
        export.pins -= 1
        return self._forget_if_gone(export)

    def _forget_if_gone(self, export: Export) -> bool:
        if export.gone:
            del self.entries[id(export.object)]
        return export.gone

    def check(self) -> None:
        """Raise AssertionError if the tables disagree."""
        self._numbered.check()
        for key, export in self.entries.items():
            assert key == id(export.object)
            assert not export.gone
            assert (export.id is None) == (export.references == 0)
        assert dict(self._numbered.items()) == {each.id: each for each in self.entries.values() if each.id is not None}
