"""
The configuration file: TOML whose keys are the options' names.

`tomllib` gives values without lines, and stops at the first mistake without
saying which key it is.  So the lines of all entries, and a key that is there
twice, are found by reading the file one statement at a time.
"""

import codecs
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from queueber.server.config.spec import Option, meant, switch, text_of
from queueber.units import MIB

FILE_BYTES_MAX = MIB
"""Far more than all options take: no device or log is read to its end by mistake."""

_LAST = ("]", "}", '"""', "'''")
"""With one of these the last line of a statement of several lines ends what the first has begun."""

_LINE = re.compile(r" \(at line (\d+), column (\d+)\)\Z")


class Unreadable(ValueError):
    """A file that is not there, or no TOML; the text says where and why."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


@frozen
class Entry:
    """An option's value in a file."""

    texts: tuple[str, ...]
    """What would be typed for it on the command line."""

    place: str
    """The file and the line."""


@define
class ConfigFile:
    """What a file says, and what of it cannot be used."""

    entries: dict[str, Entry] = field(factory=dict)
    """By the options' names."""

    complaints: list[tuple[str, str]] = field(factory=list)
    """Of each mistake, the place and a line about it without the place."""

    wrong: set[str] = field(factory=set)
    """The options of which there is a value that is none for any option."""


def read_config_file(path: Path, options: Sequence[Option]) -> ConfigFile:
    """
    The entries of the file at *path* that are about *options*.

    Raises:
        Unreadable: there is no such file, or it is not UTF-8, or not TOML.
    """
    source = _source(path)
    known = {option.table for option in options}
    try:
        # With a line's end, so that a mistake in the last line has a line, too.
        tables = tomllib.loads(f"{source}\n")
    except tomllib.TOMLDecodeError as why:
        raise _explained(source, str(why)) from None
    except (ValueError, RecursionError):
        raise Unreadable("has a number that is too long, or lists that are nested too deeply") from None
    lines = _lines_of(source, known)
    allowed = {(option.table, option.key): option for option in options}
    file = ConfigFile()
    for (table, key), value in _entries(tables, known):
        place = f"{path} line {lines.get((table, key), '?')}"
        option = allowed.get((table, key))
        if option is None:
            name = f"[{table}] {key}" if table else f"[{key}]" if isinstance(value, dict) else key
            file.complaints.append((place, f"{name} is not an option{_guess(table, key, value, allowed)}"))
        elif option.name == "config":
            file.complaints.append((place, "config names this file and cannot stand in it"))
        elif option.command_line_only:
            file.complaints.append((place, f"{option.name} is taken from the command line alone"))
        else:
            try:
                file.entries[option.name] = Entry(_texts(option, value), place)
            except ValueError as why:
                file.complaints.append((place, f"{option.in_file} {why}"))
                file.wrong.add(option.name)
    return file


def _source(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as why:
        raise Unreadable(why.strerror or str(why)) from None
    if len(content) > FILE_BYTES_MAX:
        raise Unreadable(f"has more than {FILE_BYTES_MAX:,} bytes, which no configuration has")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Unreadable("is UTF-16; it must be UTF-8")
    try:
        # Editors of Windows begin a file with a byte order mark.
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as why:
        line = content.count(b"\n", 0, why.start) + 1
        raise Unreadable(f"byte {content[why.start]:#04x} is not UTF-8", line) from None


def _explained(source: str, reason: str) -> Unreadable:
    """What tomllib gives as the *reason*, with its line apart, and with the name of a key that is there twice."""
    at = _LINE.search(reason)
    if at is None:
        return Unreadable(reason)
    line = int(at[1])
    return Unreadable(_repeated(source, line) or f"{reason[: at.start()]} (column {at[2]})", line)


@frozen
class _Statement:
    """One line of a file, or several that belong together: a table's header, or the values of one assignment."""

    begun: int
    """Its first line."""

    header: tuple[str, ...]
    """The table that it begins or stands in."""

    values: Mapping[str, Any] | None
    """What it sets; None if it is a header."""

    def paths(self) -> Iterator[tuple[str, ...]]:
        """Of each value, or of the table, the keys that lead to it."""
        if self.values is None:
            yield self.header
        else:
            yield from ((*self.header, *path) for path in _leaves(self.values))


def _repeated(source: str, line: int) -> str | None:
    """The complaint about the statement that ends at *line*, if it sets what is set before it, in whole or in part."""
    seen: dict[tuple[str, ...], _Statement] = {}
    statement = None
    for statement in _statements("\n".join(source.split("\n")[:line])):
        found = [
            f"{_shown(path, statement)} is there already, at line {other.begun}"
            + ("" if path == earlier else f" as {_shown(earlier, other)}")
            for path in statement.paths()
            for earlier, other in seen.items()
            if _collide(path, statement, earlier, other)
        ]
        if found:
            return found[0]
        seen.update((path, statement) for path in statement.paths())
    return None


def _shown(path: tuple[str, ...], statement: _Statement) -> str:
    if statement.values is None:
        return f"[{'.'.join(path)}]"
    return f"[{'.'.join(path[:-1])}] {path[-1]}" if path[1:] else path[0]


def _collide(path: tuple[str, ...], at: _Statement, earlier: tuple[str, ...], before: _Statement) -> bool:
    """Whether both set the same, or one sets a value within what is a value for the other."""
    if path == earlier:
        return True
    if len(path) < len(earlier):
        # A table may begin after those within it, but not after dotted keys that lead into it.
        return earlier[: len(path)] == path and (at.values is not None or len(before.header) < len(path))
    return path[: len(earlier)] == earlier and before.values is not None


def _leaves(tables: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, value in tables.items():
        if isinstance(value, dict) and value:
            yield from ((key, *rest) for rest in _leaves(value))
        else:
            yield (key,)


def _statements(source: str) -> Iterator[_Statement]:
    """All statements of *source*; one that is not finished, and what follows it, is left out."""
    header: tuple[str, ...] = ()
    begun, text = 1, ""
    for number, line in enumerate(source.split("\n"), start=1):
        begins = not text
        text += f"{line}\n"
        # A long list is not read anew with each of its lines.
        if not begins and not any(end in line for end in _LAST):
            continue
        try:
            tables = tomllib.loads(text)
        except ValueError:
            continue  # it goes on in the next line
        if text.lstrip().startswith("["):
            header = _header(tables)
            yield _Statement(begun, header, None)
        elif tables:
            yield _Statement(begun, header, tables)
        begun, text = number + 1, ""


def _header(tables: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in the header of a table."""
    path = []
    while tables:
        ((name, inner),) = tables.items()
        path.append(name)
        tables = inner if isinstance(inner, dict) else {}
    return tuple(path)


def _lines_of(source: str, known: set[str | None]) -> dict[tuple[str | None, str], int]:
    """On which line each entry begins."""
    lines: dict[tuple[str | None, str], int] = {}
    for statement in _statements(source):
        tables: Mapping[str, Any] = statement.values or {}
        for name in reversed(statement.header):
            tables = {name: tables}
        for at, _ in _entries(tables, known):
            lines.setdefault(at, statement.begun)
    return lines


def _entries(tables: Mapping[str, Any], known: set[str | None]) -> Iterator[tuple[tuple[str | None, str], Any]]:
    for key, value in tables.items():
        if isinstance(value, dict) and key in known:
            for inner, each in value.items():
                yield (key, inner), each
        else:
            yield (None, key), value


def _guess(table: str | None, key: str, value: object, allowed: Mapping[tuple[str | None, str], Option]) -> str:
    """What might be meant by an entry that is no option's."""
    if table is None and isinstance(value, dict):
        close = meant(f"[{key}]", {f"[{at}]" for at, _ in allowed if at})
        inner = [option for option in allowed.values() if option.name in {f"{key}-{each}" for each in value}]
        return close or _placed(inner)
    name = key.replace("_", "-")
    elsewhere = [option for option in allowed.values() if option.table != table]
    return (
        _placed([option for option in elsewhere if option.name in (name, f"{table}-{name}")])
        or _placed([option for option in allowed.values() if option.name == name])
        or meant(key, [within for at, within in allowed if at == table])
        or _placed([option for option in elsewhere if option.key == name])
        or meant(key, [option.in_file for option in elsewhere if option.table])
    )


def _placed(options: Sequence[Option]) -> str:
    """Where the first of *options* stands in a file."""
    if not options:
        return ""
    option = options[0]
    return (
        f"; it belongs into [{option.table}] as {option.key}"
        if option.table
        else f"; it belongs before all tables as {option.name}"
    )


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
