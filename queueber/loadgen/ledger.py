"""
The state of every task of a simulation.

A task is *asked* for when its add is sent, and *produced* once the add is
acknowledged; from then on it must not be lost.  It is *removed* once a remove
is acknowledged; from then on it must not be delivered.  An add or a remove
without an answer may have taken effect or not.
"""

from collections import Counter
from collections.abc import Mapping

from attrs import define, field

from queueber.units import SpanMs, WallMs

SAMPLES_MAX = 10
"""Most tasks that are named for each fault."""


@define
class _Task:
    produced: bool = False
    removed: bool = False
    deliveries: int = 0
    held_until: int = 0
    """Lower bound for the end of the latest lease, by the server's clock."""

    removing: int = 0
    """Removes without an answer: the task may be gone."""

    found: bool = False
    """The final count found the task."""


@define
class Ledger:
    """All tasks by name.  The name is the contents of the item."""

    counts: Counter[str] = field(factory=Counter)
    faults: Counter[str] = field(factory=Counter)
    """Broken promises, by kind."""

    samples: dict[str, list[str]] = field(factory=dict)
    """The first tasks of each kind of fault."""

    _tasks: dict[bytes, _Task] = field(factory=dict)

    def __len__(self) -> int:
        """Return the number of known tasks."""
        return len(self._tasks)

    def __contains__(self, name: bytes) -> bool:
        """Return whether an add of *name* was sent."""
        return name in self._tasks

    def asked(self, name: bytes) -> None:
        """Record that an add of *name* is sent."""
        self._tasks[name] = _Task()

    def produced(self, name: bytes) -> None:
        """Record that the add was acknowledged."""
        self.counts["produced"] += 1
        self._tasks[name].produced = True

    def refused(self, name: bytes) -> None:
        """Record that the add was refused, which means that nothing was done."""
        self.counts["refused"] += 1
        if self._tasks[name].deliveries:
            self._fault("delivered although its add was refused", name)
        else:
            del self._tasks[name]

    def taken(self, name: bytes, deadline: WallMs, span: SpanMs) -> None:
        """Record a delivery under a lease of *span* that ends at *deadline* by the server's clock."""
        task = self._tasks.get(name)
        if task is None:
            self._fault("delivered but never added", name)
            return
        self.counts["taken"] += 1
        self.counts["duplicates"] += task.deliveries > 0
        task.deliveries += 1
        if task.removed:
            self._fault("delivered after its remove was acknowledged", name)
        if deadline - span < task.held_until:
            self._fault("delivered while another lease on it was live", name)
        task.held_until = deadline

    def removing(self, name: bytes) -> None:
        """Record that a remove is sent."""
        if name in self._tasks:
            self._tasks[name].removing += 1

    def removed(self, name: bytes, did: bool) -> None:
        """Record the answer to a remove: it *did* remove the task, or the lease had ended."""
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
        """Record that the final count found the task in the queue."""
        task = self._tasks.get(name)
        if task is None:
            self._fault("found but never added", name)
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
        Return the account: each produced task is removed, waiting, leased or lost.

        *waiting* tasks were found at once, the others after the leases had ended.  Items that are not tasks of this
        simulation are foreign and not part of the sums.
        """
        counts = self.counts
        for name, task in self._tasks.items():
            gone = not (task.removed or task.found)
            if not task.produced:
                # The add was not acknowledged; if the task was seen, it took effect.
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
    """Return whether all stored tasks are accounted for."""
    came = account["produced"] + account["unacknowledged"]
    return came == sum(account[name] for name in ("removed", "waiting", "leased", "unknown"))
