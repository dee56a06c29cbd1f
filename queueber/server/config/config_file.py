"""Read the configuration file: TOML whose keys are the names of the options."""

import codecs
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field

from queueber.server.config.spec import Option, boolean, suggest, text_of
from queueber.units import MIB

FILE_BYTES_MAX = MIB
"""Far more than all options need.  A device or a log that is named by mistake is not read to its end."""

_POSITION = re.compile(r" \(at line (?P<line>\d+), column (?P<column>\d+)\)\Z")


class ConfigFileError(ValueError):
    """A configuration file that cannot be read, or is not TOML.  The text gives the line and the reason."""


@define
class ConfigFile:
    """The contents of a configuration file."""

    texts: dict[str, tuple[str, ...]] = field(factory=dict)
    """Each option's values, as they would be typed on the command line."""

    complaints: list[str] = field(factory=list)
    """A line for each mistake."""

    invalid: set[str] = field(factory=set)
    """The names of options with a value of a type that no option has."""


def read_config_file(path: Path, options: Sequence[Option]) -> ConfigFile:
    """
    Return the values of *options* in the file at *path*.

    Raises:
        ConfigFileError: the file cannot be read, or is not UTF-8, or not TOML.
    """
    by_key = {(option.table, option.key): option for option in options}
    file = ConfigFile()
    for table, key, value in _entries(_parse(_read(path)), {option.table for option in options}):
        option = by_key.get((table, key))
        if option is None:
            name = f"[{table}] {key}" if table else f"[{key}]" if isinstance(value, dict) else key
            file.complaints.append(f"{name} is not an option{_suggestion(table, key, value, options)}")
        elif option.name == "config":
            file.complaints.append("config names this file and cannot stand in it")
        elif option.command_line_only:
            file.complaints.append(f"{option.name} is accepted on the command line only")
        else:
            try:
                file.texts[option.name] = _texts(option, value)
            except ValueError as why:
                file.complaints.append(f"{option.in_file} {why}")
                file.invalid.add(option.name)
    return file


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as why:
        raise ConfigFileError(why.strerror or str(why)) from None
    if len(content) > FILE_BYTES_MAX:
        raise ConfigFileError(f"has more than {FILE_BYTES_MAX:,} bytes, which no configuration has")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigFileError("is UTF-16; it must be UTF-8")
    try:
        # Editors on Windows write a byte order mark at the beginning.
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as why:
        line = content.count(b"\n", 0, why.start) + 1
        raise ConfigFileError(f"line {line}: byte {content[why.start]:#04x} is not UTF-8") from None


def _parse(source: str) -> dict[str, Any]:
    try:
        # With a final newline, so that tomllib gives the position of a mistake in the last line too.
        return tomllib.loads(f"{source}\n")
    except tomllib.TOMLDecodeError as why:
        reason = str(why)
        if position := _POSITION.search(reason):
            # tomllib does not name the key: the text of the line does.
            text = source.split("\n")[int(position["line"]) - 1].strip()
            reason = f"line {position['line']}, column {position['column']}: {reason[: position.start()]}: {text:.80}"
        raise ConfigFileError(reason) from None
    except (ValueError, RecursionError):
        raise ConfigFileError("has a number that is too long, or lists that are nested too deeply") from None


def _entries(root: Mapping[str, Any], tables: set[str | None]) -> Iterator[tuple[str | None, str, Any]]:
    """Yield table, key and value of each entry.  A table that is not one of *tables* is a single entry."""
    for key, value in root.items():
        if isinstance(value, dict) and key in tables:
            yield from ((key, inner, each) for inner, each in value.items())
        else:
            yield None, key, value


def _suggestion(table: str | None, key: str, value: object, options: Sequence[Option]) -> str:
    """Return a question about the option that an unknown entry probably stands for; empty if none is similar."""
    name = key.replace("_", "-")
    names = {f"{name}-{each}" for each in value} if isinstance(value, dict) else {name, f"{table}-{name}"}
    found = [option for option in options if option.name in names]
    found += [option for option in options if option.key == name]
    in_table = table is not None or isinstance(value, dict)
    if found:
        return f"; did you mean {found[0].in_file}{', before all tables' if in_table and not found[0].table else ''}?"
    if table is None and in_table:
        return suggest(key, {option.table: f"[{option.table}]" for option in options if option.table})
    return suggest(key, {option.key: option.in_file for option in options if option.table == table}) or suggest(
        key, {option.in_file: option.in_file for option in options if option.table and option.table != table}
    )


def _texts(option: Option, value: object) -> tuple[str, ...]:
    """Return a value of the file as it would be typed on the command line."""
    if isinstance(value, list) and option.many:
        return tuple(text for each in value for text in _texts(option, each))
    if isinstance(value, bool) and option.parse is not boolean:
        raise ValueError(f"must be a text or a number, not {str(value).lower()}")
    if not isinstance(value, str | int | float):
        raise ValueError(  # noqa: TRY004  (the type comes from a user's file)
            f"must be a text or a number, not {type(value).__name__}"
        )
    return (text_of(value),)
