"""
Exports: our objects that the peer can call.

State model
-----------

An object has an export id while the peer holds references to it: each time it
is sent adds one, and Release drops some.  It is pinned while an answer holds it,
because calls may be made to the results of that answer, even after the peer has
released the id.  An export without references and pins is gone, and its owner
may forget the object.

Invariant: an export has an id if and only if it has references, and is in the
table if and only if it has references or pins.
"""

from collections.abc import Iterator, Sequence

from queueber.errors import Overloaded, RemoteProtocolError
from queueber.rpc.id_table import IdTable
from queueber.rpc.messages import ExportId
from queueber.units import counted


class Export:
    """One object that the peer can call."""

    __slots__ = ("id", "object", "pins", "references")

    def __init__(self, each: object) -> None:
        """Export *each*, to which the peer holds no reference yet."""
        self.object = each
        self.id: ExportId | None = None
        """The export id; None while the peer holds no reference."""

        self.references = 0
        """References the peer holds."""

        self.pins = 0
        """Answers that hold it."""

    @property
    def gone(self) -> bool:
        """Whether the peer can no longer call the object."""
        return not self.references and not self.pins


class Exports:
    """All our objects that one peer can call."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._numbered: IdTable[Export] = IdTable()
        self.entries: dict[int, Export] = {}
        """All exports by the `id` of their object, which is not reused while the export holds the object."""

    def __len__(self) -> int:
        return len(self.entries)

    def items(self) -> Iterator[Export]:
        """Return all exports, the oldest first."""
        return iter(self.entries.values())

    def admit(self, objects: Sequence[object]) -> None:
        """
        Check that *objects* can be exported.

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
        """Add a reference and a pin to the export of *each*, and return it."""
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
        Return the export with the id *number*.

        Raises:
            RemoteProtocolError: the peer holds no such export.
        """
        export = self.get(number)
        if export is None:
            raise RemoteProtocolError(f"{number} is not an export")
        return export

    def get(self, number: ExportId) -> Export | None:
        """Return the export with the id *number*; None if the peer holds no such export."""
        return self._numbered.find(number)

    def release(self, export: Export, count: int) -> bool:
        """
        Drop *count* references of the peer, and return whether the export is gone.

        Raises:
            RemoteProtocolError: the peer holds fewer references.
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
        """Drop the pin of an answer, and return whether the export is gone."""
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
