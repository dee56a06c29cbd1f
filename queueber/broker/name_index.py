"""The names of queues in order, and by label."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator
from typing import TypeAlias

Label: TypeAlias = tuple[str, str]
"""A name and a value."""


class NameIndex:
    """
    Finds names by prefix, in the order of their code points, which is that of their bytes in UTF-8.

    A new name costs an append.  The next search sorts it in, which takes one pass over all names, so that many new
    ones share it.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        """Also the discarded ones; new ones are at the end until the next search."""

        self._in_order = True
        self._discarded: set[str] = set()
        self._by_label: dict[Label, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._names) - len(self._discarded)

    def add(self, name: str) -> None:
        """Add a name that is not here."""
        if name in self._discarded:
            self._discarded.remove(name)
            return
        self._names.append(name)
        self._in_order = False

    def discard(self, name: str) -> None:
        """Remove a name that is here, and has no labels."""
        self._discarded.add(name)

    def relabel(self, name: str, old: Collection[Label], new: Collection[Label]) -> None:
        """Replace the labels of *name*."""
        for label in old:
            names = self._by_label[label]
            del names[name]
            if not names:
                del self._by_label[label]
        for label in new:
            self._by_label.setdefault(label, {})[name] = None

    def search(self, prefix: str = "", *, label: Label | None = None, after: str = "") -> Iterator[str]:
        """Return the names that begin with *prefix*, above *after*, and with *label* if one is given, in order."""
        if label is None:
            self._sort()
            names = self._names
        else:
            names = sorted(self._by_label.get(label, ()))
        at = max(bisect_left(names, prefix), bisect_right(names, after) if after else 0)
        while at < len(names) and names[at].startswith(prefix):
            if names[at] not in self._discarded:
                yield names[at]
            at += 1

    def _sort(self) -> None:
        if 2 * len(self._discarded) > len(self._names):
            self._names = [name for name in self._names if name not in self._discarded]
            self._discarded.clear()
        if not self._in_order:
            self._names.sort()
            self._in_order = True
