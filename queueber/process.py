"""
The environment of a process, as the server and the commands treat it: paths, standard streams and loggers.

Both mean the same directory by the same path.  ``~/`` and ``~user/`` are expanded
here, because no shell expands them in a configuration file or in the environment.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

ENVIRONMENT_PREFIX: Final = "QUEUEBER_"

CLIENT_VARIABLES: Final = frozenset(
    f"{ENVIRONMENT_PREFIX}{name}"
    for name in ("ADDR", "QUEUE", "TLS", "TLS_CA", "TLS_SERVER_NAME", "CLIENT_CERTIFICATE", "CLIENT_KEY", "TIMEOUT")
)
"""The variables of the commands, which may share an environment with a server."""

CONTROL: Final = "control.sock"
"""The name of the administrator's socket in the data directory of a running server."""

STANDARD_ERROR: Final = 2
"""The descriptor of standard error, the highest of the three streams."""

_HOME_IN_ENDPOINT = r"(?P<kind>(?:haproxy:)*unix:(?:address=|path=)?)(?P<home>~[^/:\\]*)(?=[/:]|\Z)"


def expanded(path: str) -> str:
    """
    Return *path* with a leading ``~`` or ``~user`` replaced by the home directory.

    Raises:
        ValueError: the user is unknown, or has no home directory.
    """
    found = os.path.expanduser(path)  # noqa: PTH111  (pathlib raises RuntimeError for an unknown user)
    if found.startswith("~"):
        home = path.partition("/")[0]
        raise ValueError(
            f"is {path!r}, and no home directory is known for {home}; that name in a directory is ./{home}"
        )
    return found


def expanded_endpoint(endpoint: str) -> str:
    """
    Return *endpoint* with the path of a Unix socket expanded.  Other endpoints are returned unchanged.

    Raises:
        ValueError: as for `expanded`.
    """
    at = re.match(_HOME_IN_ENDPOINT, endpoint)
    if at is None:
        return endpoint
    home = re.sub(r"[\\:=]", r"\\\g<0>", expanded(at["home"]))
    return f"{at['kind']}{home}{endpoint[at.end() :]}"


def directory_identity(path: Path) -> tuple[int, int]:
    """
    Return device and inode of *path*, or of its nearest existing ancestor.

    Two processes that get equal results see the same directory, whatever
    their mount namespaces.

    Raises:
        OSError: permission denied.
    """
    for each in (path, *path.parents):
        try:
            found = each.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return found.st_dev, found.st_ino
    raise FileNotFoundError(path)


def fill_standard_streams() -> None:
    """
    Open the null device for each of standard input, output and error that is closed.

    Otherwise the next opened file gets the free number, and a library that
    writes to standard error would write into a table of the database.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        os.set_inheritable(number, True)
    os.close(number)
    # These files need no close: the null device never fails, and the process owns them until it ends.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115


def enable_loggers() -> None:
    """
    Enable Queueber's loggers, which a configuration of the program may have disabled.

    `logging.config.dictConfig` and `fileConfig` disable all loggers that exist and that they do not name, unless
    ``disable_existing_loggers`` is False.
    """
    # Imported here, because a command that makes one call logs nothing.
    import logging  # noqa: PLC0415

    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.startswith("queueber.") and isinstance(logger, logging.Logger):
            logger.disabled = False
