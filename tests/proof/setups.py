"""
Configurations of servers for crashes, in which what is rare under a small load happens all the time.

With tiny write buffers logs change and tables are made under load.  With tiny
windows a queue of some hundred items lies mostly on disk, so that windows are
trimmed and refilled.  These bounds are not options of a server: `serverhost`
sets them.
"""

from attrs import frozen

TINY_BUFFERS = ("--storage-write-buffer-bytes=65536", "--storage-log-bytes=1MiB")
TINY_WINDOWS = {"window_bytes": 128 << 10, "queue_window_bytes": 32 << 10, "refill_items": 40, "refill_bytes": 16 << 10}


@frozen
class Shape:
    """The configuration of a server: its options, and bounds of `queueber.limits.Limits` that are no options."""

    options: tuple[str, ...] = ()
    limits: dict | None = None

    def with_options(self, more):
        """Return the same with more options."""
        return Shape((*self.options, *more), self.limits)

    def __str__(self):
        words = [each.removeprefix("--") for each in self.options] + (["tiny windows"] if self.limits else [])
        return ", ".join(words) or "as it comes"


def drawn(random, *, power=False):
    """Return one at random.  For cuts of the *power* acknowledged writes must be synced."""
    options = (*TINY_BUFFERS,) if random.random() < 0.5 else ()
    if random.random() < 0.4:
        options += ("--storage-encoding=packed",)
    if random.random() < 0.25 and not power:
        options += ("--durability=os",)
    return Shape(options, TINY_WINDOWS if random.random() < 0.5 else None)
