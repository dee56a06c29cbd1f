"""
Commands that change queues: ``queueber configure``, ``pause``, ``resume``, ``purge`` and ``delete``.

The last two ask for confirmation.
"""

import re
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

import click
from attrs import fields_dict

from queueber.api.control_types import QueueSettings, SettingsInForce
from queueber.cli import queue_output as output
from queueber.cli.output import camel_case, newer_than_client
from queueber.cli.queue_views import label, print_settings
from queueber.cli.server_options import CallCommand, QueueCommand, ServerSelection, queue_argument
from queueber.cli.terminal import confirm, yes_option
from queueber.client.control import QueueControl
from queueber.units import counted, parse
from queueber.values import ControlOutcome

CHANGEABLE: Final = {name: field.default for name, field in fields_dict(QueueSettings).items() if name != "labels"}
"""The settings that NAME=VALUE can change, with their defaults.  `pause` and `resume` change the last two."""

_YES_AND_NO: Final = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


def setting(text: str) -> tuple[str, int | bool]:
    """
    Return the name and the value of a setting in NAME=VALUE.

    The name may have dashes or be the schema's: ``max-attempts``, ``maxAttempts``.

    Raises:
        click.BadParameter: there is no such setting, or the value is not one for it.
    """
    given, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE.")
    name = _name(given, CHANGEABLE)
    if isinstance(CHANGEABLE[name], bool):
        if value not in _YES_AND_NO:
            raise click.BadParameter(f"{given} is {value!r}; it must be yes or no.")
        return name, _YES_AND_NO[value]
    try:
        return name, parse(value, output.unit_of(name))
    except ValueError as why:
        raise click.BadParameter(f"{given}: {why}.") from None


def _name(given: str, known: Collection[str]) -> str:
    """Return our name of the setting *given*, which must be *known*."""
    name = re.sub(r"([A-Z])", r"_\1", given.strip()).lower().replace("-", "_")
    if name in known:
        return name
    if name == "labels":
        raise click.BadParameter("labels are given by --label NAME=VALUE.")
    names = ", ".join(each.replace("_", "-") for each in known)
    raise click.BadParameter(f"there is no setting {given!r}; settings are {names}.")


def _reset(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(_name(value, (*CHANGEABLE, "labels")) for value in values))


def _settings(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in map(setting, values):
        if name in found:
            raise click.BadParameter(f"{name.replace('_', '-')} is given twice.")
        found[name] = value
    return found


def _labels(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, str]]:
    return [pair for value in values if (pair := label(ctx, parameter, value)) is not None]


@click.command(cls=CallCommand)
@click.argument("changes", metavar="NAME=VALUE...", nargs=-1, callback=_settings)
@click.option(
    "--label",
    "labels",
    multiple=True,
    callback=_labels,
    metavar="NAME=VALUE",
    help="A label; repeatable.  The given labels replace all labels of the queue.",
)
@click.option("--no-labels", is_flag=True, help="Remove all labels.")
@click.option(
    "--reset",
    multiple=True,
    callback=_reset,
    metavar="NAME",
    help="A setting to reset to the server's default; repeatable.",
)
@click.pass_obj
def configure(
    server: ServerSelection,
    changes: dict[str, Any],
    labels: list[tuple[str, str]],
    no_labels: bool,
    reset: list[str],
) -> None:
    """
    Change settings of a queue, and print them.

    Spans and sizes may have units: queueber configure --queue mail max-attempts=5 ttl-ms=7d max-bytes='1 GiB'

    Without a unit they are milliseconds and bytes.  `queueber settings` lists the names.  --json prints all settings.
    """
    if labels and no_labels:
        raise click.UsageError("--label and --no-labels contradict each other.")
    if labels or no_labels:
        changes = {**changes, "labels": labels}
    if not changes and not reset:
        raise click.UsageError("Missing argument 'NAME=VALUE...'.")
    for name in reset:
        if name in changes:
            raise click.UsageError(f"{name.replace('_', '-')} is both changed and reset.")

    async def work(control: QueueControl) -> SettingsInForce:
        await control.configure(reset=reset, **changes)
        return await control.settings()

    print_settings(server, server.control(work), [*changes, *reset])


@click.command(cls=CallCommand)
@queue_argument()
@click.option("--adds", is_flag=True, help="Refuse adds, as overloaded.")
@click.option("--polls", is_flag=True, help="Deliver no items; the default.")
@click.option("--create", is_flag=True, help="Create QUEUE, paused, if it does not exist.")
def pause(server: ServerSelection, adds: bool, polls: bool, create: bool) -> None:
    """
    Deliver no items of QUEUE, or refuse adds.

    That lasts until `queueber resume`, also across restarts of the server.  Leased items stay with their workers.  A
    queue that does not exist is an error unless --create is given.
    """
    polls = polls or not adds
    _pause(server, lambda control: control.pause(adds=adds, polls=polls), needs_queue=not create)


@click.command(cls=CallCommand)
@queue_argument()
@click.option("--adds", is_flag=True, help="Take adds again.")
@click.option("--polls", is_flag=True, help="Deliver items again.")
def resume(server: ServerSelection, adds: bool, polls: bool) -> None:
    """
    End the pause of QUEUE.

    With one of the options, only the pause of adds, or of polls, ends.
    """
    both = adds == polls
    _pause(server, lambda control: control.resume(adds=adds or both, polls=polls or both))


def _pause(
    server: ServerSelection, change: Callable[[QueueControl], Awaitable[None]], *, needs_queue: bool = True
) -> None:
    async def work(control: QueueControl) -> QueueSettings:
        await change(control)
        return (await control.settings()).settings

    found = server.control(work, needs_queue=needs_queue)
    adds, polls = ("paused" if paused else "not paused" for paused in (found.adds_paused, found.polls_paused))
    text = f"queue {server.queue_text}: adds {adds}, polls {polls}"
    server.show({"addsPaused": found.adds_paused, "pollsPaused": found.polls_paused}, text)


@click.command(cls=QueueCommand)
@queue_argument(required=True)
@click.option("--dead", is_flag=True, help="Remove the dead items, and no others.")
@yes_option
def purge(server: ServerSelection, dead: bool, yes: bool) -> None:
    """
    Remove all items of QUEUE, for ever.

    These are the ready and delayed ones, or with --dead the dead ones.  Leased items stay with their workers.
    """
    which = "dead items" if dead else "ready and delayed items"
    confirm(f"Remove all {which} of the queue {server.queue_text}, for ever?", yes=yes)
    removed = server.control(lambda control: control.purge(dead=dead), is_empty=lambda removed: not removed)
    server.show({"removed": removed}, f"removed {counted(removed, 'item')}")


@click.command(cls=QueueCommand)
@queue_argument(required=True)
@click.option("--force", is_flag=True, help="Delete it with all its items, including leased and dead ones.")
@yes_option
def delete(server: ServerSelection, force: bool, yes: bool) -> None:
    """
    Delete QUEUE with its settings, for ever.

    Without --force the exit status is 1 if it has items, dead ones included, or waiting polls.
    """
    what = "its settings and all its items" if force else "its settings"
    confirm(f"Delete the queue {server.queue_text} with {what}, for ever?", yes=yes)
    outcome = server.control(lambda control: control.delete(force=force))
    reasons = {
        ControlOutcome.NOT_FOUND: f"there is no queue '{server.queue_text}'",
        ControlOutcome.NOT_EMPTY: "it has items or waiting polls; --force deletes it with them",
    }
    why = reasons.get(outcome) or newer_than_client(outcome)
    done = "deleted" if outcome is ControlOutcome.DONE else None
    if outcome is ControlOutcome.NOT_FOUND and server.if_exists:
        done = why
    server.show_outcome({"outcome": camel_case(outcome.name)}, done, f"not deleted: {why}")
