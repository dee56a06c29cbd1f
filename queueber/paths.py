"""
Paths as people write them, where no shell has read them first: ``~/`` and ``~user/`` are home directories.

One rule for the server's options, wherever they stand, and for the commands,
so that a directory is the same one for both.
"""

import os
import re

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
