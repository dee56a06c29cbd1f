"""Whether the server is fit to be sent work, and if not, why."""

from attrs import frozen

from queueber.server.inside import Inside

COMMIT_SECONDS_MAX = 10.0
"""A commit that takes longer than this hangs: disks that work, however slow, do not."""


@frozen
class Check:
    """One of the things that have to be right."""

    name: str
    passed: bool
    says: str


def readiness(inside: Inside | None) -> list[Check]:
    """All checks of a server; None is one that has not recovered yet or has stopped."""
    if inside is None:
        return [Check("serving", passed=False, says="starting, or stopped")]
    draining = inside.methods.draining
    age = inside.committer.load.age(inside.reactor.seconds())
    low = inside.disk_is_low()
    return [
        Check("serving", passed=not draining, says="stopping" if draining else "serving"),
        Check("commits", passed=age <= COMMIT_SECONDS_MAX, says=f"the commit under way takes {age:.1f} s so far"),
        Check("disk", passed=not low, says=f"free space is {'below' if low else 'above'} the reserve"),
    ]
