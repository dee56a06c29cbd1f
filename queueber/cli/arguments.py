"""What people type, as values: each kind says in one line what is wrong with it."""

import math
from typing import BinaryIO
from uuid import UUID

import click

from queueber.limits import FRAME_BYTES_MAX
from queueber.units import MS_PER_SECOND

SECONDS_MAX = 1e12
"""Beyond any limit of a server's, and small enough to be exact."""


class Seconds(click.ParamType[int]):
    """A span in seconds, with a fraction if need be; gives milliseconds, rounded up."""

    name = "seconds"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The span that *value* says; what is a span already stays one."""
        try:
            seconds = float(str(value))
        except ValueError:
            self.fail(f"{str(value)!r} is not a number of seconds.", param, ctx)
        if not 0 <= seconds <= SECONDS_MAX:
            self.fail(f"{value} is not between 0 and {SECONDS_MAX:,.0f} seconds.", param, ctx)
        return math.ceil(round(seconds * MS_PER_SECOND, 6))


class Id(click.ParamType[bytes]):
    """An item's or a lease's id: a UUID, or its 32 hexadecimal digits."""

    name = "id"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """The 16 bytes of the id."""
        try:
            return UUID(str(value)).bytes
        except ValueError:
            self.fail(f"{str(value)!r} is neither a UUID nor 32 hexadecimal digits.", param, ctx)


SECONDS = Seconds()
ID = Id()


def contents_of(arguments: tuple[str, ...], files: tuple[BinaryIO, ...], standard_input: BinaryIO) -> list[bytes]:
    """
    The contents of the items to add: of each argument, then of each file, or else of the standard input.

    A file is read a little further than any message may be long, so that one that never ends is refused by its length.
    """
    # An argument that is not UTF-8 comes with surrogates in the places of its bytes.
    contents = [argument.encode(errors="surrogateescape") for argument in arguments]
    contents += [file.read(FRAME_BYTES_MAX + 1) for file in files]
    return contents if arguments or files else [standard_input.read(FRAME_BYTES_MAX + 1)]
