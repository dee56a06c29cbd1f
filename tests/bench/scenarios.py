"""What is done to every server, by name."""

from attrs import frozen
from servers import PRELOAD_PER_SECOND

WORDS = {"add": "add", "take": "poll + remove", "cycle": "cycle", "remove": "remove"}
BYTES_IN_FLIGHT_MAX = 12 << 20
"""On one connection: what servers are willing to hold."""

PRELOAD_BYTES_MAX = 256 << 20


@frozen
class Scenario:
    """One load."""

    kind: str
    connections: int
    window: int
    """Calls in flight on each connection."""

    items: int
    """Items in each add and poll."""

    size: int = 64
    """Bytes in each item."""

    @property
    def name(self):
        """As one gives it on the command line."""
        size = f"-{self.size}B" if self.size != 64 else ""
        return f"{self.kind}-{self.connections}x{self.window}x{self.items}{size}"

    @property
    def sensible(self):
        """Whether servers would take it."""
        return self.window * self.items * self.size <= BYTES_IN_FLIGHT_MAX

    def load(self):
        """As `load.Load` wants it."""
        names = ("kind", "connections", "window", "items", "size")
        return {name: getattr(self, name) for name in names}

    def preload(self, seconds):
        """Items to have before the load begins, if it lasts for *seconds*."""
        if self.kind == "add":
            return 0
        if self.kind == "cycle":
            return 2_000
        in_flight = self.connections * self.window
        most = PRELOAD_BYTES_MAX // self.size
        return min(most, int(min(PRELOAD_PER_SECOND, in_flight * 12_000) * seconds))


def parsed(name):
    """The scenario of that name, such as ``take-16x16x10-1024B``."""
    kind, shape, *size = name.split("-")
    connections, window, items = map(int, shape.split("x"))
    if kind not in WORDS:
        raise ValueError(f"no such load: {kind}")
    return Scenario(kind, connections, window, items, *(int(each.removesuffix("B")) for each in size))


def all_scenarios():
    """Every combination that servers would take."""
    every = (
        Scenario(kind, connections, window, items, size)
        for kind in ("add", "take", "cycle")
        for size in (64, 1_024, 65_536)
        for items in (1, 10, 100)
        for connections in (1, 4, 64)
        for window in (1, 64)
    )
    return [each for each in every if each.sensible]


USUAL = [
    parsed(name)
    for name in (
        "add-1x1x1",
        "add-4x64x1",
        "add-64x1x1",
        "add-4x16x100",
        "add-4x64x1-1024B",
        "add-4x8x1-65536B",
        "take-1x1x1",
        "take-4x64x1",
        "take-16x16x10",
        "cycle-4x64x1",
        "cycle-4x16x10",
    )
]
QUICK = [parsed(name) for name in ("add-1x1x1", "add-4x64x1", "add-4x16x100", "take-16x16x10", "cycle-4x16x10")]
