"""
Where the options' values come from: command line, environment, file, default, in this order.

Everything that is wrong is told at once, each with the place it stands at: a
person who has to repair a configuration at night wants to do so once.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from queueber.errors import QueueberError, one_line
from queueber.server.config.config_file import Unreadable, read_config_file
from queueber.server.config.spec import ENVIRONMENT_PREFIX, Option, check_characters, meant

EX_USAGE = 64
"""Wrong options: ``sysexits.h``."""

EX_CONFIG = 78
"""A wrong configuration: ``sysexits.h``."""

COMMAND_LINE = "command line"
DEFAULT = "default"
_ENVIRONMENT = "environment "

# How much of two names must agree for the one to be a slip for the other, where all begin with the same word.
_ALIKE_IN_THE_ENVIRONMENT = 0.85

CLIENT_VARIABLES = frozenset(
    f"{ENVIRONMENT_PREFIX}{name}"
    for name in ("ADDR", "QUEUE", "TLS", "TLS_CA", "TLS_SERVER_NAME", "CLIENT_CERTIFICATE", "CLIENT_KEY", "TIMEOUT")
)
"""What the command line client takes from an environment that may be the server's as well."""


@frozen
class Setting:
    """One option's value, and where it came from."""

    option: Option
    value: Any
    origin: str
    note: str = ""
    """Why a default is not the usual one."""

    @property
    def spelled(self) -> str:
        """The option's name where its value came from: with dashes, as a variable, or as a key of the file."""
        return spelling(self.option, self.origin)


def spelling(option: Option, origin: str) -> str:
    """The name of *option* at *origin*."""
    if origin in (COMMAND_LINE, DEFAULT):
        return f"--{option.name}"
    return option.variable if origin.startswith(_ENVIRONMENT) else option.in_file


def place_of(origin: str) -> str:
    """What goes before a line about a value from *origin*, where the value's name does not say it."""
    if origin in (COMMAND_LINE, DEFAULT):
        return ""
    return _ENVIRONMENT.strip() if origin.startswith(_ENVIRONMENT) else origin


class Wrong(QueueberError):
    """Options that cannot be used; the text has a line for each."""

    def __init__(self, complaints: Sequence[str], *, status: int) -> None:
        super().__init__("\n".join(complaints))
        self.status = status
        """With what the process is to end."""


@frozen
class Given:
    """One text for one option, as it was found somewhere."""

    texts: tuple[str, ...]
    origin: str


@define
class Gathered:
    """What was found in all places, right or wrong."""

    settings: dict[str, Setting] = field(factory=dict)
    """Every option's value by its name; of one that is wrong, the default."""

    complaints: list[tuple[str, str]] = field(factory=list)
    """Of each mistake, the origin and a line about it."""

    wrong: set[str] = field(factory=set)
    """The names of options whose values cannot be used."""

    unread: bool = False
    """There is a file that cannot be read, so it is not known what it says."""

    def complain(self, origin: str, line: str, *others: str) -> None:
        """Something at *origin* cannot be used, maybe together with *others*; *line* says what, without the places."""
        places = ", ".join(filter(None, dict.fromkeys(map(place_of, (origin, *others)))))
        self.complaints.append((origin, one_line(f"{places}: {line}" if places else line)))

    def refuse(self) -> None:
        """
        Go on if nothing is wrong.

        Raises:
            Wrong: naming all that is, in the order of the places: command line, environment, file by its lines.
        """
        if self.complaints:
            ordered = sorted(self.complaints, key=lambda complaint: _rank(complaint[0]))
            usage = all(origin in (COMMAND_LINE, DEFAULT) for origin, _ in ordered)
            raise Wrong([line for _, line in ordered], status=EX_USAGE if usage else EX_CONFIG)


_PLACE = re.compile(r" line (\d+)\Z")


def _rank(origin: str) -> tuple[int, int]:
    if origin in (COMMAND_LINE, DEFAULT):
        return 0, 0
    if origin.startswith(_ENVIRONMENT):
        return 1, 0
    line = _PLACE.search(origin)
    return 2, int(line[1]) if line else 0


def resolve(
    options: Sequence[Option], *, arguments: Mapping[str, Sequence[str]], environment: Mapping[str, str]
) -> dict[str, Setting]:
    """
    Every option's value by its name.

    Raises:
        Wrong: naming all that is wrong.
    """
    found = gather(options, arguments=arguments, environment=environment)
    found.refuse()
    return found.settings


def gather(
    options: Sequence[Option],
    *,
    arguments: Mapping[str, Sequence[str]],
    environment: Mapping[str, str],
    file: str | None = None,
) -> Gathered:
    """
    Every option's value, and all that is wrong with those that were given.

    *arguments* are the texts from the command line.  The file is the one that
    the option ``config`` names there or in the environment, read as *file* if
    that is where it is by now.
    """
    found = Gathered()
    from_line = {name: Given(tuple(texts), COMMAND_LINE) for name, texts in arguments.items()}
    from_environment = dict(_from_environment(options, environment))
    from_file = _from_file(options, from_line.get("config") or from_environment.get("config"), found, file)
    for option in options:
        name = option.name
        given = from_line.get(name) or from_environment.get(name) or from_file.get(name)
        setting, reasons = _setting(option, given)
        found.settings[name] = setting
        for reason in reasons:
            found.complain(setting.origin, f"{setting.spelled} {reason}")
            found.wrong.add(name)
    for option in options:
        if option.replaced_by is not None:
            _replace_default(option, option.replaced_by, found)
    return found


def _replace_default(option: Option, by: str, found: Gathered) -> None:
    """Leave *option* without a value if it was not given and the option named *by* has one."""
    if found.settings[option.name].origin == DEFAULT and found.settings[by].value:
        found.settings[option.name] = Setting(option, (), DEFAULT, f"{by} is given")


def _from_file(options: Sequence[Option], given: Given | None, found: Gathered, moved: str | None) -> dict[str, Given]:
    """What the file says that *given* names, and is *moved* by now; what is wrong with it goes to *found*."""
    config = next((option for option in options if option.name == "config"), None)
    if config is None or given is None:
        return {}
    setting, reasons = _setting(config, given)
    if reasons:
        found.unread = True
        return {}
    path = Path(moved or setting.value)
    try:
        file = read_config_file(path, options)
    except Unreadable as why:
        found.unread = True
        found.complain(f"{path}{f' line {why.line}' if why.line else ''}", str(why))
        return {}
    for place, line in file.complaints:
        found.complain(place, line)
    found.wrong |= file.wrong
    return {name: Given(entry.texts, entry.place) for name, entry in file.entries.items()}


def _setting(option: Option, given: Given | None) -> tuple[Setting, list[str]]:
    """The option's value, the default if it is wrong, and what is wrong with it."""
    if given is None:
        return Setting(option, option.default, DEFAULT), []
    if option.may_be_none and given.texts == ("",):
        return Setting(option, (), given.origin), []
    if option.may_be_none and "" in given.texts:
        return Setting(option, option.default, given.origin), ["is empty, which means none, and has other values too"]
    values, reasons = [], []
    for text in given.texts if option.many else given.texts[-1:]:
        try:
            check_characters(text)
            values.append(option.read(text))
        except ValueError as why:
            reasons.append(str(why))
    if reasons:
        return Setting(option, option.default, given.origin), reasons
    return Setting(option, tuple(values) if option.many else values[0], given.origin), []


def _from_environment(options: Sequence[Option], environment: Mapping[str, str]) -> Iterator[tuple[str, Given]]:
    for option in options:
        value = environment.get(option.variable)
        if value is not None and not option.command_line_only:
            texts = (_words(value) or ("",)) if option.many else (value,)
            yield option.name, Given(texts, _ENVIRONMENT + option.variable)


def _words(value: str) -> tuple[str, ...]:
    """The texts in a list with spaces between them; one that belongs to a text has a backslash before it."""
    return tuple(each.replace("\\ ", " ") for each in re.split(r"(?<!\\)\s+", value) if each)


def unknown_variables(options: Sequence[Option], environment: Mapping[str, str]) -> dict[str, str]:
    """
    Variables that look like ours and are not, and of each what might have been meant, or nothing.

    They are no error: Kubernetes makes such ones by itself for a service of this name.
    """
    known = {option.variable for option in options if not option.command_line_only}
    forbidden = {option.variable: option.name for option in options if option.command_line_only}
    found = {}
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known | CLIENT_VARIABLES:
            only = f"; {forbidden[name]} is taken from the command line alone" if name in forbidden else ""
            found[name] = only or _without_table(name, options) or meant(name, known, _ALIKE_IN_THE_ENVIRONMENT)
    return found


def _without_table(name: str, options: Sequence[Option]) -> str:
    for option in options:
        if option.table and name == ENVIRONMENT_PREFIX + option.key.upper().replace("-", "_"):
            return f"; did you mean {option.variable}?"
    return ""
