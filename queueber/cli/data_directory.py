"""Arguments that name a data directory, the control socket in it, and the exit status if it cannot be used."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from queueber.cli.arguments import PATH
from queueber.errors import StorageError, one_line, reason
from queueber.process import CONTROL

T = TypeVar("T")

EXIT_UNREADABLE: Final = 74
"""The status for a directory that cannot be used or read, ``EX_IOERR`` of ``sysexits.h``."""

data_dir_option = click.option(
    "--data-dir",
    "-d",
    type=PATH,
    default="./queueber-data",
    show_default=True,
    envvar="QUEUEBER_DATA_DIR",
    show_envvar=True,
    help="The server's data directory.",
)


def directory_argument(command: Callable[..., T]) -> Callable[..., T]:
    """Add DIR and ``--data-dir`` to a command that reads a directory.  Either becomes its argument *data_dir*."""

    @click.argument("path", metavar="[DIR]", type=PATH, required=False)
    @data_dir_option
    @click.pass_context
    @wraps(command)
    def with_directory(ctx: click.Context, /, path: Path | None, data_dir: Path, **more: Any) -> T:  # noqa: ANN401
        if path is not None and ctx.get_parameter_source("data_dir") is ParameterSource.COMMANDLINE:
            raise click.UsageError(one_line(f"DIR is {path} and --data-dir is {data_dir}: give one of them."))
        return command(data_dir=data_dir if path is None else path, **more)

    return with_directory


@contextmanager
def exit_74_if_unreadable() -> Iterator[None]:
    """Report a directory that cannot be used in one line, and exit with status 74."""
    try:
        yield
    except BrokenPipeError:
        raise  # of standard output
    except (StorageError, OSError) as why:
        click.echo(f"queueber: {one_line(reason(why))}", err=True)
        sys.exit(EXIT_UNREADABLE)


def control_socket(data_dir: Path) -> Path:
    """Return the path of the control socket of a server on *data_dir*."""
    return data_dir.absolute() / CONTROL


def control_address(data_dir: Path) -> str:
    """
    Return the endpoint string of the control socket in *data_dir*.

    Raises:
        click.ClickException: there is no socket.
    """
    path = control_socket(data_dir)
    if not path.is_socket():
        raise click.ClickException(f"no server runs on {data_dir}: there is no {path}")
    escaped = os.fspath(path).replace("\\", "\\\\").replace(":", "\\:")
    return f"unix:path={escaped}"


def is_served(data_dir: Path) -> bool:
    """Return whether a server runs on *data_dir*.  The socket of a killed server does not count."""
    path = control_socket(data_dir)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return False
        except OSError:
            # A busy server, or one that refuses this user.  A later call reports which.
            return path.exists()
    return True
