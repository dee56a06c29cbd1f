"""``queueber config``: print the effective options of a server, and the source of each."""

import json
import sys
from collections.abc import Iterable

import click

from queueber.errors import one_line
from queueber.server.config.sources import DEFAULT, OptionValue
from queueber.server.config.spec import Option
from queueber.server.config.twisted_options import Options
from queueber.units import Unit


def _literal(option: Option, value: object) -> str:
    """Return a value of *option* as a TOML literal.  Every unprintable character is escaped."""
    if isinstance(value, bool | float) or (isinstance(value, int) and option.kind.unit is Unit.COUNT):
        return json.dumps(value)
    quoted = json.dumps(option.typed(value), ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in quoted)


def _line(found: OptionValue) -> str:
    option, value = found.option, found.value
    shown = f"[{', '.join(_literal(option, each) for each in value)}]" if option.kind.many else _literal(option, value)
    unset = "# " if value is None or option.command_line_only else ""
    return f"{f'{unset}{option.key} = {shown}':<48} # {one_line(found.origin)}\n"


def as_file(values: Iterable[OptionValue], *, changed: bool = False) -> str:
    """Return a configuration file equivalent to *values*.  With *changed*, omit those with their default."""
    text, table = "", None
    for found in sorted(values, key=lambda each: each.option.table is not None):
        if found.option.name == "config" or (changed and found.source == DEFAULT):
            continue
        if found.option.table != table:
            table = found.option.table
            text += f"\n[{table}]\n"
        text += _line(found)
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
