"""What people type, as values: each kind says in one line what is wrong with it."""

import math
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

import click

from queueber.paths import expanded
from queueber.units import MIB, MS_PER_SECOND
from queueber.wire import DATA_BYTES_MAX

SECONDS_MAX = 1e12
"""Beyond any limit of a server's, and small enough to be exact."""


class LocalPath(click.Path):
    """A path of this machine, with the home directory in place of a leading ``~``, as the server's options have it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """
        *value* as a path.

        Raises:
            click.BadParameter: it is not a path of the kind that is wanted, or no home directory is known.
        """
        try:
            value = expanded(value) if isinstance(value, str) else value
        except ValueError as why:
            self.fail(f"the path {why}", param, ctx)
        return super().convert(value, param, ctx)


PATH = LocalPath(path_type=Path)


class Number(click.FloatRange):
    """A number in a range, which infinity and "not a number" are never in: the latter compares with nothing."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """
        *value* as a number.

        Raises:
            click.BadParameter: it is none, or not in the range.
        """
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number that can be worked with.", param, ctx)
        return number


def seconds(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """
    The milliseconds of a span given in seconds, rounded up; None when none was given.

    Raises:
        click.BadParameter: *value* is no number, or beyond any use.
    """
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a number of seconds.") from None
    if not 0 <= number <= SECONDS_MAX:
        raise click.BadParameter(f"{value} is not between 0 and {SECONDS_MAX:,.0f} seconds.")
    # Rounded first, because 1.001 times 1,000 is a little more than 1,001.
    return math.ceil(round(number * MS_PER_SECOND, 6))


def identity(_: click.Context, __: click.Parameter, value: str) -> bytes:
    """
    The 16 bytes of an item's or a lease's id, given as a UUID or its 32 hexadecimal digits.

    Raises:
        click.BadParameter: *value* is neither.
    """
    try:
        return UUID(value).bytes
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a UUID nor 32 hexadecimal digits.") from None


def contents_of(arguments: tuple[str, ...], files: tuple[BinaryIO, ...], standard_input: BinaryIO) -> list[bytes]:
    """
    The contents of the items to add: of each argument, then of each file, or else of the standard input.

    A file is read a little further than any item may be long, so that one that never ends is refused by its length.

    Raises:
        click.UsageError: the standard input was to be read and is empty.
    """
    # An argument that is not UTF-8 comes with surrogates in the places of its bytes.
    contents = [argument.encode(errors="surrogateescape") for argument in arguments]
    for file in files or (() if arguments else (standard_input,)):
        contents.append(_read(file))
        # The command at the other end of the pipe has failed, more likely than not.
        if file is standard_input and not contents[-1]:
            raise click.UsageError(
                "Standard input is empty, and nothing was added; for an empty item, give '' as CONTENTS."
            )
    return contents


def _read(file: BinaryIO) -> bytes:
    """What is in *file*, in pieces: a single read would set aside memory for the longest item there can be."""
    pieces, left = [], DATA_BYTES_MAX + 1
    while left > 0 and (piece := file.read(min(left, MIB))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
