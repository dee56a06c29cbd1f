"""
The sources of options: command line, environment, configuration file, defaults, in order of precedence.

All mistakes are reported together, each with its source, so that an operator
can repair a configuration in one pass.
"""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, evolve, field, frozen

from queueber.errors import QueueberError, one_line
from queueber.process import CLIENT_VARIABLES, ENVIRONMENT_PREFIX
from queueber.server.config.settings import CONFIG, OPTIONS, Settings, suggestion
from queueber.server.config.spec import Option

_BY_NAME = {option.name: option for option in OPTIONS}
_NAMES = re.compile(rf"(?<!\S)--({'|'.join(_BY_NAME)})(?![\w-])( \([^)]*)?")
"""The name of an option in the reason for a conflict, with its value in parentheses if there is one."""


@frozen
class Source:
    """A source of options.  Those of equal precedence are equal."""

    precedence: int
    text: str = field(eq=False)
    """The source for an operator, and the reason for a default that is not the usual one."""

    given: Mapping[str, Sequence[object]] = field(factory=dict, eq=False)
    """The texts of options, or their values in a TOML file, by the options' names."""

    def spell(self, option: Option) -> str:
        """Return the name of *option* in this source, which is not `DEFAULT`."""
        return (f"--{option.name}", option.variable, option.in_file)[self.precedence]

    def origin(self, option: Option) -> str:
        """Return the source for an operator, with the name of the variable of *option*."""
        return f"{self.text} {option.variable}" if self == ENVIRONMENT else self.text


COMMAND_LINE, ENVIRONMENT, DEFAULT = Source(0, "command line"), Source(1, "environment"), Source(3, "default")


class ConfigError(QueueberError):
    """Invalid options.  The text has a line for each mistake."""

    def __init__(self, complaints: Sequence[str], *, status: int) -> None:
        super().__init__("\n".join(complaints))
        self.status = status
        """The exit status for these mistakes."""


@define
class Resolved:
    """The values of all options, and the mistakes in all sources.  Options are known by their names."""

    values: dict[str, Any] = field(factory=dict)
    """An invalid option has its default."""

    sources: dict[str, Source] = field(factory=dict)
    unknown_variables: dict[str, str] = field(factory=dict)
    """The variables that look like options but are not, each with a hint or an empty text."""

    complaints: list[tuple[Source, str]] = field(factory=list)
    invalid: set[str] = field(factory=set)
    """The options with an invalid value; the option `CONFIG`, too, if the file cannot be read."""

    def complain(self, line: str, *sources: Source) -> None:
        """Record a mistake in one or several sources."""
        places = ", ".join(dict.fromkeys(each.text for each in sources if each != COMMAND_LINE))
        self.complaints.append((sources[0], one_line(f"{places}: {line}" if places else line)))

    def add(self, option: Option, sources: Sequence[Source]) -> None:
        """Record the last value of *option* in the first of *sources* that has it, or its default."""
        name, values = option.name, list[Any]()
        source = next((each for each in sources if name in each.given), DEFAULT)
        given = source.given.get(name, ())
        for each in given if option.many else given[-1:]:
            try:
                values.append(option.convert(each))
            except ValueError as why:
                self.complain(f"{source.spell(option)} {why}", source)
                self.invalid.add(name)
        if source == DEFAULT or name in self.invalid:
            self.values[name] = option.default
        else:
            self.values[name] = tuple([each for each in values if each is not None]) if option.many else values[-1]
        self.sources[name] = source

    def _add_conflict(self, reason: str) -> None:
        """
        Record a conflict, with the options of *reason* as they are spelled in their sources.

        A default is spelled as in the source of the first option that was given, which is where it would be changed.
        """
        named = [name for name, _ in _NAMES.findall(reason)]
        if not self.invalid.isdisjoint([CONFIG.name, *named]):
            # The value that is not known might resolve the conflict.
            return
        sources = [self.sources[name] for name in named]
        changeable = [each for each in sources if each not in (COMMAND_LINE, DEFAULT)] or [COMMAND_LINE]

        def spell(found: re.Match[str]) -> str:
            option, source, value = _BY_NAME[found[1]], self.sources[found[1]], found[2] or ""
            if source == DEFAULT:
                return changeable[0].spell(option) + (value and f"{value}, the default")
            return source.spell(option) + value

        self.complain(_NAMES.sub(spell, reason), *changeable)

    def checked(self) -> Settings:
        """
        Return the settings with these values, which must not be in conflict; see `Settings.conflicts`.

        Raises:
            ConfigError: names all mistakes, ordered by precedence of their sources.
        """
        settings = Settings.from_values(self.values)
        for reason in settings.conflicts():
            self._add_conflict(reason)
        if self.complaints:
            ordered = sorted(self.complaints, key=lambda complaint: complaint[0].precedence)
            usage = all(source == COMMAND_LINE for source, _ in ordered)
            raise ConfigError([line for _, line in ordered], status=os.EX_USAGE if usage else os.EX_CONFIG)
        return settings


def resolve(
    arguments: Mapping[str, Sequence[str]], environment: Mapping[str, str], complaints: Sequence[str] = ()
) -> Resolved:
    """
    Return the values of all options, and all mistakes.

    *arguments* are the texts on the command line, and *complaints* those about its other words.
    """
    texts, unknown = read_environment(environment)
    found = Resolved(unknown_variables=unknown)
    sources = [evolve(COMMAND_LINE, given=arguments), evolve(ENVIRONMENT, given=texts)]
    found.add(CONFIG, sources)
    if found.values[CONFIG.name] is not None:
        sources.append(_read_file(found.values[CONFIG.name], found))
    for option in OPTIONS[1:]:
        found.add(option, sources)
    for complaint in complaints:
        found.complain(complaint, COMMAND_LINE)
    if found.sources["listen"] == DEFAULT and found.values["listen-tls"]:
        # A server opens only the addresses that it is given.
        found.values["listen"], found.sources["listen"] = (), evolve(DEFAULT, text="default: listen-tls is given")
    return found


def read_environment(environment: Mapping[str, str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """
    Return the texts of each option, by its name, and the variables that look like options, each with a hint or "".

    The latter are not an error: Kubernetes creates such variables for a service named ``queueber``.
    """
    options = {option.variable: option for option in OPTIONS}
    texts: dict[str, list[str]] = {}
    unknown = {}
    for name, value in sorted(environment.items()):
        option = options.get(name)
        if option is None:
            if name.startswith(ENVIRONMENT_PREFIX) and name not in CLIENT_VARIABLES:
                unknown[name] = suggestion(ENVIRONMENT.spell, name.removeprefix(ENVIRONMENT_PREFIX))
        elif option.command_line_only:
            unknown[name] = f"; {option.name} is accepted on the command line only"
        else:
            # Spaces separate several values, except those after a backslash.
            several = [each.replace("\\ ", " ") for each in re.split(r"(?<!\\)\s+", value) if each]
            texts[option.name] = several or [""] if option.many else [value]
    return texts, unknown


def _read_file(path: str, found: Resolved) -> Source:
    """Return the values in the file at *path*, with a complaint in *found* for each other entry."""
    given: dict[str, Sequence[object]] = {}
    source = Source(2, path, given)
    try:
        # Editors on Windows write a byte order mark.  With a final newline, each mistake has its position.
        root = tomllib.loads(Path(path).read_text("utf-8-sig") + "\n")
    except (OSError, ValueError, RecursionError) as why:
        found.complain(getattr(why, "strerror", None) or str(why), source)
        found.invalid.add(CONFIG.name)
        return source
    options = {(option.table, option.key): option for option in OPTIONS}
    for name, content in root.items():
        table, entries = (name, content) if isinstance(content, dict) else (None, {name: content})
        for key, value in entries.items():
            option = options.get((table, key))
            if option is None:
                found.complain(_unknown(table, key), source)
            elif option is CONFIG or option.command_line_only:
                found.complain(f"{option.name} cannot be set in a file", source)
            else:
                given[option.name] = value if option.many and isinstance(value, list) else [value]
    return source


def _unknown(table: str | None, key: str) -> str:
    """Return the complaint about an entry of *table* that is not an option."""

    def spell(option: Option) -> str:
        return option.in_file if option.table or not table else f"{option.in_file}, before all tables"

    if table is None:
        return f"{key} is not an option{suggestion(spell, key)}"
    return f"[{table}] {key} is not an option{suggestion(spell, f'{table}-{key}', key)}"
