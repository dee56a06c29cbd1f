"""
One option of the service, and the kinds of values.

An option has one name and one set of values in all sources: ``--data-dir`` on
the command line, ``QUEUEBER_DATA_DIR`` in the environment, ``data-dir`` in a
configuration file.
"""

from collections.abc import Callable
from typing import Any

from attrs import frozen

from queueber.process import expanded
from queueber.units import Unit, quantity
from queueber.units import parse as parse_quantity

ENVIRONMENT_PREFIX = "QUEUEBER_"


@frozen
class ValueKind:
    """A kind of values."""

    parse: Callable[[str], Any]
    """Converts text to a value.  The text of its ValueError continues a sentence that begins with the option's name."""

    accepts: str = ""
    """The permitted values, for the help."""

    unit: Unit | None = None
    """The unit of a quantity."""


@frozen(kw_only=True)
class Option:
    """The definition of an option."""

    name: str
    """The name on the command line, without dashes."""

    kind: ValueKind
    default: Any
    help: str
    """The purpose, without a full stop."""

    default_help: str = ""
    """The default for the help, if it is not the text of `default`."""

    short: str | None = None
    """The one-letter name."""

    table: str | None = None
    """The option's table in the configuration file, which is also the first word of its name."""

    flag: bool = False
    """Whether it takes no value on the command line."""

    many: bool = False
    """Whether it may be given several times; the value is a tuple."""

    may_be_none: bool = False
    """Whether a single empty text stands for the empty tuple; only with `many`."""

    replaced_by: str | None = None
    """The option that removes this one's default when it is given."""

    command_line_only: bool = False
    """Whether it is ignored in the environment and refused in a file, which apply to every start."""

    @property
    def variable(self) -> str:
        """Return the name of the environment variable."""
        return ENVIRONMENT_PREFIX + self.name.upper().replace("-", "_")

    @property
    def key(self) -> str:
        """Return the key in the configuration file, within the table."""
        return self.name.removeprefix(f"{self.table}-")

    @property
    def attribute(self) -> str:
        """Return the name of the attribute that has the value, in the part of the settings for its table."""
        return self.key.replace("-", "_")

    @property
    def in_file(self) -> str:
        """Return the table and the key in the configuration file, for messages."""
        return f"[{self.table}] {self.key}" if self.table else self.key

    @property
    def default_text(self) -> str:
        """Return the default, for the help."""
        if self.default_help or self.default is None:
            return self.default_help or "none"
        return quantity(self.default, self.kind.unit) if self.kind.unit else text_of(self.default)

    def convert(self, value: object) -> Any:  # noqa: ANN401
        """
        Return the value for *value*, a text or a value in a TOML file.

        Raises:
            ValueError: it is not permitted.
        """
        if not isinstance(value, str | int | float) or (isinstance(value, bool) and self.kind is not YES_OR_NO):
            shown = str(value).lower() if isinstance(value, bool) else type(value).__name__
            raise ValueError(f"must be a text or a number, not {shown}")
        return self.kind.parse(usable_text(text_of(value)))

    def toml_value(self, value: object) -> object:
        """Return *value* for a configuration file: a number or boolean unchanged, and anything else as text."""
        if isinstance(value, int) and self.kind.unit not in (None, Unit.COUNT):
            return quantity(value, self.kind.unit)
        return value if isinstance(value, bool | int | float) else text_of(value)


def text_of(value: object) -> str:
    """Return *value* as it would be typed on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def usable_text(value: str) -> str:
    """Return *value*, which a configuration file can contain and the operating system accepts."""
    if "\0" in value:
        raise ValueError(f"is {value!r}, which has a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"is {value!r}, which is not UTF-8") from None
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


PATH = ValueKind(path)
YES_OR_NO = ValueKind(boolean, "yes or no")


def choice(*words: str) -> ValueKind:
    """Return the kind of values that are one of *words*, in any case."""

    def parse(value: str) -> str:
        if value.lower() not in words:
            raise ValueError(f"is {value!r}; it must be one of {', '.join(words)}")
        return words[words.index(value.lower())]

    return ValueKind(parse, f"{', '.join(words[:-1])} or {words[-1]}")


def decimal(low: float, high: float) -> ValueKind:
    """Return the kind of numbers from *low* to *high*, which may have decimals."""
    accepts = f"{low:,} to {high:,}"
    return ValueKind(_in_range(float, low, high, f"a number from {accepts}"), accepts)


def integer(low: int, high: int, unit: Unit = Unit.COUNT) -> ValueKind:
    """Return the kind of whole numbers from *low* to *high*, with or without the name of a unit."""
    accepts = f"{quantity(low, unit)} to {quantity(high, unit)}"
    names = ", ".join(name for name, _ in unit.value if name)
    permitted = f"a whole number from {accepts}" + (f", plain or with one of {names}" if names else "")
    return ValueKind(_in_range(lambda value: parse_quantity(value, unit), low, high, permitted), accepts, unit)


def _in_range(convert: Callable[[str], Any], low: float, high: float, permitted: str) -> Callable[[str], Any]:
    def parse(value: str) -> Any:  # noqa: ANN401
        try:
            number = convert(value)
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise ValueError(f"is {value!r}; it must be {permitted}")
        return number

    return parse
