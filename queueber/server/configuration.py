"""
Where the options' values come from: command line, environment, file, default, in this order.

Everything that is wrong is told at once, each with the place it stands at: a
person who has to repair a configuration at night wants to do so once.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from queueber.errors import QueueberError
from queueber.server.option import ENVIRONMENT_PREFIX, Option, switch, text_of

EX_USAGE = 64
"""Wrong options: ``sysexits.h``."""

EX_CONFIG = 78
"""A wrong configuration: ``sysexits.h``."""

COMMAND_LINE = "command line"
DEFAULT = "default"
_ENVIRONMENT = "environment "

# How much of two names must agree for the one to be a slip for the other.
_ALIKE = 0.6
_ALIKE_IN_THE_ENVIRONMENT = 0.85  # where all begin with the same word


@frozen
class Setting:
    """One option's value, and where it came from."""

    option: Option
    value: Any
    origin: str
    note: str = ""
    """Why a default is not the usual one."""


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

    def complain(self, origin: str, line: str) -> None:
        """Something at *origin* cannot be used."""
        self.complaints.append((origin, line))

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
    options: Sequence[Option], *, arguments: Mapping[str, Sequence[str]], environment: Mapping[str, str]
) -> Gathered:
    """
    Every option's value, and all that is wrong with those that were given.

    *arguments* are the texts from the command line.  The file is the one that
    the option ``config`` names there or in the environment.
    """
    found = Gathered()
    from_line = {name: Given(tuple(texts), COMMAND_LINE) for name, texts in arguments.items()}
    from_environment = dict(_from_environment(options, environment))
    file = from_line.get("config") or from_environment.get("config")
    from_file: dict[str, Given] = {}
    if file is not None and file.texts[-1]:
        from_file = _from_file(Path(file.texts[-1]), options, found)
    for option in options:
        name = option.name
        given = from_line.get(name) or from_environment.get(name) or from_file.get(name)
        setting, reasons = _setting(option, given)
        found.settings[name] = setting
        for reason in reasons:
            assert given is not None, "a default is never wrong"
            place = f"--{name}" if given.origin == COMMAND_LINE else f"{given.origin}: {name}"
            found.complain(given.origin, f"{place} {reason}")
            found.wrong.add(name)
    for option in options:
        if option.replaced_by is not None:
            _replace_default(option, option.replaced_by, found)
    return found


def _replace_default(option: Option, by: str, found: Gathered) -> None:
    """Leave *option* without a value if it was not given and the option named *by* has one."""
    if found.settings[option.name].origin == DEFAULT and found.settings[by].value:
        found.settings[option.name] = Setting(option, (), DEFAULT, f"{by} is given")


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
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known:
            only = f"; {forbidden[name]} is taken from the command line alone" if name in forbidden else ""
            found[name] = only or meant(name, known, _ALIKE_IN_THE_ENVIRONMENT)
    return found


def meant(name: str, known: Iterable[str], alike: float = _ALIKE) -> str:
    """A question after one of *known*, if *name* might be a slip for it, with so much of both *alike*."""
    close = get_close_matches(name, list(known), n=1, cutoff=alike)
    return f"; did you mean {close[0]}?" if close else ""


def _from_file(path: Path, options: Sequence[Option], gathered: Gathered) -> dict[str, Given]:
    try:
        source = path.read_text()
        tables = tomllib.loads(source)
    except (OSError, UnicodeDecodeError) as why:
        reason = getattr(why, "strerror", None) or str(why)
    except tomllib.TOMLDecodeError as why:
        reason = str(why)
    else:
        return _from_tables(path, source, tables, options, gathered)
    gathered.unread = True
    gathered.complain(str(path), f"{path}: {reason}")
    return {}


def _from_tables(
    path: Path, source: str, tables: Mapping[str, Any], options: Sequence[Option], gathered: Gathered
) -> dict[str, Given]:
    known = {option.table for option in options}
    lines = _lines_of(source, known)
    allowed = {(option.table, option.key): option for option in options}
    found = {}
    for (table, key), value in _entries(tables, known):
        place = f"{path} line {lines.get((table, key), '?')}"
        option = allowed.get((table, key))
        if option is None:
            name = f"[{table}] {key}" if table else f"[{key}]" if isinstance(value, dict) else key
            gathered.complain(place, f"{place}: {name} is not an option{_guess(table, key, value, allowed)}")
        elif option.name == "config":
            gathered.complain(place, f"{place}: config names this file and cannot stand in it")
        elif option.command_line_only:
            gathered.complain(place, f"{place}: {option.name} is taken from the command line alone")
        else:
            try:
                found[option.name] = Given(_texts(option, value), place)
            except ValueError as why:
                gathered.complain(place, f"{place}: {option.name} {why}")
                gathered.wrong.add(option.name)
    return found


def _entries(tables: Mapping[str, Any], known: set[str | None]) -> Iterator[tuple[tuple[str | None, str], Any]]:
    for key, value in tables.items():
        if isinstance(value, dict) and key in known:
            for inner, each in value.items():
                yield (key, inner), each
        else:
            yield (None, key), value


def _guess(table: str | None, key: str, value: object, allowed: Mapping[tuple[str | None, str], Option]) -> str:
    if table is None and isinstance(value, dict):
        return meant(f"[{key}]", {f"[{at}]" for at, _ in allowed if at})
    close = meant(key, [name for at, name in allowed if at == table])
    if close:
        return close
    elsewhere = [at for at, name in allowed if name == key]
    return f"; it belongs into [{elsewhere[0]}]" if elsewhere and elsewhere[0] else ""


def _texts(option: Option, value: object) -> tuple[str, ...]:
    """A file's value as what would be typed on the command line."""
    if isinstance(value, list) and option.many:
        return tuple(text for each in value for text in _texts(option, each))
    if isinstance(value, bool) and option.read is not switch:
        raise ValueError(f"must be a text or a number, not {str(value).lower()}")
    if not isinstance(value, str | int | float):
        raise ValueError(  # noqa: TRY004  (of a person's text, not of a program's argument)
            f"must be a text or a number, not {type(value).__name__}"
        )
    return (text_of(value),)


def _lines_of(source: str, known: set[str | None]) -> dict[tuple[str | None, str], int]:
    """On which line each entry begins; tomllib does not tell, so it is given one statement at a time."""
    lines: dict[tuple[str | None, str], int] = {}
    headers: list[str] = []
    begun, statement = 1, ""
    for number, line in enumerate(source.split("\n"), start=1):
        statement += f"{line}\n"
        try:
            tables = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # it goes on in the next line
        if statement.lstrip().startswith("["):
            headers = _path(tables)
        else:
            for header in reversed(headers):
                tables = {header: tables}
        if tables:
            for at, _ in _entries(tables, known):
                lines.setdefault(at, begun)
        begun, statement = number + 1, ""
    return lines


def _path(tables: Mapping[str, Any]) -> list[str]:
    """The names in the header of a table."""
    path = []
    while tables:
        ((name, inner),) = tables.items()
        path.append(name)
        tables = inner if isinstance(inner, dict) else {}
    return path
