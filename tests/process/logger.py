"""What `twistd --logger` takes: the name of a function that makes an observer."""

import sys

from twisted.logger import textFileLogObserver


def observer():
    """Text, on the standard output."""
    return textFileLogObserver(sys.stdout)
