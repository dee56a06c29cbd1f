"""Read the configuration file: TOML whose keys are the names of the options."""

import codecs
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from queueber.server.config.settings import CONFIG, OPTIONS, similar_option
from queueber.units import MIB

FILE_BYTES_MAX = MIB
"""Far more than all options need.  A device or a log that is named by mistake is not read to its end."""


class ConfigFileError(ValueError):
    """A configuration file that cannot be read, or is not TOML.  The text gives the reason, and the place if known."""


def read_config_file(path: Path) -> tuple[dict[str, list[object]], list[str]]:
    """
    Return the values of each option in the file at *path*, by its name, and a complaint for each other entry.

    Raises:
        ConfigFileError: the file cannot be read, or is not UTF-8, or not TOML.
    """
    by_key = {(option.table, option.key): option for option in OPTIONS}
    values: dict[str, list[object]] = {}
    complaints = []
    for table, key, value in _entries(_parse(_read(path))):
        option = by_key.get((table, key))
        if option is None:
            name = f"[{table}] {key}" if table else key
            complaints.append(f"{name} is not an option{_suggestion(table, key)}")
        elif option is CONFIG:
            complaints.append("config names this file and is not an option of it")
        elif option.command_line_only:
            complaints.append(f"{option.name} is accepted on the command line only")
        else:
            values[option.name] = value if option.many and isinstance(value, list) else [value]
    return values, complaints


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
        raise ConfigFileError(str(why)) from None
    except (ValueError, RecursionError):
        raise ConfigFileError("has a number that is too long, or lists that are nested too deeply") from None


def _entries(root: Mapping[str, Any]) -> Iterator[tuple[str | None, str, Any]]:
    """Yield table, key and value of each entry."""
    for key, value in root.items():
        if isinstance(value, dict):
            yield from ((key, inner, each) for inner, each in value.items())
        else:
            yield None, key, value


def _suggestion(table: str | None, key: str) -> str:
    """Return a question about the option that an unknown entry probably stands for; empty if none is similar."""
    option = similar_option(f"{table}-{key}", key) if table else similar_option(key)
    if option is None:
        return ""
    return f"; did you mean {option.in_file}{', before all tables' if table and not option.table else ''}?"
