"""
One option of the service, and the kinds of values.

A kind is an `Option` without what each option has of its own: its name, its default and its help.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from attrs import frozen

from queueber.process import ENVIRONMENT_PREFIX, expanded
from queueber.units import Unit, quantity
from queueber.units import parse as parse_quantity


@frozen(kw_only=True)
class Option:
    """
    The definition of an option, which has one name and one set of values in all sources.

    ``--data-dir`` on the command line is ``QUEUEBER_DATA_DIR`` in the environment and ``data-dir`` in a file.
    """

    attribute: str
    """The attribute of the settings, or of their part for `table`, that has the value.  The names follow from it."""

    default: Any
    help: str
    """The purpose, without a full stop."""

    default_help: str = ""
    """The default for the help, if it is not the text of `default`."""

    parse: Callable[[str], Any]
    """Converts text to a value.  The text of its ValueError continues a sentence that begins with the option's name."""

    accepts: str = ""
    """The permitted values, for the help."""

    unit: Unit | None = None
    """The unit of a quantity."""

    many: bool = False
    """Whether there may be several values.  Those that are not None are a tuple."""

    is_flag: bool = False
    """Whether it takes no value on the command line, where its name alone means yes."""

    table: str | None = None
    """The option's table in the configuration file, which is also the first word of its name."""

    command_line_only: bool = False
    """Whether it is ignored in the environment and refused in a file, which apply to every start."""

    @property
    def key(self) -> str:
        """Return the key in the configuration file, within the table."""
        return self.attribute.replace("_", "-")

    @property
    def name(self) -> str:
        """Return the name on the command line, without dashes."""
        return f"{self.table}-{self.key}" if self.table else self.key

    @property
    def variable(self) -> str:
        """Return the name of the environment variable."""
        return ENVIRONMENT_PREFIX + self.name.upper().replace("-", "_")

    @property
    def in_file(self) -> str:
        """Return the table and the key in the configuration file, for messages."""
        return f"[{self.table}] {self.key}" if self.table else self.key

    @property
    def default_text(self) -> str:
        """Return the default, for the help."""
        return self.default_help or self.typed(self.default) or "none"

    def typed(self, value: Any) -> str:  # noqa: ANN401
        """Return *value* as it would be typed on the command line."""
        if isinstance(value, bool):
            return "yes" if value else "no"
        return "" if value is None else quantity(value, self.unit) if self.unit else str(value)

    def convert(self, value: object) -> Any:  # noqa: ANN401
        """
        Return the value for *value*, a text or a value in a TOML file.

        Raises:
            ValueError: it is not permitted.
        """
        if not isinstance(value, str | int | float):
            raise ValueError(f"is {value!r}; it must be a text or a number")  # noqa: TRY004
        return self.parse(usable_text(str(value).lower() if isinstance(value, bool) else str(value)))


Kind = partial[Option]


def usable_text(value: str) -> str:
    """Return *value*, which a configuration file can contain and the operating system accepts."""
    if "\0" in value:
        raise ValueError(f"is {value!r}, which has a NUL character")
    if re.search("[\ud800-\udfff]", value):
        raise ValueError(f"is {value!r}, which is not UTF-8")
    return value


def text(value: str) -> str:
    """Return *value*, which must not be empty."""
    if not value:
        raise ValueError("is empty")
    return value


def path(value: str) -> str:
    """Return a path.  A leading ``~`` or ``~user`` is expanded."""
    return usable_text(expanded(text(value)))


def boolean(value: str) -> bool:
    """Return whether *value* is yes or no, in the usual spellings."""
    known = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
    if value.lower() not in known:
        raise ValueError(f"is {value!r}; it must be yes or no")
    return known[value.lower()]


PATH = partial(Option, parse=path)
YES_OR_NO = partial(Option, parse=boolean, accepts="yes or no")
FLAG = partial(YES_OR_NO, is_flag=True)


def choice(*words: str) -> Kind:
    """Return the kind of values that are one of *words*, in any case."""

    def parse(value: str) -> str:
        if value.lower() not in words:
            raise ValueError(f"is {value!r}; it must be one of {', '.join(words)}")
        return words[words.index(value.lower())]

    return partial(Option, parse=parse, accepts=f"{', '.join(words[:-1])} or {words[-1]}")


def decimal(low: float, high: float) -> Kind:
    """Return the kind of numbers from *low* to *high*, which may have decimals."""
    accepts = f"{low:,} to {high:,}"
    return partial(Option, parse=_in_range(float, low, high, f"a number from {accepts}"), accepts=accepts)


def integer(low: int, high: int, unit: Unit = Unit.COUNT, zero: str | None = None) -> Kind:
    """Return the kind of whole numbers from *low* to *high*, with or without the name of a unit; 0 means *zero*."""
    accepts = f"{quantity(low, unit)} to {quantity(high, unit)}"
    names = ", ".join(name for name, _ in unit.value if name)
    permitted = f"a whole number from {accepts}" + (f", plain or with one of {names}" if names else "")
    parse = _in_range(lambda value: parse_quantity(value, unit), low, high, permitted)
    return partial(Option, parse=parse, accepts=accepts + (f", where 0 is {zero}" if zero else ""), unit=unit)


def _in_range(convert: Callable[[str], Any], low: float, high: float, permitted: str) -> Callable[[str], Any]:
    def parse(value: str) -> Any:  # noqa: ANN401
        with suppress(ValueError):
            if low <= (number := convert(value)) <= high:
                return number
        raise ValueError(f"is {value!r}; it must be {permitted}")

    return parse
