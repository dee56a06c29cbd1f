"""The control socket of a server on this machine: where it is, and whether a server is there."""

import os
import socket
from pathlib import Path

import click

from queueber.paths import CONTROL


def control_socket(data_dir: Path) -> Path:
    """Where the server that holds *data_dir* can be spoken to, if there is one."""
    return data_dir.absolute() / CONTROL


def is_served(data_dir: Path) -> bool:
    """Whether a server holds *data_dir*, and not only the socket of one that was killed is there."""
    path = control_socket(data_dir)
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return False
        except OSError:
            # Somebody who is busy, or who may not be asked: whoever speaks to it is told which.
            return path.exists()
    return True


def address_of(data_dir: Path) -> str:
    """
    The endpoint string of the control socket in *data_dir*.

    Raises:
        click.ClickException: there is none.
    """
    socket = control_socket(data_dir)
    if not socket.is_socket():
        raise click.ClickException(f"no server runs on {data_dir}: there is no {socket}")
    escaped = os.fspath(socket).replace("\\", "\\\\").replace(":", "\\:")
    return f"unix:path={escaped}"
