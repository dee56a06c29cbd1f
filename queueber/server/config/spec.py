"""
One option of the service, and the kinds of values.

An option has one name and one set of values in all sources: ``--data-dir`` on
the command line, ``QUEUEBER_DATA_DIR`` in the environment, ``data-dir`` in a
configuration file.
"""

from collections.abc import Callable
from contextlib import suppress
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

    many: bool = False
    """Whether there may be several values.  Together they are a tuple."""

    may_be_none: bool = False
    """Whether a single empty text stands for the empty tuple; only with `many`."""


@frozen
class Option:
    """The definition of an option."""

    attribute: str
    """The attribute of the settings, or of their part for `table`, that has the value.  The names follow from it."""

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
        return "" if value is None else quantity(value, self.kind.unit) if self.kind.unit else str(value)

    def convert(self, value: object) -> Any:  # noqa: ANN401
        """
        Return the value for *value*, a text or a value in a TOML file.

        Raises:
            ValueError: it is not permitted.
        """
        if not isinstance(value, str | int | float) or (isinstance(value, bool) and self.kind.parse is not boolean):
            shown = str(value).lower() if isinstance(value, bool) else type(value).__name__
            raise ValueError(f"must be a text or a number, not {shown}")
        return self.kind.parse(usable_text(str(value)))


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
FLAG = ValueKind(boolean, "yes or no")
"""A switch, which takes no value on the command line."""


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
        with suppress(ValueError):
            if low <= (number := convert(value)) <= high:
                return number
        raise ValueError(f"is {value!r}; it must be {permitted}")

    return parse
