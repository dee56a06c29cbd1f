"""
Opens the states in which a power cut may leave a log, page by page: real logs, and the server of the next boot.

The last commit of a history is not synced.  The synced part of the log is kept.
Each page of 4 KiB after it is present, or reads as zeros, or has some of its
sectors, and the file ends anywhere.  The next server must start by itself, with
all other commits and with the last one whole or not at all, and must report what
RocksDB would have refused.
"""

import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from attrs import define, field
from chronicle import BOOT, OTHER_BOOT, Opener, apart, newest_log, write
from counts import Counts, from_command_line

BLOCK, PAGE, SECTOR = 32_768, 4_096, 512
IMAGES_PER_HISTORY = 50
THIRD_BOOT = b"t" * 16

SIZES = ((10, 60), (10, 3_000), (4_000, 9_000), (20_000, 70_000), (200_000,))
"""Sizes of contents: from many commits in a page to a commit of many blocks of the log."""


def history(folder, random):
    """A `Chronicle` that ends with a commit that was not synced."""
    sizes = random.choice(SIZES)
    commits = random.randrange(3, 30 if max(sizes) < BLOCK else 6)
    # A log may begin with that commit, too.
    flushes = random.choice(((), (), (commits - 2,), (commits - 1,)))
    noted = random.randrange(1, commits)
    seed = random.random()
    kind, said = apart(lambda: write(folder, seed, commits=commits, sizes=sizes, noted=noted, flushes=flushes))
    assert kind == "gave", said
    return said


def kept_of(content, synced, random):
    """Return what a power cut may leave of *content*, synced up to *synced*; None if not even the name is left."""
    end = random.choice(
        (len(content), len(content), -(-len(content) // PAGE) * PAGE, random.randrange(synced, len(content) + 1))
    )
    if random.random() < 0.3:
        end = max(synced, end // PAGE * PAGE)
    if not synced and random.random() < 0.1:
        return None
    image = bytearray(content[:end].ljust(end, b"\0"))
    lost, torn = random.choice((0.0, 0.1, 0.5, 0.9)), random.choice((0.0, 0.2, 1.0))
    for page in range(synced // PAGE * PAGE, end, PAGE):
        if random.random() < lost:
            clear(image, page, page + PAGE, synced)
        elif random.random() < torn:
            for sector in range(page, page + PAGE, SECTOR):
                if random.random() < 0.5:
                    clear(image, sector, sector + SECTOR, synced)
    return bytes(image)


def clear(image, start, end, synced):
    """Clear a range of the log, except for what was synced."""
    start, end = max(start, synced), min(end, len(image))
    if start < end:
        image[start:end] = bytes(end - start)


@define
class Cutter:
    """Makes images and judges them."""

    folder: Path
    random: Random
    counts: Counts
    opener: Opener = field(factory=Opener)
    seen: Counter = field(factory=Counter)
    _number: int = 0

    def attempt(self, chronicle):
        """Judge one image."""
        log = newest_log(chronicle.path / "db").relative_to(chronicle.path)
        content = (chronicle.path / log).read_bytes()
        synced = chronicle.log_ends[-2]
        image = kept_of(content, synced, self.random)
        changed = sum(a != b for a, b in zip(content, image, strict=False)) if image is not None else "all"
        what = (
            f"{chronicle.path.parent.name} image {self._number}, {synced} synced of {len(content)}, {changed} changed"
        )
        before, after = chronicle.states[-2:]
        copy, (kind, said) = self._opened(chronicle, log, image, OTHER_BOOT)
        failures = []
        if kind != "gave":
            failures = [f"{what}: {kind}: {said}"]
        elif said[0] not in (before, after) or (image == content and said[0] != after):
            failures = [f"{what}: neither with all that was synced, nor with the last commit: {said[1]}"]
        else:
            self.seen["there" if said[0] == after else "cut off" if said[1] else "dropped by RocksDB"] += 1
            failures = [f"{what}: {each}" for each in self._again(chronicle, log, image, copy, said)]
        shutil.rmtree(copy, ignore_errors=True)  # who has it open may still write to it
        self.counts.count(failures)

    def _opened(self, chronicle, log, image, boot_id):
        self._number += 1
        copy = self.folder / f"image-{self._number}"
        shutil.copytree(chronicle.path, copy)
        if image is None:
            (copy / log).unlink()
        else:
            (copy / log).write_bytes(image)
        return copy, self.opener.opened(copy, boot_id)

    def _again(self, chronicle, log, image, copy, said):
        """Return the errors in opening it on the same boot, and after another power cut in what was opened."""
        state, dropped = said
        if dropped is not None or self.random.random() < 0.2:
            other, (kind, same) = self._opened(chronicle, log, image, BOOT)
            shutil.rmtree(other, ignore_errors=True)
            if (kind == "refused") is not (dropped is not None) or (kind == "gave" and same != (state, None)):
                yield f"on the same boot {kind}: {same}, and after another {dropped}"
        if self.random.random() < 0.2:
            self.opener.end()
            kind, later = self.opener.opened(copy, THIRD_BOOT)
            if (kind, later) != ("gave", (state, None)):
                yield f"killed after that, and opened again: {kind}: {later}"


def run(images, seed):
    """Open images with torn pages, as many as requested; return the counts."""
    counts, random, began = Counts("tornpages", "images", target=images), Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="queueber-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as made:
        cutter = Cutter(Path(made), random, counts)
        for number, at in enumerate(range(0, images, IMAGES_PER_HISTORY)):
            folder = Path(made, f"history-{number}")
            folder.mkdir()
            chronicle = history(folder, random)
            for _ in range(min(IMAGES_PER_HISTORY, images - at)):
                cutter.attempt(chronicle)
            shutil.rmtree(folder)
        cutter.opener.end()
    for outcome, count in sorted(cutter.seen.items()):
        print(f"{count:>7,} times the last commit was {outcome}")
    print(f"{counts.n / (time.monotonic() - began):,.0f} images a second")
    return counts


if __name__ == "__main__":
    sys.exit(from_command_line(__doc__, run, images=2_000))
