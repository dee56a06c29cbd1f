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

from attrs import frozen

from queueber.errors import QueueberError
from queueber.server.option import ENVIRONMENT_PREFIX, Option, switch, text_of

EX_USAGE = 64
"""Wrong options: ``sysexits.h``."""

EX_CONFIG = 78
"""A wrong configuration: ``sysexits.h``."""

COMMAND_LINE = "command line"
DEFAULT = "default"


@frozen
class Setting:
    """One option's value, and where it came from."""

    option: Option
    value: Any
    origin: str


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


def resolve(
    options: Sequence[Option], *, arguments: Mapping[str, Sequence[str]], environment: Mapping[str, str]
) -> dict[str, Setting]:
    """
    Every option's value by its name.

    *arguments* are the texts from the command line.  The file is the one that
    the option ``config`` names there or in the environment.

    Raises:
        Wrong: naming all that is wrong.
    """
    known = {option.name: option for option in options}
    from_line = {name: Given(tuple(texts), COMMAND_LINE) for name, texts in arguments.items()}
    complaints: list[str] = []
    from_environment = dict(_from_environment(options, environment))
    file = from_line.get("config") or from_environment.get("config")
    from_file: dict[str, Given] = {}
    if file is not None and file.texts[-1]:
        from_file = _from_file(Path(file.texts[-1]), options, complaints)
    settings = {}
    only_usage = not complaints
    for name, option in known.items():
        given = from_line.get(name) or from_environment.get(name) or from_file.get(name)
        try:
            settings[name] = _setting(option, given)
        except ValueError as why:
            assert given is not None, "a default is never wrong"
            place = f"--{name}" if given.origin == COMMAND_LINE else f"{given.origin}: {name}"
            complaints.append(f"{place} {why}")
            only_usage = only_usage and given.origin == COMMAND_LINE
    if complaints:
        raise Wrong(complaints, status=EX_USAGE if only_usage else EX_CONFIG)
    return settings


def status_for(settings: Iterable[Setting]) -> int:
    """What to end with when *settings* cannot be used together: it is the configuration's fault if there is one."""
    return EX_USAGE if all(each.origin in (COMMAND_LINE, DEFAULT) for each in settings) else EX_CONFIG


def _setting(option: Option, given: Given | None) -> Setting:
    if given is None:
        return Setting(option, option.default, DEFAULT)
    if option.many:
        return Setting(option, tuple(option.read(each) for each in given.texts), given.origin)
    return Setting(option, option.read(given.texts[-1]), given.origin)


def _from_environment(options: Sequence[Option], environment: Mapping[str, str]) -> Iterator[tuple[str, Given]]:
    for option in options:
        value = environment.get(option.variable)
        if value is not None and not option.command_line_only:
            texts = _words(value) if option.many else (value,)
            yield option.name, Given(texts, f"environment {option.variable}")


def _words(value: str) -> tuple[str, ...]:
    """The texts in a list with spaces between them; one that belongs to a text has a backslash before it."""
    return tuple(each.replace("\\ ", " ") for each in re.split(r"(?<!\\)\s+", value) if each)


def unknown_variables(options: Sequence[Option], environment: Mapping[str, str]) -> list[str]:
    """
    Variables that look like ours and are not.

    They are no error: Kubernetes makes such ones by itself for a service of this name.
    """
    known = {option.variable for option in options if not option.command_line_only}
    return sorted(name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known)


def _from_file(path: Path, options: Sequence[Option], complaints: list[str]) -> dict[str, Given]:
    try:
        source = path.read_text()
        tables = tomllib.loads(source)
    except (OSError, UnicodeDecodeError) as why:
        complaints.append(f"{path}: {getattr(why, 'strerror', None) or why}")
        return {}
    except tomllib.TOMLDecodeError as why:
        complaints.append(f"{path}: {why}")
        return {}
    known = {option.table for option in options}
    lines = _lines_of(source, known)
    allowed = {(option.table, option.key): option for option in options if not option.command_line_only}
    found = {}
    for (table, key), value in _entries(tables, known):
        place = f"{path} line {lines.get((table, key), '?')}"
        option = allowed.get((table, key))
        if option is not None and option.name == "config":
            complaints.append(f"{place}: config names this file and cannot stand in it")
            continue
        if option is None:
            name = f"[{table}] {key}" if table else key
            complaints.append(f"{place}: {name} is not an option{_guess(table, key, allowed)}")
            continue
        try:
            found[option.name] = Given(_texts(option, value), place)
        except ValueError as why:
            complaints.append(f"{place}: {option.name} {why}")
    return found


def _entries(tables: Mapping[str, Any], known: set[str | None]) -> Iterator[tuple[tuple[str | None, str], Any]]:
    for key, value in tables.items():
        if isinstance(value, dict) and key in known:
            for inner, each in value.items():
                yield (key, inner), each
        else:
            yield (None, key), value


def _guess(table: str | None, key: str, allowed: Mapping[tuple[str | None, str], Option]) -> str:
    close = get_close_matches(key, [name for at, name in allowed if at == table], n=1)
    if close:
        return f"; did you mean {close[0]}?"
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
