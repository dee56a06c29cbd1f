"""The keys in the bytes that a terminal sends: special keys by name, characters as themselves."""

import codecs
import re
from typing import Final

NAMED: Final = {
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x15": "clear",
    "\x04": "q",
}
"""Control characters with a meaning.  Others have none."""

SEQUENCES: Final = {
    "A": "up",
    "B": "down",
    "C": "right",
    "D": "left",
    "H": "home",
    "F": "end",
    "1~": "home",
    "4~": "end",
    "5~": "page-up",
    "6~": "page-down",
    "7~": "home",
    "8~": "end",
}
"""Names by the characters after ``ESC [``, or ``ESC O``.  Other sequences have no meaning."""

_SEQUENCE = re.compile(r"\x1b(?:\[(?P<long>[0-?]*[ -/]*[@-~])|O(?P<short>.))", re.DOTALL)
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")

ESCAPE_SECONDS: Final = 0.05
"""Time after which a lone Escape counts as the key, and not as the start of a sequence."""


class KeyDecoder:
    """Split input into keys.  A sequence may be cut anywhere."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")
        self._rest = ""
        """The begin of a sequence whose end has not arrived."""

    @property
    def unfinished(self) -> bool:
        """Return whether the last bytes may be the begin of a sequence: call `flush` after `ESCAPE_SECONDS`."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[str]:
        """Take *data* and return the keys that are complete."""
        text = self._rest + self._decoder.decode(data)
        self._rest = ""
        keys = []
        at = 0
        while at < len(text):
            if text[at] != "\x1b":
                keys.append(NAMED.get(text[at]) or (text[at] if text[at].isprintable() else ""))
                at += 1
            elif found := _SEQUENCE.match(text, at):
                keys.append(SEQUENCES.get(found["long"] or found["short"], ""))
                at = found.end()
            elif _UNFINISHED.match(text, at):
                self._rest, at = text[at:], len(text)
            else:
                # Escape, and at once another key: most terminals send that for Alt.
                at += 2
        return [key for key in keys if key]

    def flush(self) -> list[str]:
        """Return the keys of an unfinished sequence to which nothing was added in time."""
        rest, self._rest = self._rest, ""
        return ["escape"] if rest == "\x1b" else []
