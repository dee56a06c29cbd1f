"""
Damages files of a data directory, each on a copy, which must be refused or identical.

1. The log is cut at every byte: the contents are those after some commit, not before the one noted.
2. One bit is changed: in the log, tables, blob files, the manifest; and in CURRENT, OPTIONS, the note, the markers.
3. Files are missing, empty, all zeros, or older; sectors and pages of them are zeros.

A refused copy is opened once more as after a reboot, for which the damage might
be the trace of a power cut.  Then the last commit may be missing if it was not
noted as synced and the loss is reported.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from attrs import define, field
from chronicle import BOOT, OTHER_BOOT, Opener, apart, write
from counts import Counts, command_line

# No data: RocksDB's own log, locks, and the files that rocksdict adds.
WITHOUT_MEANING = ("LOG", "LOCK", "lock", "rocksdict-config.json")


@define
class Bench:
    """Damages copies in a folder, opens and judges them."""

    folder: Path
    counts: Counts
    opener: Opener = field(factory=Opener)
    seen: dict = field(factory=dict)
    _number: int = 0

    def attempt(self, what, chronicle, damage, allowed, *, reboot=True):
        """Judge copies of *chronicle* after *damage*: their digest is one of *allowed*, or they are refused."""
        outcome = self._attempt(what, chronicle, damage, allowed, BOOT)
        if outcome == "refused" and reboot:
            # Only then does the boot matter.
            self._attempt(what, chronicle, damage, allowed, OTHER_BOOT)

    def _attempt(self, what, chronicle, damage, allowed, boot_id):
        self._number += 1
        copy = self.folder / f"case-{self._number}"
        shutil.copytree(chronicle.path, copy)
        damage(copy)
        kind, said = self.opener.opened(copy, boot_id)
        shutil.rmtree(copy, ignore_errors=True)
        outcome, failures = kind, []
        if kind == "died":
            failures = [f"{what}: {said}"]
        elif kind == "gave":
            state, dropped = said
            outcome = "opened" if dropped is None else "cut off"
            if dropped is not None:
                allowed = chronicle.states[-2:-1] if chronicle.noted < len(chronicle.states) else []
            if state not in allowed or (dropped is not None and boot_id == BOOT):
                number = chronicle.states.index(state) + 1 if state in chronicle.states else "none"
                of = len(chronicle.states)
                failures = [f"{what}, boot {boot_id}: opened with the state after commit {number} of {of}: {dropped}"]
        label = what.split(":")[0] + ("" if boot_id == BOOT else ", rebooted")
        self.seen[label, outcome] = self.seen.get((label, outcome), 0) + 1
        self.counts.count(failures)
        return outcome


def files_of(path):
    """Return the files that may matter, by their names below *path*."""
    files = [file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file()]
    return [file for file in files if not file.name.startswith(WITHOUT_MEANING)]


def newest_log(path):
    """Return the file's name below *path*."""
    return max(
        (log for log in (path / "db").glob("*.log") if log.stat().st_size), key=lambda log: log.stem
    ).relative_to(path)


def cuts(bench, chronicle, step, random):
    """Cut the log at every *step*-th byte."""
    log = newest_log(chronicle.path)
    size = (chronicle.path / log).stat().st_size

    for at in range(random.randrange(step), size + 1, step):

        def cut(copy, at=at):
            with (copy / log).open("r+b") as file:
                file.truncate(at)

        whole = sum(end <= at for end in chronicle.log_ends)
        allowed = [chronicle.states[whole - 1]] if whole >= chronicle.noted else []
        # Most are refused because of the note, on any boot.
        bench.attempt(f"cut: {log} at {at} of {size}", chronicle, cut, allowed, reboot=at % 8 == 0)


# The share of each kind of file in the bits that are changed in data.
SHARES = {"log": 0.4, "table": 0.25, "blob file": 0.15, "manifest": 0.2}


def kind_of(name):
    """Return the kind of a file with data or its order in it; for the small files around them, the name."""
    kinds = {".log": "log", ".sst": "table", ".blob": "blob file"}
    return "manifest" if name.name.startswith("MANIFEST") else kinds.get(name.suffix, name.name.split("-")[0])


def places(chronicles):
    """Return the files that are not empty, by kind."""
    found = {}
    for chronicle in chronicles:
        for name in files_of(chronicle.path):
            if (chronicle.path / name).stat().st_size:
                found.setdefault(kind_of(name), []).append((chronicle, name))
    return found


def flips(bench, chronicles, count, count_small, random):
    """Change one bit, *count* times in the data, and *count_small* times in the small files."""
    found = places(chronicles)
    small = [each for each in found if each not in SHARES]
    kinds = [kind for kind, share in SHARES.items() for _ in range(round(share * count))]
    for kind in kinds + [random.choice(small) for _ in range(count_small)]:
        chronicle, name = random.choice(found[kind])
        bit = random.randrange(8 * (chronicle.path / name).stat().st_size)

        def flip(copy, name=name, bit=bit):
            content = bytearray((copy / name).read_bytes())
            content[bit // 8] ^= 1 << bit % 8
            (copy / name).write_bytes(content)

        bench.attempt(
            f"bit in {kind}: {chronicle.path.parent.name} {name} {bit}", chronicle, flip, chronicle.states[-1:]
        )


def manifest_bits(bench, chronicle):
    """Change each bit of the manifest and of CURRENT."""
    for name in (each for each in files_of(chronicle.path) if each.name.startswith(("MANIFEST", "CURRENT"))):
        content = (chronicle.path / name).read_bytes()
        for bit in range(8 * len(content)):

            def flip(copy, name=name, bit=bit, content=content):
                changed = bytearray(content)
                changed[bit // 8] ^= 1 << bit % 8
                (copy / name).write_bytes(changed)

            what = f"each bit of {name.name.split('-')[0]}: {chronicle.path.parent.name} {bit}"
            bench.attempt(what, chronicle, flip, chronicle.states[-1:])


def zeros(bench, chronicles, count, random):
    """Replace *count* sectors and pages with zeros."""
    for _ in range(count):
        chronicle = random.choice(chronicles)
        name = random.choice([each for each in files_of(chronicle.path) if (chronicle.path / each).stat().st_size])
        unit = random.choice((512, 4_096, 32_768))
        size = (chronicle.path / name).stat().st_size
        at = random.randrange(-(-size // unit)) * unit

        def zero(copy, name=name, at=at, unit=unit, size=size):
            with (copy / name).open("r+b") as file:
                file.seek(at)
                file.write(bytes(min(unit, size - at)))

        what = f"zeros: {chronicle.path.parent.name} {name} {unit} bytes at {at} of {size}"
        bench.attempt(what, chronicle, zero, chronicle.states[-1:])


def whole_files(bench, chronicle):
    """Remove, empty, zero or revert each file; and revert the whole database."""
    folder, older = chronicle.path.parent.name, chronicle.older

    def changed(what, name, damage, *, harmless=False):
        # Only the note is missing: everything is there.
        bench.attempt(f"{what}: {folder} {name}", chronicle, damage, chronicle.states[-1:] if not harmless else [])

    for name in files_of(chronicle.path):
        size = (chronicle.path / name).stat().st_size
        changed("missing", name, lambda copy, name=name: (copy / name).unlink())
        changed("empty", name, lambda copy, name=name: (copy / name).write_bytes(b""))
        changed("all zeros", name, lambda copy, name=name, size=size: (copy / name).write_bytes(bytes(size)))
        # No promise covers a manifest that was replaced with an older one.
        if older and (older / name).exists() and (name.suffix == ".log" or name.name == "synced"):
            changed("older", name, lambda copy, name=name: shutil.copy(older / name, copy / name))
    if older:

        def rolled_back(copy):
            shutil.rmtree(copy / "db")
            shutil.copytree(older / "db", copy / "db")

        changed("older", "db, all of it", rolled_back, harmless=True)


def run(asked):
    """Run the command line; return the exit status."""
    counts, random = Counts("filedamage", "cases"), Random(asked.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="queueber-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as made:
        folder = Path(made)
        kinds = {
            # Some kilobytes of log, half of it noted; more, all of it noted; with tables and blob files.
            "log": {"commits": 10, "noted": 5, "sizes": (10, 60)},
            "noted": {"commits": 60},
            "tables": {"commits": 40, "sizes": (10, 80, 20_000), "flushes": (10, 20, 30)},
        }
        chronicles = {}
        for name, wanted in kinds.items():
            (folder / name).mkdir()
            kind, said = apart(lambda name=name, wanted=wanted: write(folder / name, asked.seed, **wanted))
            assert kind == "gave", said
            chronicles[name] = said
        bench = Bench(folder, counts)
        for chronicle in chronicles.values():
            bench.attempt("untouched: ", chronicle, lambda copy: None, chronicle.states[-1:])
        assert bench.seen == {("untouched", "opened"): len(chronicles)}, counts.failures
        if asked.files:
            for name in ("noted", "tables"):
                whole_files(bench, chronicles[name])
        if asked.manifest:
            manifest_bits(bench, chronicles["tables"])
        flips(bench, list(chronicles.values()), asked.flips, asked.small_flips, random)
        zeros(bench, [chronicles["noted"], chronicles["tables"]], asked.zeros, random)
        if asked.cut_step:
            cuts(bench, chronicles["log"], asked.cut_step, random)
        bench.opener.end()
    for (label, outcome), count in sorted(bench.seen.items()):
        print(f"{label:>32} {outcome:>8} {count:>7,}")
    print(f"{counts.n / (time.monotonic() - began):,.0f} cases a second")
    return counts.end(command_line())


def arguments():
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cut-step", type=int, default=1, help="cut the log at each so-manyth byte; 0: not at all [1]")
    parser.add_argument("--flips", type=int, default=2_000, help="bits of logs, tables, blobs, manifests [2000]")
    parser.add_argument("--small-flips", type=int, default=500, help="bits to change in all other files [500]")
    parser.add_argument("--zeros", type=int, default=300, help="sectors and pages to empty [300]")
    parser.add_argument("--manifest", action="store_true", help="every bit of the manifest, too")
    parser.add_argument("--no-files", dest="files", action="store_false", help="no whole files")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(arguments()))
