"""
The sources of options: command line, environment, configuration file, defaults, in order of precedence.

All mistakes are reported together, each with its source, so that an operator
can repair a configuration in one pass.
"""

import os
import re
import tomllib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, evolve, field, frozen

from queueber.errors import QueueberError, one_line
from queueber.server.config.settings import CONFIG, OPTIONS, Settings, suggestion
from queueber.server.config.spec import ENVIRONMENT_PREFIX, Option
from queueber.units import MIB

FILE_BYTES_MAX = MIB
"""Far more than all options need.  A device or a log that is named by mistake is not read to its end."""

CLIENT_VARIABLES = frozenset(
    f"{ENVIRONMENT_PREFIX}{name}"
    for name in ("ADDR", "QUEUE", "TLS", "TLS_CA", "TLS_SERVER_NAME", "CLIENT_CERTIFICATE", "CLIENT_KEY", "TIMEOUT")
)
"""The variables of the command-line client, which may share an environment with the server."""

_NAMES = re.compile(rf"(?<!\S)--({'|'.join(option.name for option in OPTIONS)})(?![\w-])( \([^)]*)?")
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


COMMAND_LINE, ENVIRONMENT, DEFAULT = Source(0, "command line"), Source(1, "environment"), Source(3, "default")


@frozen
class OptionValue:
    """The value of an option, and its source."""

    option: Option
    value: Any
    source: Source

    @property
    def origin(self) -> str:
        """The source for an operator, with the name of the variable."""
        return f"{self.source.text} {self.option.variable}" if self.source == ENVIRONMENT else self.source.text


class ConfigError(QueueberError):
    """Invalid options.  The text has a line for each mistake."""

    def __init__(self, complaints: Sequence[str], *, status: int) -> None:
        super().__init__("\n".join(complaints))
        self.status = status
        """The exit status for these mistakes."""


@define
class Resolved:
    """The values of all options, and the mistakes in all sources."""

    values: dict[str, OptionValue] = field(factory=dict)
    """By the names of the options.  An invalid one has its default."""

    complaints: list[tuple[Source, str]] = field(factory=list)
    invalid: set[str] = field(factory=set)
    """The names of options with an invalid value; of the option `CONFIG`, too, if the file cannot be read."""

    def complain(self, line: str, *sources: Source) -> None:
        """Record a mistake in one or several sources."""
        places = ", ".join(dict.fromkeys(each.text for each in sources if each != COMMAND_LINE))
        self.complaints.append((sources[0], one_line(f"{places}: {line}" if places else line)))

    def add(self, option: Option, sources: Sequence[Source]) -> None:
        """Record the value of *option* in the first of *sources* that has it, or its default."""
        source = next((each for each in sources if option.name in each.given), DEFAULT)
        given = source.given.get(option.name, ())
        if option.kind.may_be_none and list(given) == [""]:
            given = ()
        values: list[Any] = []
        for each in given if option.kind.many else given[-1:]:
            try:
                values.append(option.convert(each))
            except ValueError as why:
                self.complain(f"{source.spell(option)} {why}", source)
                self.invalid.add(option.name)
        value = tuple(values) if option.kind.many else next(iter(values), None)
        is_default = source == DEFAULT or option.name in self.invalid
        self.values[option.name] = OptionValue(option, option.default if is_default else value, source)

    def _add_conflict(self, reason: str) -> None:
        """
        Record a conflict, with the options of *reason* as they are spelled in their sources.

        A default is spelled as in the source of the first option that was given, which is where it would be changed.
        """
        named = [self.values[name] for name, _ in _NAMES.findall(reason)]
        if not self.invalid.isdisjoint((CONFIG.name, *(each.option.name for each in named))):
            # The value that is not known might resolve the conflict.
            return
        sources = [each.source for each in named if each.source not in (COMMAND_LINE, DEFAULT)] or [COMMAND_LINE]

        def spell(found: re.Match[str]) -> str:
            given, value = self.values[found[1]], found[2] or ""
            if given.source == DEFAULT:
                return sources[0].spell(given.option) + (value and f"{value}, the default")
            return given.source.spell(given.option) + value

        self.complain(_NAMES.sub(spell, reason), *sources)

    def checked(self, *, at_start: bool = True) -> Settings:
        """
        Return the settings with these values, which must not be in conflict; see `Settings.conflicts`.

        Raises:
            ConfigError: names all mistakes, ordered by precedence of their sources.
        """
        settings = Settings.from_values({name: each.value for name, each in self.values.items()})
        for reason in settings.conflicts(at_start=at_start):
            self._add_conflict(reason)
        if self.complaints:
            ordered = sorted(self.complaints, key=lambda complaint: complaint[0].precedence)
            usage = all(source == COMMAND_LINE for source, _ in ordered)
            raise ConfigError([line for _, line in ordered], status=os.EX_USAGE if usage else os.EX_CONFIG)
        return settings


@frozen
class ReloadedConfig:
    """The configuration as the environment and the file have it now."""

    settings: Settings
    changed: Mapping[str, str]
    """The options whose values have changed since the start, each with its source now."""


def resolve(
    arguments: Mapping[str, Sequence[str]],
    environment: Mapping[str, str],
    *,
    file: str | None = None,
    unknown: Sequence[str] = (),
) -> Resolved:
    """
    Return the values of all options, and all mistakes.

    *arguments* are the texts on the command line, and *unknown* the complaints about its other words.  *file* replaces
    the path of the configuration file, after a change of the working directory.
    """
    found = Resolved()
    sources = [evolve(COMMAND_LINE, given=arguments), evolve(ENVIRONMENT, given=read_environment(environment)[0])]
    found.add(CONFIG, sources)
    path = file or found.values[CONFIG.name].value
    if path is not None:
        sources.append(_read_file(path, found))
    for option in OPTIONS[1:]:
        found.add(option, sources)
    for complaint in unknown:
        found.complain(complaint, COMMAND_LINE)
    listen = found.values["listen"]
    if listen.source == DEFAULT and found.values["listen-tls"].value:
        # A server opens only the addresses that it is given.
        found.values["listen"] = evolve(listen, value=(), source=evolve(DEFAULT, text="default: listen-tls is given"))
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
        elif option.kind.many:
            # Spaces separate values, except those after a backslash.
            texts[option.name] = [each.replace("\\ ", " ") for each in re.split(r"(?<!\\)\s+", value) if each] or [""]
        else:
            texts[option.name] = [value]
    return texts, unknown


def _read_file(path: str, found: Resolved) -> Source:
    """Return the values in the file at *path*, with a complaint in *found* for each other entry."""
    given: dict[str, Sequence[object]] = {}
    source = Source(2, path, given)
    try:
        root = _parse(Path(path))
    except ValueError as why:
        found.complain(str(why), source)
        found.invalid.add(CONFIG.name)
        return source
    options = {(option.table, option.key): option for option in OPTIONS}
    for name, content in root.items():
        table, entries = (name, content) if isinstance(content, dict) else (None, {name: content})
        for key, value in entries.items():
            option = options.get((table, key))
            if option is None:
                found.complain(_unknown(table, key), source)
            elif option is CONFIG:
                found.complain("config names this file and is not an option of it", source)
            elif option.command_line_only:
                found.complain(f"{option.name} is accepted on the command line only", source)
            else:
                given[option.name] = value if option.kind.many and isinstance(value, list) else [value]
    return source


def _unknown(table: str | None, key: str) -> str:
    """Return the complaint about an entry that is not an option."""
    if table is None:
        return f"{key} is not an option{suggestion(lambda option: option.in_file, key)}"

    def spell(option: Option) -> str:
        return option.in_file if option.table else f"{option.in_file}, before all tables"

    return f"[{table}] {key} is not an option{suggestion(spell, f'{table}-{key}', key)}"


def _parse(path: Path) -> dict[str, Any]:
    """
    Return the entries and tables of the TOML file at *path*.

    Raises:
        ValueError: it cannot be read, or is not UTF-8, or not TOML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as why:
        raise ValueError(why.strerror or str(why)) from None
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"has more than {FILE_BYTES_MAX:,} bytes, which no configuration has")
    if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise ValueError("is UTF-16, by its byte order mark; it must be UTF-8")
    try:
        # Editors on Windows write a byte order mark.  With a final newline, each mistake has its position.
        return tomllib.loads(content.decode("utf-8-sig") + "\n")
    except UnicodeDecodeError as why:
        line = why.object.count(b"\n", 0, why.start) + 1
        raise ValueError(f"byte {why.object[why.start]:#04x} is not UTF-8 (at line {line})") from None
    except tomllib.TOMLDecodeError:
        raise
    except (ValueError, RecursionError):
        raise ValueError("has a number that is too long, or lists that are nested too deeply") from None
