"""Whether the server is fit to be sent work, and if not, why."""

from attrs import frozen

from queueber.server.monitoring.diagnostics import Diagnostics

COMMIT_SECONDS_MAX = 10.0
"""A commit that takes longer than this hangs: disks that work, however slow, do not."""


@frozen
class Check:
    """One of the things that have to be right."""

    name: str
    passed: bool
    says: str


def absent(stage: str) -> list[Check]:
    """All checks of a server that does not serve yet or any more, but is at *stage*."""
    return [Check("serving", passed=False, says=stage)]


def readiness(inside: Diagnostics) -> list[Check]:
    """All checks of a server that serves."""
    draining = inside.methods.draining
    age = inside.committer.load.age(inside.reactor.seconds())
    lacks = inside.disk_lacks()
    return [
        Check("serving", passed=not draining, says="stopping" if draining else "serving"),
        Check("commits", passed=age <= COMMIT_SECONDS_MAX, says=_commit(age)),
        Check("disk", passed=not lacks, says=f"adds are refused: {lacks}" if lacks else "room for adds"),
    ]


def _commit(age: float) -> str:
    if not age:
        return "none is under way"
    hangs = f", and no disk that works takes {COMMIT_SECONDS_MAX:g}" if age > COMMIT_SECONDS_MAX else ""
    return f"one has been under way for {age:.1f} s{hangs}"
