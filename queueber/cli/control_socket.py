"""The control socket of a local server: its path, and whether a server listens on it."""

import os
import socket
from pathlib import Path

import click

from queueber.paths import CONTROL


def control_socket(data_dir: Path) -> Path:
    """Return the path of the control socket of a server on *data_dir*."""
    return data_dir.absolute() / CONTROL


def is_served(data_dir: Path) -> bool:
    """Return whether a server runs on *data_dir*.  The socket of a killed server does not count."""
    path = control_socket(data_dir)
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return False
        except OSError:
            # A busy server, or one that refuses this user.  A later call reports which.
            return path.exists()
    return True


def address_of(data_dir: Path) -> str:
    """
    Return the endpoint string of the control socket in *data_dir*.

    Raises:
        click.ClickException: there is no socket.
    """
    socket = control_socket(data_dir)
    if not socket.is_socket():
        raise click.ClickException(f"no server runs on {data_dir}: there is no {socket}")
    escaped = os.fspath(socket).replace("\\", "\\\\").replace(":", "\\:")
    return f"unix:path={escaped}"
