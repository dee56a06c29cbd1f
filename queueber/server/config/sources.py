"""
The sources of options: command line, environment, configuration file, defaults, in order of precedence.

All mistakes are reported together, each with its source, so that an operator
can repair a configuration in one pass.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from queueber.errors import QueueberError, one_line
from queueber.server.config.config_file import ConfigFileError, read_config_file
from queueber.server.config.spec import ENVIRONMENT_PREFIX, Option, check_characters, suggest

EX_USAGE = 64
"""Invalid options on the command line, as in ``sysexits.h``."""

EX_CONFIG = 78
"""An invalid configuration, as in ``sysexits.h``."""

_VARIABLE_CUTOFF = 0.85
"""The similarity of two variables for a suggestion: high, because all begin with the same word."""

CLIENT_VARIABLES = frozenset(
    f"{ENVIRONMENT_PREFIX}{name}"
    for name in ("ADDR", "QUEUE", "TLS", "TLS_CA", "TLS_SERVER_NAME", "CLIENT_CERTIFICATE", "CLIENT_KEY", "TIMEOUT")
)
"""The variables of the command-line client, which may share an environment with the server."""


@frozen
class Origin:
    """The source of a value."""

    precedence: int
    text: str
    """The source for an operator."""

    prefix: str = ""
    """The beginning of a complaint about a value, unless its name shows the source."""

    def __str__(self) -> str:
        return self.text

    def spell(self, option: Option) -> str:
        """Return the name of *option* in this source."""
        return {_ENVIRONMENT: option.variable, _FILE: option.in_file}.get(self.precedence, f"--{option.name}")


COMMAND_LINE = Origin(0, "command line")
DEFAULT = Origin(3, "default")
_ENVIRONMENT, _FILE = 1, 2


@frozen
class Setting:
    """The value of an option, and its source."""

    option: Option
    value: Any
    origin: Origin
    note: str = ""
    """The reason for a default that is not the usual one."""


class ConfigError(QueueberError):
    """Invalid options.  The text has a line for each mistake."""

    def __init__(self, complaints: Sequence[str], *, status: int) -> None:
        super().__init__("\n".join(complaints))
        self.status = status
        """The exit status for these mistakes."""


@define
class Resolved:
    """The values of all options, and the mistakes in all sources."""

    settings: dict[str, Setting] = field(factory=dict)
    """The values by the names of the options: of an invalid one, the default."""

    complaints: list[tuple[Origin, str]] = field(factory=list)
    invalid: set[str] = field(factory=set)
    """The names of options with an invalid value."""

    file_unreadable: bool = False
    """The file cannot be read, so its values are unknown."""

    def complain(self, line: str, *origins: Origin) -> None:
        """Record a mistake in one or several sources."""
        prefix = ", ".join(filter(None, dict.fromkeys(origin.prefix for origin in origins)))
        self.complaints.append((origins[0], one_line(f"{prefix}: {line}" if prefix else line)))

    def check(self) -> None:
        """
        Check that there are no mistakes.

        Raises:
            ConfigError: there are.  They are ordered by precedence of their sources.
        """
        if self.complaints:
            ordered = sorted(self.complaints, key=lambda complaint: complaint[0].precedence)
            usage = all(origin == COMMAND_LINE for origin, _ in ordered)
            raise ConfigError([line for _, line in ordered], status=EX_USAGE if usage else EX_CONFIG)


Given = tuple[tuple[str, ...], Origin]
"""An option's texts in one source."""


def resolve(
    options: Sequence[Option],
    *,
    arguments: Mapping[str, Sequence[str]],
    environment: Mapping[str, str],
    file: str | None = None,
) -> Resolved:
    """
    Return the values of all *options*, and all mistakes.

    *arguments* are the texts on the command line.  *file* replaces the path of
    the configuration file, after a change of the working directory.
    """
    found = Resolved()
    given = dict(_from_environment(options, environment))
    given |= {name: (tuple(texts), COMMAND_LINE) for name, texts in arguments.items()}
    if "config" in given:
        given = _from_file(options, given["config"], file, found) | given
    for option in options:
        found.settings[option.name], reasons = _setting(option, given.get(option.name))
        for reason in reasons:
            origin = found.settings[option.name].origin
            found.complain(f"{origin.spell(option)} {reason}", origin)
            found.invalid.add(option.name)
    for option in options:
        by = option.replaced_by
        if by is not None and found.settings[option.name].origin == DEFAULT and found.settings[by].value:
            found.settings[option.name] = Setting(option, (), DEFAULT, f"{by} is given")
    return found


def _from_environment(options: Sequence[Option], environment: Mapping[str, str]) -> Iterator[tuple[str, Given]]:
    for option in options:
        value = environment.get(option.variable)
        if value is not None and not option.command_line_only:
            texts = (_split(value) or ("",)) if option.many else (value,)
            yield option.name, (texts, Origin(_ENVIRONMENT, f"environment {option.variable}", "environment"))


def _split(value: str) -> tuple[str, ...]:
    """Split *value* at spaces, except those after a backslash."""
    return tuple(each.replace("\\ ", " ") for each in re.split(r"(?<!\\)\s+", value) if each)


def _from_file(options: Sequence[Option], config: Given, moved: str | None, found: Resolved) -> dict[str, Given]:
    option = next(option for option in options if option.name == "config")
    setting, reasons = _setting(option, config)
    path = Path(moved or setting.value or "")
    origin = Origin(_FILE, str(path), str(path))
    try:
        file = read_config_file(path, options) if not reasons else None
    except ConfigFileError as why:
        found.complain(str(why), origin)
        file = None
    if file is None:
        found.file_unreadable = True
        return {}
    for complaint in file.complaints:
        found.complain(complaint, origin)
    found.invalid |= file.invalid
    return {name: (texts, origin) for name, texts in file.texts.items()}


def _setting(option: Option, given: Given | None) -> tuple[Setting, list[str]]:
    """Return the value of *option*, and the reasons why it is invalid."""
    if given is None:
        return Setting(option, option.default, DEFAULT), []
    texts, origin = given
    if option.may_be_none and texts == ("",):
        return Setting(option, (), origin), []
    if option.may_be_none and "" in texts:
        return Setting(option, option.default, origin), ["is empty, which means none, and has other values too"]
    values, reasons = [], []
    for text in texts if option.many else texts[-1:]:
        try:
            check_characters(text)
            values.append(option.parse(text))
        except ValueError as why:
            reasons.append(str(why))
    if reasons:
        return Setting(option, option.default, origin), reasons
    return Setting(option, tuple(values) if option.many else values[0], origin), []


def unknown_variables(options: Sequence[Option], environment: Mapping[str, str]) -> dict[str, str]:
    """
    Return the variables that look like options but are not, each with a hint or an empty text.

    They are not an error: Kubernetes creates such variables for a service named ``queueber``.
    """
    known = {option.variable: option.variable for option in options if not option.command_line_only}
    hints = {
        ENVIRONMENT_PREFIX + option.key.upper().replace("-", "_"): f"; did you mean {option.variable}?"
        for option in options
        if option.table
    }
    hints |= {o.variable: f"; {o.name} is accepted on the command line only" for o in options if o.command_line_only}
    return {
        name: hints.get(name) or suggest(name, known, _VARIABLE_CUTOFF)
        for name in sorted(environment)
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known and name not in CLIENT_VARIABLES
    }
