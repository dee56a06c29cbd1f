"""
Runs all of the proof, one script after the other: ``make proof`` once, ``make soak HOURS=n`` again and again.

``TABLE`` has all command lines.  Each script ends with a line of `counts.Counts`.
A soak repeats the table with other seeds until its hours are over, and adds up
the counts.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attrs import define, field, frozen
from counts import SKIPPED, read_last_line

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

SECONDS_PER_HOUR = 3_600
TIDY_SECONDS = 20
PROOF_TIMEOUT_SECONDS = SECONDS_PER_HOUR / 2
SOAK_TIMEOUT_SECONDS = 3 * SECONDS_PER_HOUR
"""The time limit of one script.  Scripts with a given duration have this in addition."""

FAILED_CHARACTERS = 4_000
"""The part of a failed script's output that is printed once more at the end: its failures are its last lines."""


@frozen
class Script:
    """One script, and its arguments in the proof and in one round of the soak."""

    name: str
    proof: str
    """Arguments; ``{seed}`` stands for the seed.  Empty: not part of the proof."""

    soak: str
    """``{seconds}`` stands for a quarter of the whole soak, which is for what has to go on without a break."""

    file: str = ""
    """Below tests/; `proof/NAME.py` if it is empty."""

    once: bool = False
    """Part of the first round of a soak only."""

    target: int = 0
    """The total that a soak has to reach over all rounds; 0 for none."""

    @property
    def path(self):
        """Return the path of the script."""
        return ROOT / "tests" / (self.file or f"proof/{self.name}.py")


# Longest first, so that no job is left alone with a long one.  In a soak kills, cuts and the lying disk have most of
# the time: twenty rounds of it, of half an hour each on two cores, reach their targets.
TABLE = (
    Script("kill", "--cycles 200 --seed {seed}", "--cycles 500 --seed {seed}", target=10_000),
    Script("lying", "--examples 2000 --seed {seed}", "--examples 50000 --seed {seed}", target=1_000_000),
    Script("fuzz", "--seed {seed}", "--seed {seed}", file="fuzz/run.py"),
    Script("sockets", "--examples 200 --seed {seed}", "--examples 200 --seed {seed}"),
    Script("diskerrors", "--cases 60 --fills 3 --seed {seed}", "--cases 60 --fills 3 --seed {seed}"),
    Script("filedamage", "--seed {seed}", "--seed {seed} --flips 4000 --cut-step 7 --manifest"),
    Script("failpoints", "--seed {seed}", "--seed {seed}", file="proof/everypoint.py"),
    Script("mutants", "--seed {seed}", "--seed {seed}", once=True),
    Script("powercut", "--cycles 60 --seed {seed}", "--cycles 150 --seed {seed}", target=3_000),
    Script("tornpages", "--images 500 --seed {seed}", "--images 2000 --seed {seed}"),
    Script("hostile", "--seconds 0.5 --without cable", "--seconds 3", file="hostile/report.py", once=True),
    Script("leaks", "--items 200000 --seed {seed}", "--items 200000 --seed {seed}"),
    Script("clocks", "--cycles 20 --seed {seed}", "--cycles 50 --seed {seed}"),
    Script("writeback", "--cases 5 --seed {seed}", "--cases 10 --seed {seed}"),
    Script("steady", "", "--seconds {seconds} --seed {seed}", once=True),
)


@define
class Sum:
    """The results of all rounds of one script."""

    target: int = 0
    n: int = 0
    unit: str = "cases"
    failures: int = 0
    voids: int = 0
    runs: int = 0
    bad_runs: int = 0
    seconds: float = 0.0
    skipped: dict = field(factory=dict)
    """The reasons, in the order in which they were given."""

    def add(self, said, status, seconds):
        """Add one more round."""
        self.runs += 1
        self.seconds += seconds
        self.bad_runs += status != 0
        if said is not None:
            self.n += said.n
            self.unit = said.unit
            self.failures += said.failures
            self.voids += said.voids
            self.skipped |= dict.fromkeys(said.skipped)

    def row(self, name):
        """Return its row of the table at the end."""
        bound = f"{3 / self.n:.2g}" if self.n > 3 and not self.failures else "-"
        verdict = "ok" if self.n else ""
        if self.bad_runs:
            verdict = f"{self.bad_runs} of {self.runs} RUNS FAILED"
        verdict = "; ".join([*([verdict] if verdict else []), *[f"{SKIPPED}{why}" for why in self.skipped]])
        n = f"{self.n:,} of {self.target:,}" if self.target else f"{self.n:,}"
        return (
            f"| {name} | {n} {self.unit} | {self.failures:,} | {bound} | {self.voids:,} | {self.seconds:,.0f} |"
            f" {verdict} |"
        )


@define
class Runner:
    """Runs scripts and adds up their counts."""

    soak: bool = False
    sums: dict[str, Sum] = field(factory=dict)
    running: set = field(factory=set, init=False)
    failed: list[str] = field(factory=list, init=False)
    """The ends of the outputs of scripts that failed."""

    def run(self, asked, jobs):
        """Run *jobs* scripts at once, each given with its arguments and its timeout."""
        with ThreadPoolExecutor(jobs) as pool:
            try:
                for script, said, status, seconds in pool.map(lambda each: self._ran(*each), asked):
                    known = self.sums.setdefault(script.name, Sum(script.target if self.soak else 0))
                    known.add(read_last_line(said), status, seconds)
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self.running):
                    end(process)
                raise

    def _ran(self, script, words, timeout):
        """Run a script, which is killed if it hangs; return its output, its status and its duration."""
        began = time.monotonic()
        # In a process group of its own, which contains its children.
        process = subprocess.Popen(
            [sys.executable, str(script.path), *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.running.add(process)
        try:
            said, status = process.communicate(timeout=timeout)[0], process.returncode
        except subprocess.TimeoutExpired:
            end(process)
            said = f"{process.communicate()[0]}\nHANGS: not over after {timeout:,.0f} s\n"
            status = 1
        self.running.discard(process)
        seconds = time.monotonic() - began
        head = f"\n--- {script.path.name} {' '.join(words)}  ({seconds:.0f} s)\n"
        print(f"{head}{said}", end="", flush=True)
        if status:
            self.failed.append(head + said[-FAILED_CHARACTERS:])
        return script, said, status, seconds

    def end(self, began):
        """Print the failures once more, where a log that was cut still has them, and the table; return the status."""
        print(*self.failed, sep="", end="")
        print("\n| Part | n | Failures | Rate at most | Voids | s | |\n|---|--:|--:|--:|--:|--:|---|")
        for name, each in self.sums.items():
            print(each.row(name))
        bad = sum(each.bad_runs for each in self.sums.values())
        left_out = sum(bool(each.skipped) for each in self.sums.values())
        verdict = (
            f"{bad} runs FAILED"
            if bad
            else "all held" + (f" but {left_out} skipped, wholly or in part" * bool(left_out))
        )
        print(f"{time.monotonic() - began:,.0f} s; {verdict}", flush=True)
        return 1 if bad or not self.sums else 0


def end(process):
    """End a script, which may clean up, and then all processes that it started."""
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(TIDY_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def arguments():
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--soak", type=float, metavar="HOURS", help="again and again for so long")
    parser.add_argument("--seed", type=int, default=None, help="the first seed [1; for a soak the time]")
    parser.add_argument("--only", action="append", choices=[each.name for each in TABLE], help="repeatable")
    parser.add_argument(
        "--without", action="append", default=[], choices=[each.name for each in TABLE], help="repeatable"
    )
    parser.add_argument("--jobs", type=int, default=2, help="scripts at once; most of them wait most of the time [2]")
    return parser.parse_args()


def main():
    """Run the command line; return the exit status."""
    asked, began = arguments(), time.monotonic()
    runner = Runner(soak=asked.soak is not None)
    scripts = [each for each in TABLE if (not asked.only or each.name in asked.only) and each.name not in asked.without]
    try:
        if asked.soak is None:
            seed = 1 if asked.seed is None else asked.seed
            words = [
                (script, script.proof.format(seed=seed).split(), PROOF_TIMEOUT_SECONDS)
                for script in scripts
                if script.proof
            ]
            runner.run(words, asked.jobs)
        else:
            soak(runner, scripts, asked)
    except KeyboardInterrupt:
        print("\nended by hand")
        # An interrupted soak still counts; an interrupted proof does not.
        return runner.end(began) or int(not runner.soak)
    return runner.end(began)


def soak(runner, scripts, asked):
    """Run round after round until the hours are over."""
    seconds = asked.soak * SECONDS_PER_HOUR
    end = time.monotonic() + seconds
    seed = int(time.time()) if asked.seed is None else asked.seed
    first = True
    while first or time.monotonic() < end:
        print(f"\n=== seed {seed}", flush=True)
        now = [script for script in scripts if script.soak and (first or not script.once)]
        values = {"seed": seed, "seconds": int(seconds / 4)}
        timeout = SOAK_TIMEOUT_SECONDS + values["seconds"]
        runner.run([(script, script.soak.format(**values).split(), timeout) for script in now], asked.jobs)
        first, seed = False, seed + 1


if __name__ == "__main__":
    sys.exit(main())
