"""
A command line of which all that cannot be understood is told at once.

Twisted's parser ends with the first word that it does not know.  So those are
sorted out before, and it is given the rest.
"""

from collections.abc import Sequence
from getopt import GetoptError, gnu_getopt

from queueber.server.config.spec import meant

COMPLETION = "--_shell-completion"
"""A shell asks Twisted what could come next."""


def readable(words: Sequence[str], short: str, long: Sequence[str]) -> tuple[list[str], list[str]]:
    """
    Those of *words* that are options and their values, and a complaint about each of the others.

    *short* and *long* are the options that there are, as getopt wants them.
    """
    left, complaints = list(words), []
    while True:
        try:
            # Not to the first that is no option, as the other one does: what comes behind it is looked at as well.
            options, arguments = gnu_getopt(left, short, list(long))
        except GetoptError as why:
            complaints.append(_complaint(why, long))
            _drop(left, why.opt)
        else:
            break
    complaints += [f"unexpected argument {argument!r}: everything is an option" for argument in arguments]
    clean = []
    for name, value in options:
        if f"{name[2:]}=" in long:
            clean.append(f"{name}={value}")
        else:
            clean += [name, value] if value else [name]
    return clean, complaints


def _complaint(why: GetoptError, long: Sequence[str]) -> str:
    if len(why.opt) > 1 and "not recognized" in why.msg:
        known = [f"--{each.rstrip('=')}" for each in long]
        return f"--{why.opt} is not an option{meant(f'--{why.opt}', known)}"
    return why.msg


def _drop(words: list[str], name: str) -> None:
    """Take the option *name*, and what looks like its value, out of *words*."""
    for at, word in enumerate(words):
        typed, equals, _ = word.partition("=")
        if _is_meant(typed, name):
            follows = words[at + 1 : at + 2]
            has_value = not equals and follows and not follows[0].startswith("-")
            del words[at : at + (2 if has_value else 1)]
            return
    raise AssertionError(f"getopt complains of {name!r}, which is not there")


def _is_meant(typed: str, name: str) -> bool:
    """Whether getopt means the word *typed* by *name*, which may be the whole of what was shortened."""
    if typed.startswith("--"):
        return typed != "--" and f"--{name}".startswith(typed)
    return len(name) == 1 and typed.startswith("-") and name in typed
