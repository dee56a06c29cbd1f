"""The loads that every server is measured with, by name."""

from attrs import frozen

MIXED = "mixed"
"""In place of a size: each item has a length of its own in `MIXED_RANGE`, drawn from a fixed seed."""

OWN = "own"
"""The end of a name: calls are laid out as by Queueber's own client."""

MIXED_RANGE = 16, 2_048
MIXED_BYTES = sum(MIXED_RANGE) // 2

WORDS = {"add": "add", "take": "poll + remove", "cycle": "cycle", "remove": "remove"}
BYTES_IN_FLIGHT_MAX = 12 << 20
"""On one connection: what servers are willing to hold."""

PRELOAD_BYTES_MAX = 256 << 20

# Slower servers have fewer items to take than would last; a load ends when there are no more.
PRELOAD_PER_SECOND = 120_000


@frozen
class Scenario:
    """One load."""

    kind: str
    connections: int
    window: int
    """Calls in flight on each connection."""

    items: int
    """Items in each add and poll."""

    size: int | str = 64
    """Bytes in each item, or `MIXED`."""

    own: bool = False
    """Whether calls are laid out as by Queueber's client: the target before the parameters, and not after them."""

    @property
    def name(self):
        """Return its name on the command line."""
        size = "" if self.size == 64 else f"-{self.size}" if self.size == MIXED else f"-{self.size}B"
        return f"{self.kind}-{self.connections}x{self.window}x{self.items}{size}{f'-{OWN}' * self.own}"

    @property
    def mean_size(self):
        """Bytes in an item on average."""
        return MIXED_BYTES if self.size == MIXED else self.size

    @property
    def sensible(self):
        """Whether servers would take it."""
        return self.window * self.items * self.mean_size <= BYTES_IN_FLIGHT_MAX

    def load(self):
        """Return the arguments of `load.Load`."""
        names = ("kind", "connections", "window", "items", "size", "own")
        return {name: getattr(self, name) for name in names}

    def preload(self, seconds):
        """Items to have before the load begins, if it lasts for *seconds*."""
        if self.kind == "add":
            return 0
        if self.kind == "cycle":
            return 2_000
        in_flight = self.connections * self.window
        most = PRELOAD_BYTES_MAX // self.mean_size
        return min(most, int(min(PRELOAD_PER_SECOND, in_flight * 12_000) * seconds))


def parsed(name):
    """The scenario of that name, such as ``take-16x16x10-1024B`` or ``add-64x1x1-mixed-own``."""
    kind, shape, *rest = name.split("-")
    own = rest[-1:] == [OWN]
    size = rest[:-1] if own else rest
    connections, window, items = map(int, shape.split("x"))
    if kind not in WORDS:
        raise ValueError(f"no such load: {kind}")
    sizes = (each if each == MIXED else int(each.removesuffix("B")) for each in size)
    return Scenario(kind, connections, window, items, *sizes, own=own)


def all_scenarios():
    """Every combination that servers would take."""
    every = (
        Scenario(kind, connections, window, items, size)
        for kind in ("add", "take", "cycle")
        for size in (MIXED, 64, 1_024, 65_536)
        for items in (1, 10, 100)
        for connections in (1, 4, 64)
        for window in (1, 64)
    )
    return [each for each in every if each.sensible]


USUAL = [
    parsed(name)
    for name in (
        "add-1x1x1-mixed",
        "add-64x1x1-mixed",
        "add-4x64x1-mixed",
        "add-4x16x100-mixed",
        "take-1x1x1-mixed",
        "take-64x1x1-mixed",
        "take-16x1x10-mixed",
        "take-16x16x10-mixed",
        "cycle-128x1x1-mixed",
        "add-4x64x1",
        "add-4x8x1-65536B",
    )
]
"""Contents of mixed length first: a load whose calls are all alike flatters a server."""

QUICK = [
    parsed(f"{name}-mixed") for name in ("add-1x1x1", "add-64x1x1", "add-4x16x100", "take-16x16x10", "cycle-128x1x1")
]
