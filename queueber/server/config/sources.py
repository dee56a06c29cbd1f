"""
The sources of options: command line, environment, configuration file, defaults, in order of precedence.

All mistakes are reported together, each with its source, so that an operator
can repair a configuration in one pass.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from queueber.errors import QueueberError, one_line
from queueber.server.config.config_file import ConfigFileError, read_config_file
from queueber.server.config.settings import CONFIG, OPTIONS, Settings, similar_option
from queueber.server.config.spec import ENVIRONMENT_PREFIX, Option

EX_USAGE = 64
"""Invalid options on the command line, as in ``sysexits.h``."""

EX_CONFIG = 78
"""An invalid configuration, as in ``sysexits.h``."""

CLIENT_VARIABLES = frozenset(
    f"{ENVIRONMENT_PREFIX}{name}"
    for name in ("ADDR", "QUEUE", "TLS", "TLS_CA", "TLS_SERVER_NAME", "CLIENT_CERTIFICATE", "CLIENT_KEY", "TIMEOUT")
)
"""The variables of the command-line client, which may share an environment with the server."""


@frozen
class Origin:
    """The source of a value.  Those of equal precedence are equal."""

    precedence: int
    text: str = field(eq=False)
    """The source for an operator, and the reason for a default that is not the usual one."""

    prefix: str = field(default="", eq=False)
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


class ConfigError(QueueberError):
    """Invalid options.  The text has a line for each mistake."""

    def __init__(self, complaints: Sequence[str], *, status: int) -> None:
        super().__init__("\n".join(complaints))
        self.status = status
        """The exit status for these mistakes."""


@define
class Resolved:
    """The values of all options, and the mistakes in all sources."""

    settings: dict[str, Setting]
    """The values by the names of the options: of an invalid one, the default."""

    complaints: list[tuple[Origin, str]] = field(factory=list)
    unknown: set[str] = field(factory=set)
    """The names of options with an invalid value; of the option `CONFIG`, too, if the file cannot be read."""

    def complain(self, line: str, *origins: Origin) -> None:
        """Record a mistake in one or several sources."""
        prefix = ", ".join(filter(None, dict.fromkeys(origin.prefix for origin in origins)))
        self.complaints.append((origins[0], one_line(f"{prefix}: {line}" if prefix else line)))

    def add(self, option: Option, texts: Sequence[object], origin: Origin) -> None:
        """Record the value of *option* for *texts*, which may be TOML values too, in *origin*."""
        values, reasons = [], []
        if option.may_be_none and "" in texts:
            if len(texts) > 1:
                reasons.append("is empty, which means none, and has other values too")
        else:
            for each in texts if option.many else texts[-1:]:
                try:
                    values.append(option.convert(each))
                except ValueError as why:
                    reasons.append(str(why))
        value = tuple(values) if option.many else values and values[0]
        self.settings[option.name] = Setting(option, option.default if reasons else value, origin)
        for reason in reasons:
            self.complain(f"{origin.spell(option)} {reason}", origin)
            self.unknown.add(option.name)

    def complain_of_conflict(self, names: Collection[str], reason: str) -> None:
        """
        Record a conflict of the options *names*, which *reason* then spells as in their sources.

        A default is spelled as in the source of the first option that was given, which is where it would be changed.
        """
        given = [self.settings[name].origin for name in names]
        origins = [each for each in given if each not in (COMMAND_LINE, DEFAULT)] or [COMMAND_LINE]

        def spell(match: re.Match[str]) -> str:
            setting = self.settings[match["name"]]
            is_default = setting.origin == DEFAULT
            spelled = (origins[0] if is_default else setting.origin).spell(setting.option)
            return f"{spelled}{match['value']}{', the default' if match['value'] and is_default else ''}"

        self.complain(
            re.sub(rf"--(?P<name>{'|'.join(names)})(?![\w-])(?P<value>(?: \([^)]*)?)", spell, reason), *origins
        )

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


def load(
    arguments: Mapping[str, Sequence[str]],
    environment: Mapping[str, str],
    *,
    file: str | None = None,
    unknown: Sequence[str] = (),
) -> tuple[dict[str, Setting], Settings]:
    """
    Return the values of all options, and the `Settings` made from them.

    *unknown* are complaints about arguments that are not options.  The others are as for `resolve`.

    Raises:
        ConfigError: names all mistakes.
    """
    found = resolve(arguments, environment, file=file)
    for complaint in unknown:
        found.complain(complaint, COMMAND_LINE)
    settings = Settings.from_values({name: each.value for name, each in found.settings.items()})
    for names, reason in settings.conflicts():
        # A value that is invalid or unknown might resolve the conflict.
        if found.unknown.isdisjoint((CONFIG.name, *names)):
            found.complain_of_conflict(names, reason)
    found.check()
    return found.settings, settings


@frozen
class ReloadedConfig:
    """The configuration as the environment and the file have it now."""

    settings: Settings
    changed: Mapping[str, Origin]
    """The options whose values have changed since the start, each with its source now."""


_GivenValues = tuple[Sequence[object], Origin]
"""An option's texts, or its values in a TOML file, and their source."""


def resolve(
    arguments: Mapping[str, Sequence[str]], environment: Mapping[str, str], *, file: str | None = None
) -> Resolved:
    """
    Return the values of all options, and all mistakes.

    *arguments* are the texts on the command line.  *file* replaces the path of
    the configuration file, after a change of the working directory.
    """
    found = Resolved({option.name: Setting(option, option.default, DEFAULT) for option in OPTIONS})
    given: dict[str, _GivenValues] = {}
    for option in OPTIONS:
        if option.name in arguments:
            given[option.name] = arguments[option.name], COMMAND_LINE
        elif option.variable in environment and not option.command_line_only:
            value = environment[option.variable]
            texts = (_split(value) or [""]) if option.many else [value]
            given[option.name] = texts, Origin(_ENVIRONMENT, f"environment {option.variable}", "environment")
    if CONFIG.name in given:
        found.add(CONFIG, *given.pop(CONFIG.name))
        path = file or found.settings[CONFIG.name].value
        given = (_from_file(path, found) if path is not None else {}) | given
    for option in OPTIONS:
        if option.name in given:
            found.add(option, *given[option.name])
    for option in OPTIONS:
        by = option.replaced_by
        if by is not None and option.name not in given and found.settings[by].value:
            origin = Origin(DEFAULT.precedence, f"default: {by} is given")
            found.settings[option.name] = Setting(option, (), origin)
    return found


def _split(value: str) -> list[str]:
    """Split *value* at spaces, except those after a backslash."""
    return [each.replace("\\ ", " ") for each in re.split(r"(?<!\\)\s+", value) if each]


def _from_file(path: str, found: Resolved) -> dict[str, _GivenValues]:
    origin = Origin(_FILE, path, path)
    try:
        values, complaints = read_config_file(Path(path))
    except ConfigFileError as why:
        found.unknown.add(CONFIG.name)
        values, complaints = {}, [str(why)]
    for complaint in complaints:
        found.complain(complaint, origin)
    return {name: (each, origin) for name, each in values.items()}


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """
    Return the variables that look like options but are not, each with a hint or an empty text.

    They are not an error: Kubernetes creates such variables for a service named ``queueber``.
    """
    known = {option.variable: option for option in OPTIONS}
    hints = {}
    for name in sorted(environment):
        option = known.get(name)
        if option is not None and option.command_line_only:
            hints[name] = f"; {option.name} is accepted on the command line only"
        elif name.startswith(ENVIRONMENT_PREFIX) and option is None and name not in CLIENT_VARIABLES:
            similar = similar_option(name.removeprefix(ENVIRONMENT_PREFIX))
            hints[name] = f"; did you mean {similar.variable}?" if similar is not None else ""
    return hints
