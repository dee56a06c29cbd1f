"""
One option of the service: its name, its values, and the parser of their text.

An option has one name and one set of values in all sources: ``--data-dir`` on
the command line, ``QUEUEBER_DATA_DIR`` in the environment, ``data-dir`` in a
configuration file.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from attrs import Factory, field, frozen

from queueber.process import expanded
from queueber.units import Unit, quantity
from queueber.units import parse as parse_quantity

ENVIRONMENT_PREFIX = "QUEUEBER_"

Complaint = tuple[tuple[str, ...], str]
"""The names of conflicting options and the reason, which spells each name as on the command line."""

Complaints = list[Complaint]

Parse = Callable[[str], Any]
"""Converts text to a value.  The text of its ValueError continues a sentence that begins with the option's name."""


@frozen
class Option:
    """The definition of an option."""

    name: str
    """The name on the command line, without dashes."""

    parse: Parse
    default: Any
    help: str
    """The purpose, without a full stop."""

    accepts: str = Factory(lambda self: getattr(self.parse, "accepts", ""), takes_self=True)
    """The permitted values, for the help.  By default those of the parser, where it knows them."""

    default_help: str = ""
    """The default for the help, if it is not the text of `default`."""

    short: str | None = field(default=None, kw_only=True)
    """The one-letter name."""

    table: str | None = field(default=None, kw_only=True)
    """The option's table in the configuration file, which is also the first word of its name."""

    unit: Unit | None = field(default=None, kw_only=True)
    """The unit of a value that is shown as a quantity."""

    flag: bool = field(default=False, kw_only=True)
    """Whether it takes no value on the command line."""

    many: bool = field(default=False, kw_only=True)
    """Whether it may be given several times; the value is a tuple."""

    may_be_none: bool = field(default=False, kw_only=True)
    """Whether a single empty text stands for the empty tuple; only with `many`."""

    replaced_by: str | None = field(default=None, kw_only=True)
    """The option that removes this one's default when it is given."""

    command_line_only: bool = field(default=False, kw_only=True)
    """Whether it is ignored in the environment and refused in a file, which apply to every start."""

    @property
    def variable(self) -> str:
        """Return the name of the environment variable."""
        return ENVIRONMENT_PREFIX + self.name.upper().replace("-", "_")

    @property
    def key(self) -> str:
        """Return the key in the configuration file, within the table."""
        return self.name.removeprefix(f"{self.table}-") if self.table else self.name

    @property
    def in_file(self) -> str:
        """Return the table and the key in the configuration file, for messages."""
        return f"[{self.table}] {self.key}" if self.table else self.key

    @property
    def default_text(self) -> str:
        """Return the default, for the help."""
        return self.default_help or ("none" if self.default is None else text_of(self.default))

    def toml_value(self, value: object) -> object:
        """Return *value* for a configuration file: a number or boolean unchanged, and anything else as text."""
        if isinstance(value, int) and self.unit is not None:
            return quantity(value, self.unit)
        return value if isinstance(value, bool | int | float) else text_of(value)


def text_of(value: object) -> str:
    """Return *value* as it would be typed on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def suggest(name: str, known: Mapping[str, str], cutoff: float = 0.6) -> str:
    """Return a question about the key of *known* most similar to *name*, which shows its value; empty without one."""
    close = get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"; did you mean {known[close[0]]}?" if close else ""


def check_characters(value: str) -> None:
    """
    Check that *value* can be written to a configuration file and passed to the operating system.

    Raises:
        ValueError: it contains a NUL, or a byte that is not UTF-8.
    """
    if "\0" in value:
        raise ValueError(f"is {value!r}, which has a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"is {value!r}, which is not UTF-8") from None


def text(value: str) -> str:
    """Return *value*, which must not be empty."""
    if not value:
        raise ValueError("is empty")
    return value


def path(value: str) -> str:
    """Return a path.  A leading ``~`` or ``~user`` is expanded."""
    found = expanded(text(value))
    check_characters(found)
    return found


def boolean(value: str) -> bool:
    """Return whether *value* is yes or no, in the usual spellings."""
    known = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
    if value.lower() not in known:
        raise ValueError(f"is {value!r}; it must be yes or no")
    return known[value.lower()]


def one_of(*choices: str) -> Parse:
    """Return a parser that accepts one of *choices* in any case."""

    def parse(value: str) -> str:
        if value.lower() not in choices:
            raise ValueError(f"is {value!r}; it must be one of {', '.join(choices)}")
        return value.lower()

    parse.accepts = f"{', '.join(choices[:-1])} or {choices[-1]}"  # type: ignore[attr-defined]
    return parse


def integer(low: int, high: int) -> Parse:
    """Return a parser of whole numbers from *low* to *high*."""
    return _in_range(int, low, high, f"a whole number from {low:,} to {high:,}")


def real(low: float, high: float) -> Parse:
    """Return a parser of numbers from *low* to *high*."""
    return _in_range(float, low, high, f"a number from {low:,} to {high:,}")


def quantity_of(unit: Unit, low: int, high: int) -> Parse:
    """Return a parser of quantities in *unit*, from *low* to *high*."""
    names = ", ".join(name for name, _ in unit.value if name)
    permitted = f"a whole number from {quantity(low, unit)} to {quantity(high, unit)}"
    permitted += f", plain or with one of {names}" if names else ""
    return _in_range(lambda value: parse_quantity(value, unit), low, high, permitted)


def _in_range(convert: Callable[[str], Any], low: float, high: float, permitted: str) -> Parse:
    def parse(value: str) -> Any:  # noqa: ANN401
        try:
            number = convert(value)
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise ValueError(f"is {value!r}; it must be {permitted}")
        return number

    parse.accepts = f"{low:,} to {high:,}"  # type: ignore[attr-defined]
    return parse
