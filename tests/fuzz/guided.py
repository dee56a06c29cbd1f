"""
Runs one target under atheris, guided by coverage: `guided.py TARGET [libFuzzer's options] [folders]`.

Starts from the kept corpus, and damages messages with `damage` as often as
libFuzzer damages bytes.  Inputs that cover new code are kept in memory, and in
the first of the folders if there is one.  A failing input is written to the
current folder, as by libFuzzer, for `run.py --replay`.
"""

import sys
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["queueber"]):
    from targets import TARGETS

from conversations import replies, requests
from damage import damaged
from shrink import frames_in

CORPUS = Path(__file__).with_name("corpus")
FRESH = 0.1
"""The share of inputs that are a conversation of our own, damaged, in place of atheris's."""


def mutate(data, max_size, seed):
    """Return *data* damaged by `damage` or by libFuzzer."""
    dice = Random(seed)
    if dice.random() < 0.5:
        return atheris.Mutate(data, max_size)
    side = requests if dice.random() < 0.7 else replies
    frames = side(dice) if dice.random() < FRESH else frames_in(bytes(data)) or side(dice)
    return b"".join(damaged(frames, dice, side(dice))[0])[:max_size]


def main():
    """Run until libFuzzer ends the process."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: guided.py {'|'.join(TARGETS)} [-max_total_time=SECONDS] [-runs=N] [folders]")
    name, *rest = sys.argv[1:]
    kept = ",".join(str(file) for file in sorted((CORPUS / name).iterdir()))
    atheris.Setup([sys.argv[0], "-max_len=16384", f"-seed_inputs={kept}", *rest], TARGETS[name], custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
