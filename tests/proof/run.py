"""
All of the proof, one script after the other: ``make proof`` once, ``make soak HOURS=n`` again and again.

``TABLE`` is the one place where the command lines are.  Each script ends with a
line of `tally.Tally`; a soak repeats the table with other seeds until its hours
are over, and adds up.
"""

import argparse
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attrs import define, field, frozen
from tally import told

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

SECONDS_PER_HOUR = 3_600


@frozen
class Line:
    """One script: what it is called with for the proof, and for one round of the soak."""

    name: str
    proof: str
    """Arguments; ``{seed}`` stands for the seed.  Empty: not part of the proof."""

    soak: str
    """``{seconds}`` stands for a quarter of the whole soak, which is for what has to go on without a break."""

    script: str = ""
    """Below tests/; `proof/NAME.py` if it is empty."""

    once: bool = False
    """Part of the first round of a soak only."""

    @property
    def path(self):
        """The script."""
        return ROOT / "tests" / (self.script or f"proof/{self.name}.py")


TABLE = (
    Line("kill", "--cycles 200 --seed {seed}", "--cycles 500 --seed {seed}"),
    Line("failpoints", "--seed {seed}", "--seed {seed}", script="proof/everypoint.py"),
    Line("lying", "--examples 2000 --seed {seed}", "--examples 20000 --seed {seed}"),
    Line("sockets", "--examples 100 --seed {seed}", "--examples 1000 --seed {seed}"),
    Line("clocks", "--cycles 20 --seed {seed}", "--cycles 200 --seed {seed}"),
    Line("mutants", "--seed {seed}", "--seed {seed}", once=True),
    Line("powercut", "--cycles 60 --seed {seed}", "--cycles 150 --seed {seed}"),
    Line("diskerrors", "--cases 60 --fills 3 --seed {seed}", "--cases 200 --fills 10 --seed {seed}"),
    Line("writeback", "--cases 5 --seed {seed}", "--cases 20 --seed {seed}"),
    Line("filedamage", "--seed {seed}", "--seed {seed} --flips 6000 --zeros 1500 --manifest"),
    Line("tornpages", "--images 500 --seed {seed}", "--images 4000 --seed {seed}"),
    Line("fuzz", "--frames 60000 --sessions 1500 --seed {seed}", "--seed {seed}", script="fuzz/run.py"),
    Line("hostile", "--seconds 0.5 --without cable", "--seconds 3", script="hostile/report.py"),
    Line("leaks", "--items 200000 --seed {seed}", "--items 1000000 --seed {seed}"),
    Line("steady", "", "--seconds {seconds} --seed {seed}", once=True),
)


@define
class Sum:
    """What all rounds of one line come to."""

    n: int = 0
    unit: str = "cases"
    failures: int = 0
    voids: int = 0
    runs: int = 0
    bad_runs: int = 0
    seconds: float = 0.0

    def add(self, said, status, seconds):
        """One more round."""
        self.runs += 1
        self.seconds += seconds
        self.bad_runs += status != 0
        if said is not None:
            self.n += said.n
            self.unit = said.unit
            self.failures += said.failures
            self.voids += said.voids

    def row(self, name):
        """A row of the table at the end."""
        bound = f"{3 / self.n:.2g}" if self.n and not self.failures else "-"
        verdict = "ok" if not self.bad_runs else f"{self.bad_runs} of {self.runs} RUNS FAILED"
        return (
            f"| {name} | {self.n:,} {self.unit} | {self.failures:,} | {bound} | {self.voids:,} | {self.seconds:,.0f} |"
            f" {verdict} |"
        )


@define
class Runner:
    """Runs scripts and adds up what they say."""

    sums: dict[str, Sum] = field(factory=lambda: defaultdict(Sum))

    def run(self, asked, jobs):
        """Run scripts, each a line of the table and its words, so many at once; what each says comes in one piece."""
        with ThreadPoolExecutor(jobs) as pool:
            for line, said, status, seconds in pool.map(lambda each: _ran(*each), asked):
                self.sums[line.name].add(told(said), status, seconds)

    def end(self, began):
        """Print the table; the status."""
        print("\n| Part | n | Failures | Rate at most | Voids | s | |\n|---|--:|--:|--:|--:|--:|---|")
        for name, each in self.sums.items():
            print(each.row(name))
        bad = sum(each.bad_runs for each in self.sums.values())
        print(f"{time.monotonic() - began:,.0f} s; " + (f"{bad} runs FAILED" if bad else "all held"))
        return 1 if bad else 0


def _ran(line, words):
    """What a script said, its status, and how long it took."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(line.path), *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    seconds = time.monotonic() - began
    print(f"\n--- {line.path.name} {' '.join(words)}  ({seconds:.0f} s)\n{done.stdout}", end="", flush=True)
    return line, done.stdout, done.returncode, seconds


def arguments():
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--soak", type=float, metavar="HOURS", help="again and again for so long")
    parser.add_argument("--seed", type=int, default=None, help="the first seed [1; for a soak the time]")
    parser.add_argument("--only", action="append", choices=[each.name for each in TABLE], help="repeatable")
    parser.add_argument("--jobs", type=int, default=2, help="scripts at once; most of them wait most of the time [2]")
    return parser.parse_args()


def main():
    """The status."""
    asked, runner, began = arguments(), Runner(), time.monotonic()
    lines = [each for each in TABLE if not asked.only or each.name in asked.only]
    if asked.soak is None:
        seed = 1 if asked.seed is None else asked.seed
        runner.run([(line, line.proof.format(seed=seed).split()) for line in lines if line.proof], asked.jobs)
        return runner.end(began)
    seconds = asked.soak * SECONDS_PER_HOUR
    seed = int(time.time()) if asked.seed is None else asked.seed
    first = True
    try:
        while first or time.monotonic() < began + seconds:
            print(f"\n=== seed {seed}", flush=True)
            now = [line for line in lines if line.soak and (first or not line.once)]
            words = {"seed": seed, "seconds": int(seconds / 4)}
            runner.run([(line, line.soak.format(**words).split()) for line in now], asked.jobs)
            first, seed = False, seed + 1
    except KeyboardInterrupt:
        print("\nended by hand")
    return runner.end(began)


if __name__ == "__main__":
    sys.exit(main())
