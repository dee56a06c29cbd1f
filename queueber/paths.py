"""
Paths that the server and the commands have in common, so that a directory is the same one for both.

``~/`` and ``~user/`` are home directories wherever a path is written, because
no shell reads a file or the environment first.
"""

import os
import re
from pathlib import Path
from typing import Final

CONTROL: Final = "control.sock"
"""The socket of the server that holds a data directory, for its administrator."""

_HOME_IN_ENDPOINT = re.compile(r"(?P<kind>(?:haproxy:)*unix:(?:address=|path=)?)(?P<home>~[^/:\\]*)(?=[/:]|\Z)")


def expanded(path: str) -> str:
    """
    *path* with the home directory in place of a leading ``~`` or ``~user``.

    Raises:
        ValueError: there is no such user, or no home directory is known.
    """
    found = os.path.expanduser(path)  # noqa: PTH111  (of an unknown user pathlib makes a RuntimeError)
    if found.startswith("~"):
        home = path.partition("/")[0]
        raise ValueError(
            f"is {path!r}, and no home directory is known for {home}; that name in a directory is ./{home}"
        )
    return found


def expanded_endpoint(endpoint: str) -> str:
    """
    The endpoint string with its path *expanded*, if it is that of a Unix socket.

    Raises:
        ValueError: as for `expanded`.
    """
    at = _HOME_IN_ENDPOINT.match(endpoint)
    if at is None:
        return endpoint
    home = re.sub(r"[\\:=]", r"\\\g<0>", expanded(at["home"]))
    return f"{at['kind']}{home}{endpoint[at.end() :]}"


def identity(path: Path) -> tuple[int, int]:
    """
    Device and inode of *path*, or of the last directory on the way to it that exists.

    Two processes for which they are equal see the same directory, whatever
    their mount namespaces.

    Raises:
        OSError: it is not allowed to look.
    """
    for each in (path, *path.parents):
        try:
            found = each.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return found.st_dev, found.st_ino
    raise FileNotFoundError(path)
