"""``queueber config``: what a server started here with these options would run with, and why."""

import json
import sys

import click
from attrs import frozen

from queueber.server.configuration import DEFAULT, Setting
from queueber.server.options import Options


@frozen
class Line:
    """One line of a configuration file."""

    table: str | None
    text: str
    origin: str


def _literal(value: object) -> str:
    """*value* as TOML has it, which is JSON's way for these."""
    return json.dumps(value, ensure_ascii=False)


def _line(setting: Setting) -> Line:
    option, value = setting.option, setting.value
    if option.many:
        shown = f"[{', '.join(_literal(option.written(each)) for each in value)}]"
    else:
        shown = _literal(option.written(value))
    unset = value is None or option.command_line_only
    origin = f"{setting.origin}: {setting.note}" if setting.note else setting.origin
    return Line(option.table, f"{'# ' if unset else ''}{option.key} = {shown}", origin)


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.option("--changed", is_flag=True, help="Leave out what has its default.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def config(options: tuple[str, ...], changed: bool) -> None:
    """
    Print the options a server would run with, as a configuration file, each with where it came from.

    OPTIONS are those of `twistd queueber`, `--config FILE` above all; `queueber config --help` lists them.
    """
    service = Options()
    service.parseOptions(options)
    settings = [setting for setting in service.effective.values() if setting.option.name != "config"]
    lines = [_line(setting) for setting in settings if not changed or setting.origin != DEFAULT]
    table = None
    for line in sorted(lines, key=lambda line: line.table is not None):
        if line.table != table:
            table = line.table
            click.echo(f"\n[{table}]")
        click.echo(f"{line.text:<48} # {line.origin}")
    for name, hint in service.unknown_variables.items():
        click.echo(f"queueber: {name} in the environment is no option{hint}", err=True)
    sys.stdout.flush()
