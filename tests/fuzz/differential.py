"""
Compares the codec with pycapnp: results must agree, and a message that only one refuses must be on a list.

`DIFFERENCES` is that list.  Each entry is a choice of ours or of theirs that we
know and accept.  Two answers that differ in any other way are a finding.
"""

import json
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from struct import Struct

from attrs import define, field
from shapes import FAR, LIST, unframed, words_in
from views import LIMITS, view

from queueber.capnp.framing import Framer
from queueber.errors import RemoteProtocolError

WORKER = Path(__file__).with_name("pycapnp_views.py")
HEAD = Struct("<IH")
ENDED = ["refused", "pycapnp ended its process"]


def _has(message, test):
    return any(test(word) for segment in unframed(message) for word in words_in(segment))


def _empty(word):
    """A pointer to an empty object, which may lie anywhere."""
    if word & 3 == LIST:
        return word >> 35 == 0 or word >> 32 & 7 == 0
    return word & 3 == 0 and word != 0 and word >> 32 == 0


def _narrow(word):
    return word & 3 == LIST and word >> 32 & 7 in {2, 3, 4}


def _far(word):
    return word & 3 == FAR


def _lost(ours, theirs):
    """Return whether *theirs* equals *ours*, except for numbers that have their default, 0 or 1, and may be omitted."""
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs) != 0:
        return all(map(_lost, ours, theirs))
    if theirs == []:
        return ours is None or all(isinstance(each, int) for each in ours)
    return ours == theirs or (theirs in (0, 1, None) and isinstance(ours, int))


# What it is called; who is the stricter ("neither": both take it, for different things); what it is known by.
DIFFERENCES = [
    ("the traversal budget is 2 times the message", "we", lambda text, _: "(traversal_factor)" in text),
    ("more items than one add may have", "we", lambda text, _: text.startswith("items is ")),
    (
        "a value in a request is beyond its limit",
        "we",
        lambda text, _: any(
            each in text for each in ("; the limit is ", "; it must be ", "; the last that ", "takes none")
        ),
    ),
    (
        "a list of numbers may have narrower ones",
        "they",
        lambda text, message: "incompatible element type" in text and _has(message, _narrow),
    ),
    ("a double-far pointer's landing pad must be far", "we", lambda text, _: text.endswith("leads to no landing pad")),
    (
        "a pointer to nothing must lie in its segment too",
        "we",
        lambda text, message: text.endswith("leads out of its segment") and _has(message, _empty),
    ),
    (
        "all 30 bits of a tag's count are read",
        "we",
        lambda text, message: "tag does not fit" in text and _has(message, lambda word: word >> 31 & 1),
    ),
    ("an unknown member of a union is no error", "they", lambda text, _: "on a non-union type" in text),
    ("a text may be other than UTF-8 in a reason", "they", lambda text, _: text.startswith("UnicodeDecodeError")),
    (
        "a far pointer may lead to a null pointer",
        "they",
        lambda text, message: "pointer where" in text and "was expected" in text and _has(message, _far),
    ),
    (
        "a far pointer may name a segment without words",
        "they",
        lambda text, message: "to unknown segment" in text and not all(unframed(message)),
    ),
    ("the kind of deprecatedObjectId is not looked at", "they", lambda text, _: "isCapability()" in text),
    ("pycapnp cannot say", "they", lambda text, _: "traversal limit" in text),
    (
        "a field wider than its list's elements reads as what there is",
        "neither",
        lambda pair, message: _lost(*pair) and _has(message, _narrow),
    ),
    (
        "a far pointer to a null pointer is null",
        "neither",
        lambda pair, message: pair[0][0] in {"bootstrap", "unimplemented"} and _has(message, _far),
    ),
]


def difference(message, ours, theirs):
    """Return the name of the known difference between the two views of *message*; None if there is none."""
    refusals = (ours[0] == "refused", theirs[0] == "refused")
    stricter, known_by = {
        (True, False): ("we", ours[1]),
        (False, True): ("they", theirs[1]),
        (False, False): ("neither", (ours, theirs)),
    }[refusals]
    return next((name for name, who, test in DIFFERENCES if who == stricter and test(known_by, message)), None)


def own(message, reader):
    """Return our view of the framed *message*, as JSON has it."""
    try:
        (frame,) = Framer(LIMITS).feed(message)
    except RemoteProtocolError as why:
        return ["refused", str(why)]
    try:
        return json.loads(json.dumps(view(frame, reader)))
    except Exception as why:  # noqa: BLE001 -- it is reported here or not at all
        return ["raised", repr(why)]


class Found(AssertionError):
    """A message with a difference from pycapnp that is on no list."""


@define
class Pycapnp:
    """pycapnp in a process of its own, started again whenever a message has ended it."""

    ended: int = 0
    counts: Counter = field(factory=Counter)
    """The number of comparisons by result."""

    process: subprocess.Popen = None

    def views(self, questions):
        """Return pycapnp's reading of each of *questions*, a framed message and a reader's number."""
        answers = []
        while len(answers) < len(questions):
            process = self._running()
            writer = threading.Thread(target=_feed, args=(process.stdin, questions[len(answers) :]))
            writer.start()
            while len(answers) < len(questions) and (line := process.stdout.readline()):
                answers.append(json.loads(line))
            if len(answers) < len(questions):
                answers.append(ENDED)
                self.ended += 1
                self.close()
            writer.join()
        return answers

    def compare(self, questions):
        """Raise `Found` with the first of *questions* on which we differ unexpectedly."""
        for (message, reader), theirs in zip(questions, self.views(questions), strict=True):
            ours = own(message, reader)
            if theirs is ENDED:
                self.counts[ENDED[1]] += 1
            elif ours == theirs:
                self.counts["both say the same"] += 1
            elif ours[0] == theirs[0] == "refused":
                self.counts["both refuse"] += 1
            else:
                name = difference(message, ours, theirs)
                if name is None:
                    raise Found(f"reader {reader}: we say {ours}, pycapnp {theirs}: {message.hex()}")
                self.counts[name] += 1

    def _running(self):
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        return self.process

    def close(self):
        """End the process, if there is one."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()
            process.stdout.close()
            # What was not taken any more is of no use.
            with suppress(BrokenPipeError):
                process.stdin.close()


def _feed(pipe, questions):
    try:
        for message, reader in questions:
            pipe.write(HEAD.pack(len(message), reader) + message)
        pipe.flush()
    except (OSError, ValueError):
        return
