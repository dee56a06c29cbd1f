"""Counts of tries and failures, and the bound on the rate of failures that follows from them."""

import argparse
import re
import sys

from attrs import define, field, frozen

LINE = re.compile(
    r"^(?P<name>\S+): (?P<n>[\d,]+) (?P<unit>[\w ]+), (?P<failures>[\d,]+) failures, .*; voids (?P<voids>[\d,]+)$"
)
SKIPPED = "skipped: "
TRIES_PER_TARGET = 2


@define
class Counts:
    """The last line of a script, and its status."""

    name: str
    unit: str = "cycles"
    target: int = 1
    """The number of tries that have to count."""

    n: int = 0
    """Tries that count.  A void try, in which too little happened to prove anything, does not."""

    voids: int = 0
    failures: list[str] = field(factory=list)

    def count(self, failures=()):
        """Count one more try with these errors."""
        self.n += 1
        if failures:
            self.failures.append("; ".join(failures))

    def void(self, tries=1):
        """Count more void tries."""
        self.voids += tries

    def rounds(self, size):
        """Return how many to try next, at most *size*, until enough have counted or twice as many were tried."""
        tried = 0
        while self.n < self.target and tried < TRIES_PER_TARGET * self.target:
            count = min(size, self.target - self.n)
            yield count
            tried += count

    def settle(self, tries, void, findings):
        """Count the tries of one history, of which some are void, with its errors.  An error in a void try counts."""
        self.void(void)
        self.n += tries - void
        if findings:
            self.failures.append("; ".join(findings))

    def __str__(self):
        bound = f"at most {3 / self.n:.3g} (3/n)" if self.n > 3 and not self.failures else "unknown"
        return (
            f"{self.name}: {self.n:,} {self.unit}, {len(self.failures):,} failures, bound on the rate {bound};"
            f" voids {self.voids:,}"
        )

    def end(self, repeat):
        """Print the failures, the command to *repeat* them, and the last line; return the status."""
        for failure in self.failures[:20]:
            print(f"FAILED: {failure}")
        if self.failures:
            print(f"repeat with: {repeat}")
        if self.n < self.target:
            print(f"TOO LITTLE: {self.n:,} of {self.target:,} {self.unit} counted")
        print(self, flush=True)
        return 1 if self.failures or self.n < self.target else 0

    def skip(self, why):
        """Report that nothing can be tried here; return the status."""
        print(f"{SKIPPED}{why}")
        print(self, flush=True)
        return 0


@frozen
class LastLine:
    """The values in the last line of a script's output."""

    n: int
    unit: str
    failures: int
    voids: int
    skipped: tuple[str, ...] = ()
    """The reason why nothing could be tried."""


def read_last_line(output):
    """Return the values in the last line of *output*; None if it has another form."""
    lines = output.strip().splitlines()
    skipped = tuple(line.removeprefix(SKIPPED) for line in lines if line.startswith(SKIPPED))
    found = LINE.match(lines[-1]) if lines else None
    if found is None:
        return None
    n, failures, voids = (int(found[each].replace(",", "")) for each in ("n", "failures", "voids"))
    return LastLine(n, found["unit"], failures, voids, skipped)


def from_command_line(description, run, **option):
    """
    Call *run* with the value of the one *option*, a name with its default, and of ``--seed``.

    Print the counts that it returns, and return the exit status.
    """
    ((name, default),) = option.items()
    parser = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    return run(getattr(asked, name), asked.seed).end(command_line())


def command_line():
    """Return the command that started this process, for a person to repeat."""
    return " ".join([".venv/bin/python", *sys.argv])
