"""
What has become of every task of a simulation.

A task was *asked* for when its add was sent, is *produced* once that is
acknowledged, and must never be lost from there on; it is *removed* once a remove
is acknowledged, and must never be seen again from there on.  An add or a
remove whose answer never came may have taken effect or not.
"""

from collections import Counter
from collections.abc import Mapping

from attrs import define, field

from queueber.units import SpanMs, WallMs

SAMPLES_MAX = 10
"""So many of each complaint are named."""


@define
class _Task:
    produced: bool = False
    removed: bool = False
    deliveries: int = 0
    held_until: int = 0
    """By the server's clock, at least."""

    removing: int = 0
    """Removes that were sent and not answered: it may be gone."""

    found: bool = False
    """It was there when everything was counted."""


@define
class Ledger:
    """All tasks by their names, which are the contents of the items."""

    counts: Counter[str] = field(factory=Counter)
    faults: Counter[str] = field(factory=Counter)
    """Broken promises, by what was broken."""

    samples: dict[str, list[str]] = field(factory=dict)
    """The first tasks of each."""

    _tasks: dict[bytes, _Task] = field(factory=dict)

    def __len__(self) -> int:
        """How many tasks are known."""
        return len(self._tasks)

    def __contains__(self, name: bytes) -> bool:
        """Whether it is a task: an add of it was sent."""
        return name in self._tasks

    def asked(self, name: bytes) -> None:
        """An add of it is on its way."""
        self._tasks[name] = _Task()

    def produced(self, name: bytes) -> None:
        """The add was acknowledged."""
        self.counts["produced"] += 1
        self._tasks[name].produced = True

    def refused(self, name: bytes) -> None:
        """The add was refused: nothing was done."""
        self.counts["refused"] += 1
        if self._tasks[name].deliveries:
            self._fault("handed out though its add was refused", name)
        else:
            del self._tasks[name]

    def taken(self, name: bytes, deadline: WallMs, span: SpanMs) -> None:
        """A poll brought it, under a lease of *span* that ends at *deadline* by the server's clock."""
        task = self._tasks.get(name)
        if task is None:
            self._fault("handed out though nobody added it", name)
            return
        self.counts["taken"] += 1
        self.counts["duplicates"] += task.deliveries > 0
        task.deliveries += 1
        if task.removed:
            self._fault("handed out after its remove was acknowledged", name)
        if deadline - span < task.held_until:
            self._fault("handed out while another lease on it was live", name)
        task.held_until = deadline

    def removing(self, name: bytes) -> None:
        """A remove of it is on its way."""
        if name in self._tasks:
            self._tasks[name].removing += 1

    def removed(self, name: bytes, did: bool) -> None:
        """The remove was answered: it *did* remove it, or the lease had ended."""
        task = self._tasks.get(name)
        if task is not None:
            task.removing -= 1
        if not did:
            self.counts["too late"] += 1
            return
        if task is None:
            self.counts["foreign"] += 1
        elif task.removed:
            self._fault("removed twice", name)
        else:
            self.counts["removed"] += 1
            task.removed = True

    def found(self, name: bytes) -> None:
        """It was in the queue when everything was counted, once the simulation was over."""
        task = self._tasks.get(name)
        if task is None:
            self._fault("found though nobody added it", name)
            self.counts["foreign"] += 1
        elif task.removed:
            self._fault("found after its remove was acknowledged", name)
        elif task.found:
            self._fault("found twice", name)
        else:
            task.found = True
            self.counts["found"] += 1

    def close(self, waiting: int) -> dict[str, int]:
        """
        The account: all that was produced is removed, waiting or leased, or it is lost.

        *waiting* were found at once, the others only when leases had ended.  What came out and was nobody's
        task is foreign, and no part of the sums.
        """
        counts = self.counts
        for name, task in self._tasks.items():
            gone = not (task.removed or task.found)
            if not task.produced:
                # Nobody was told that it had been added; but if it was there, it had been.
                counts["unacknowledged"] += not gone
            elif gone and task.removing:
                counts["unknown"] += 1
            elif gone:
                self._fault("lost", name)
        return {
            "produced": counts["produced"],
            "unacknowledged": counts["unacknowledged"],
            "removed": counts["removed"],
            "waiting": waiting,
            "leased": counts["found"] - waiting,
            "unknown": counts["unknown"],
            "lost": self.faults["lost"],
            "foreign": counts["foreign"],
            "duplicates": counts["duplicates"],
        }

    def _fault(self, what: str, name: bytes) -> None:
        self.faults[what] += 1
        samples = self.samples.setdefault(what, [])
        if len(samples) < SAMPLES_MAX:
            samples.append(name.decode(errors="replace"))


def balanced(account: Mapping[str, int]) -> bool:
    """Whether the sums meet: what came in is what is there or went out."""
    came = account["produced"] + account["unacknowledged"]
    return came == sum(account[name] for name in ("removed", "waiting", "leased", "unknown"))
