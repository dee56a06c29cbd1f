"""Makes a failing input small enough to understand."""

import signal
import traceback
from time import monotonic

from damage import length_of

HANG_SECONDS = 20


class Hangs(Exception):
    """The check does not end."""


def hangs(*_):
    """Raise `Hangs`, as the handler of the alarm."""
    raise Hangs


def signature(check, data):
    """Return the kind and the place of the error that *check* raises for *data*; None without an error."""
    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(HANG_SECONDS)
    try:
        check(data)
    except Exception as why:  # noqa: BLE001 -- every kind of failure is of interest
        last = traceback.extract_tb(why.__traceback__)[-1]
        return type(why).__name__, last.filename, last.name, last.line
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return None


def frames_in(data):
    """Split *data* into the messages it begins with, and the rest."""
    found, at = [], 0
    while (length := length_of(data, at)) and at + length <= len(data):
        found.append(data[at : at + length])
        at += length
    return [*found, data[at:]] if at < len(data) else found


def cut_by(size, data):
    """Split *data* into pieces of *size* bytes."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def smaller(parts):
    """Yield *parts* without some of them: halves first, single ones last."""
    size = len(parts) // 2
    while size:
        for at in range(0, len(parts), size):
            yield parts[:at] + parts[at + size :]
        size //= 2


def shrunk(check, data, seconds=20.0):
    """
    The smallest input found within *seconds* that fails as *data* does.

    Whole messages go first, then words, then bytes; last, what is left becomes zeros where it may.
    """
    wanted, deadline = signature(check, data), monotonic() + seconds

    def fails(candidate):
        return monotonic() < deadline and signature(check, candidate) == wanted

    for cut in (frames_in, lambda whole: cut_by(8, whole), lambda whole: cut_by(1, whole)):
        parts, moved = cut(data), True
        while moved and len(parts) > 1:
            moved = False
            for candidate in smaller(parts):
                if fails(b"".join(candidate)):
                    parts, moved = candidate, True
                    break
        data = b"".join(parts)
    for at in range(0, len(data), 8):
        candidate = data[:at] + bytes(len(data[at : at + 8])) + data[at + 8 :]
        if candidate != data and fails(candidate):
            data = candidate
    return data
