"""Standard input, output and error of a process that may have been started without them."""

import os
import sys
from pathlib import Path

STANDARD_ERROR = 2


def fill_standard_streams() -> None:
    """
    Open standard input, output and error that were closed, on the null device.

    Otherwise the next file that is opened takes the number: a table of the
    database would be what a library writes its complaints to.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        os.set_inheritable(number, True)
    os.close(number)
    # The null device is never full, and ends with the process.
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
