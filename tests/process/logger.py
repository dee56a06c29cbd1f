"""A factory of a log observer, for `twistd --logger`."""

import sys

from twisted.logger import textFileLogObserver


def observer():
    """Return an observer that writes text to standard output."""
    return textFileLogObserver(sys.stdout)
