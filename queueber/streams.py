"""Open missing standard streams of a process that was started without them."""

import os
import sys
from pathlib import Path

STANDARD_ERROR = 2


def fill_standard_streams() -> None:
    """
    Open those of standard input, output and error that are closed on the null device.

    Otherwise the next opened file gets the free number, and a library that
    writes to standard error would write into a table of the database.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        os.set_inheritable(number, True)
    os.close(number)
    # These files need no close: the null device never fails, and the process owns them until it ends.
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
