"""``queueber config``: print the effective options of a server, and the source of each."""

import json
import sys

import click

from queueber.errors import one_line
from queueber.server.config.settings import CONFIG, OPTIONS
from queueber.server.config.sources import DEFAULT, Resolved
from queueber.server.config.spec import Option
from queueber.server.config.twisted_options import Options
from queueber.units import Unit


def _literal(option: Option, value: object) -> str:
    """Return a value of *option* as a TOML literal.  Every unprintable character is escaped."""
    if isinstance(value, bool | float) or (isinstance(value, int) and option.unit is Unit.COUNT):
        return json.dumps(value)
    quoted = json.dumps(option.typed(value), ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in quoted)


def as_file(found: Resolved, *, changed: bool = False) -> str:
    """Return a configuration file equivalent to *found*.  With *changed*, omit options that have their default."""
    text, table = "", None
    for option in sorted(OPTIONS, key=lambda each: each.table is not None):
        value, source = found.values[option.name], found.sources[option.name]
        if option is CONFIG or (changed and source == DEFAULT):
            continue
        if option.table != table:
            table = option.table
            text += f"\n[{table}]\n"
        shown = f"[{', '.join(_literal(option, each) for each in value)}]" if option.many else _literal(option, value)
        unset = "# " if value is None or option.command_line_only else ""
        text += f"{f'{unset}{option.key} = {shown}':<48} # {one_line(source.origin(option))}\n"
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
    click.echo(as_file(service.effective, changed=changed).encode(), nl=False)
    for name, hint in service.effective.unknown_variables.items():
        click.echo(f"queueber: {name} in the environment is not an option{hint}", err=True)
    sys.stdout.flush()
