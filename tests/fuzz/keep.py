"""
Makes the kept corpus: `keep.py [FOLDER ...]`, each with one folder for each target as `guided.py` leaves them.

Of those inputs, the present corpus and fresh conversations, keeps the smallest
that together cover every line and every step from line to line that all of them
cover.  Large inputs are cut to the size of one file.
"""

import hashlib
import sys
from pathlib import Path
from random import Random

from conversations import replies, requests
from damage import damaged
from targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")
WATCHED = str(Path(__file__).parents[2] / "queueber")
FILE_BYTES_MAX = 3_000
TARGET_BYTES_MAX = 64_000
FRESH = 300


def candidates(name, folders):
    """Return all candidates, the smallest first."""
    found = {file.read_bytes() for folder in [CORPUS, *folders] for file in (folder / name).glob("*") if file.is_file()}
    for number in range(FRESH):
        dice = Random(number)
        frames = (requests if number % 3 else replies)(dice)
        found.add(b"".join(frames if number % 4 == 0 else damaged(frames, dice)[0]))
    return sorted((each for each in found if len(each) <= FILE_BYTES_MAX), key=lambda each: (len(each), each))


def covered(check, data):
    """Return the steps from line to line of our own code that *data* leads to."""
    steps = set()

    def tracer(frame, _, __):
        if not frame.f_code.co_filename.startswith(WATCHED):
            return None
        last = 0

        def step(frame, event, _):
            nonlocal last
            if event == "line":
                steps.add((frame.f_code, last, frame.f_lineno))
                last = frame.f_lineno
            return step

        return step

    sys.settrace(tracer)
    try:
        check(data)
    finally:
        sys.settrace(None)
    return steps


def chosen(name, folders):
    """Return the inputs to keep for a target."""
    seen, kept, size = set(), [], 0
    for data in candidates(name, folders):
        steps = covered(TARGETS[name], data)
        if steps - seen and size + len(data) <= TARGET_BYTES_MAX:
            seen |= steps
            kept.append(data)
            size += len(data)
    return kept


def main():
    folders = [Path(each) for each in sys.argv[1:]]
    for name in TARGETS:
        inputs = chosen(name, folders)
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            file.unlink()
        for data in inputs:
            (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        print(f"{name}: {len(inputs)} inputs, {sum(map(len, inputs)):,} bytes")


if __name__ == "__main__":
    main()
