"""A function that makes an observer, for `twistd --logger`."""

import sys

from twisted.logger import textFileLogObserver


def observer():
    """Text, on the standard output."""
    return textFileLogObserver(sys.stdout)
