"""Types of command-line arguments.  Each reports an invalid value in one line."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from uuid import UUID

import click

from queueber.capnp import DATA_BYTES_MAX
from queueber.process import expanded
from queueber.units import MIB, MS_PER_SECOND

FC = TypeVar("FC", bound=Callable[..., Any] | click.Command)
Range = click.IntRange | click.FloatRange

SECONDS_MAX = 1e12
"""More than any limit of a server, and small enough for an exact float."""


class LocalPath(click.Path):
    """A local path in which a leading ``~`` is expanded, as in the server's options."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """
        Return *value* as a path.

        Raises:
            click.BadParameter: it is empty, or not a path of the required kind, or no home directory is known.
        """
        if value == "":
            # As a path it would be the working directory.
            self.fail("the path is empty", param, ctx)
        try:
            value = expanded(value) if isinstance(value, str) else value
        except ValueError as why:
            self.fail(f"the path {why}", param, ctx)
        return super().convert(value, param, ctx)


PATH = LocalPath(path_type=Path)


class FiniteFloat(click.FloatRange):
    """A finite number in a range.  Infinity and NaN are refused; NaN passes any comparison with the range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """
        Return *value* as a number.

        Raises:
            click.BadParameter: it is not a number, or not in the range.
        """
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def seconds(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """
    Convert a span in seconds to milliseconds, rounded up; None stays None.

    Raises:
        click.BadParameter: *value* is not a number, or not between 0 and `SECONDS_MAX`.
    """
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a number of seconds.") from None
    if not 0 <= number <= SECONDS_MAX:
        raise click.BadParameter(f"{value} is not between 0 and {SECONDS_MAX:,.0f} seconds.")
    # Rounded first, because 1.001 * 1,000 is slightly more than 1,001.
    return math.ceil(round(number * MS_PER_SECOND, 6))


def seconds_option(*names: str, help: str, default: str | None = None) -> Callable[[FC], FC]:  # noqa: A002
    """Return an option for a span in seconds.  The command gets milliseconds, or None if there is no *default*."""
    shown = default is not None
    return click.option(*names, callback=seconds, default=default, show_default=shown, metavar="SECONDS", help=help)


def number_option(*names: str, kind: Range, default: float, help: str) -> Callable[[FC], FC]:  # noqa: A002
    """Return an option for a number of this *kind*, whose *default* is shown."""
    return click.option(*names, type=kind, default=default, show_default=True, help=help)


def option_group(*all_of_them: Callable[[FC], FC]) -> Callable[[FC], FC]:
    """Return a decorator that adds several options, in this order."""

    def decorate(command: FC) -> FC:
        for option in reversed(all_of_them):
            command = option(command)
        return command

    return decorate


def time_limit(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """
    Return the milliseconds of a time limit given in seconds, rounded up; None if none was given.

    Raises:
        click.BadParameter: *value* is not a number of seconds, or 0.
    """
    limit = seconds(ctx, parameter, value)
    if limit == 0:
        raise click.BadParameter("0 is too short for an answer.")
    return limit


def uuid_bytes(_: click.Context, __: click.Parameter, value: str) -> bytes:
    """
    Return the 16 bytes of an item's or a lease's id, given as a UUID or as 32 hexadecimal digits.

    Raises:
        click.BadParameter: *value* is neither.
    """
    try:
        return UUID(value).bytes
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a UUID nor 32 hexadecimal digits.") from None


def contents_of(arguments: tuple[str, ...], files: tuple[BinaryIO, ...], standard_input: BinaryIO) -> list[bytes]:
    """
    Return the contents of the items to add: each argument, then each file, or without both the standard input.

    A file is read up to one byte more than an item may have, so that an endless one is refused by its length.

    Raises:
        click.UsageError: the standard input was read and is empty.
    """
    # Bytes of an argument that are not UTF-8 arrive as surrogates.
    contents = [argument.encode(errors="surrogateescape") for argument in arguments]
    for file in files or (() if arguments else (standard_input,)):
        contents.append(_read(file))
        # Most likely the command at the other end of the pipe has failed.
        if file is standard_input and not contents[-1]:
            raise click.UsageError(
                "Standard input is empty, and nothing was added; for an empty item, give '' as CONTENTS."
            )
    return contents


def _read(file: BinaryIO) -> bytes:
    """Read *file* in pieces: a single read would allocate memory for the longest possible item."""
    pieces, left = [], DATA_BYTES_MAX + 1
    while left > 0 and (piece := file.read(min(left, MIB))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
