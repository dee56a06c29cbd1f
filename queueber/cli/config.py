"""``queueber config``: print the effective options of a server, and the source of each."""

import json
import sys
from collections.abc import Iterable

import click
from attrs import frozen

from queueber.errors import one_line
from queueber.server.config.sources import DEFAULT, Setting
from queueber.server.config.twisted_options import Options


@frozen
class ConfigLine:
    """One line of a configuration file."""

    table: str | None
    text: str
    origin: str


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _literal(value: object) -> str:
    """Return *value* as a TOML literal."""
    if isinstance(value, str):
        return f'"{"".join(map(_character, value))}"'
    return json.dumps(value)


def _character(character: str) -> str:
    """Return *character* for a TOML string.  All unprintable characters are escaped."""
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) <= 0xFFFF else f"\\U{ord(character):08x}"  # noqa: PLR2004


def _config_line(setting: Setting) -> ConfigLine:
    option, value = setting.option, setting.value
    if option.many:
        shown = f"[{', '.join(_literal(option.toml_value(each)) for each in value)}]"
    else:
        shown = _literal(option.toml_value(value))
    unset = value is None or option.command_line_only
    return ConfigLine(option.table, f"{'# ' if unset else ''}{option.key} = {shown}", str(setting.origin))


def as_file(settings: Iterable[Setting], *, changed: bool = False) -> str:
    """Return a configuration file equivalent to *settings*.  With *changed*, omit those with their default."""
    shown = [setting for setting in settings if setting.option.name != "config"]
    lines = [_config_line(setting) for setting in shown if not changed or setting.origin != DEFAULT]
    text, table = "", None
    for line in sorted(lines, key=lambda line: line.table is not None):
        if line.table != table:
            table = line.table
            text += f"\n[{table}]\n"
        text += f"{line.text:<48} # {one_line(line.origin)}\n"
    return text


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.option("--changed", is_flag=True, help="Omit options that have their default.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def config(options: tuple[str, ...], changed: bool) -> None:
    """
    Print the effective options of a server as a configuration file, with the source of each.

    OPTIONS are those of `twistd queueber`, such as `--config FILE`; `queueber config --help` lists them.
    """
    service = Options()
    service.parseOptions(options)
    # Written as bytes, because TOML is UTF-8 in every locale.
    click.echo(as_file(service.effective.values(), changed=changed).encode(), nl=False)
    for name, hint in service.unknown_variables.items():
        click.echo(f"queueber: {name} in the environment is not an option{hint}", err=True)
    sys.stdout.flush()
