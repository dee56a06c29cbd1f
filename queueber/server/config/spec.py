"""
One option of the service: its name, what it may be, and how its text is read.

An option is the same thing wherever it is given: ``--data-dir`` on the
command line, ``QUEUEBER_DATA_DIR`` in the environment, ``data-dir`` in a
configuration file.  What each may be is said here once, for all three.
"""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from attrs import frozen

from queueber.paths import expanded
from queueber.units import Unit, parse, quantity

ENVIRONMENT_PREFIX = "QUEUEBER_"

Complaint = tuple[tuple[str, ...], str]
"""The names of options that contradict each other, and why; the reason spells each as on the command line."""

Complaints = list[Complaint]

Read = Callable[[str], Any]
"""From a text to the value it means; ValueError says what it must be."""

# How much of two names must agree for the one to be a slip for the other.
_ALIKE = 0.6


@frozen(kw_only=True)
class Option:
    """What there is to know about an option."""

    name: str
    """As on the command line, without the dashes."""

    read: Read
    default: Any
    says: str
    """What it is for, for a person; the default and what it may be are told apart from this."""

    shown: str = ""
    """The default as a person would write it, if that is not its plain text."""

    accepts: str = ""
    """What it may be."""

    unit: Unit | None = None
    """What the value counts, if it is a quantity that a person would not write as a plain number."""

    many: bool = False
    """It may be given more than once: its value is a tuple."""

    may_be_none: bool = False
    """An empty text, given alone, says that there is none; only where `many`."""

    replaced_by: str | None = None
    """The option that takes this one's default away when it is given."""

    flag: bool = False
    """It is given without a value on the command line."""

    command_line_only: bool = False
    """What must not happen again at every start."""

    short: str | None = None
    """One letter that stands for the name."""

    table: str | None = None
    """The table of the configuration file that it stands in, by its name's beginning."""

    @property
    def variable(self) -> str:
        """The environment variable for it."""
        return ENVIRONMENT_PREFIX + self.name.upper().replace("-", "_")

    @property
    def key(self) -> str:
        """The key for it in a configuration file, within its table."""
        return self.name.removeprefix(f"{self.table}-") if self.table else self.name

    @property
    def in_file(self) -> str:
        """The key with its table, for a person."""
        return f"[{self.table}] {self.key}" if self.table else self.key

    def written(self, value: object) -> object:
        """*value* as it would stand in a configuration file: a text unless it is a plain number or a switch."""
        if isinstance(value, int) and self.unit is not None:
            return quantity(value, self.unit)
        return value if isinstance(value, bool | int | float) else text_of(value)

    @property
    def default_text(self) -> str:
        """The default, for a person."""
        return self.shown or text_of(self.default)


def text_of(value: object) -> str:
    """A value as a person would write it on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def meant(name: str, known: Iterable[str], alike: float = _ALIKE) -> str:
    """A question after one of *known*, if *name* might be a slip for it, with so much of both *alike*."""
    close = get_close_matches(name, list(known), n=1, cutoff=alike)
    return f"; did you mean {close[0]}?" if close else ""


def check_characters(value: str) -> None:
    """
    Go on if *value* can be written to a configuration file and be given to the operating system.

    Raises:
        ValueError: it has a NUL, or a byte that is not UTF-8.
    """
    if "\0" in value:
        raise ValueError(f"is {value!r}, which has a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"is {value!r}, which is not UTF-8") from None


def text(value: str) -> str:
    """Any text but none."""
    if not value:
        raise ValueError("is empty")
    return value


def path(value: str) -> str:
    """A path, with the home directory in place of a leading ``~`` or ``~user``."""
    found = expanded(text(value))
    check_characters(found)
    return found


def switch(value: str) -> bool:
    """Yes or no, in the usual spellings."""
    known = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
    if value.lower() not in known:
        raise ValueError(f"is {value!r}; it must be yes or no")
    return known[value.lower()]


def whole(low: int, high: int) -> Read:
    """A whole number from *low* to *high*."""
    return _number(int, "whole number", low, high)


def real(low: float, high: float) -> Read:
    """A number from *low* to *high*."""
    return _number(float, "number", low, high)


def _number(convert: Callable[[str], Any], kind: str, low: float, high: float) -> Read:
    def read(value: str) -> Any:  # noqa: ANN401
        try:
            number = convert(value)
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise ValueError(f"is {value!r}; it must be a {kind} from {low:,} to {high:,}")
        return number

    return read


def one_of(*choices: str) -> Read:
    """One of *choices*, in capitals or not."""

    def read(value: str) -> str:
        if value.lower() not in choices:
            raise ValueError(f"is {value!r}; it must be one of {', '.join(choices)}")
        return value.lower()

    return read


def amount(unit: Unit, low: int, high: int) -> Read:
    """A quantity in *unit*, from *low* to *high*."""
    names = ", ".join(name for name, _ in unit.value if name)
    span = f"from {quantity(low, unit)} to {quantity(high, unit)}"
    must = f"{span}, plain or with one of {names}" if names else span

    def read(value: str) -> int:
        try:
            number = parse(value, unit)
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise ValueError(f"is {value!r}; it must be a whole number {must}")
        return number

    return read
