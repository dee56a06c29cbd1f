"""
Commands that change items: ``queueber cancel``, ``kick``, ``reschedule``, ``redrive`` and ``end-lease``.

The first asks for confirmation.
"""

import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Final

import click

from queueber.api.control_types import Redriven
from queueber.cli.arguments import seconds_option, uuid_bytes
from queueber.cli.output import camel_case, moment, newer_than_client
from queueber.cli.server_options import CallCommand, QueueCommand, ServerSelection, queue_argument
from queueber.cli.streams import EXIT_ERROR
from queueber.cli.terminal import LoadDisplay, confirm, yes_option
from queueber.client.control import QueueControl
from queueber.errors import InvalidRequest, one_line
from queueber.fixed_limits import LISTED_MAX
from queueber.units import MS_PER_SECOND, counted
from queueber.values import ControlOutcome, DeathReason, id_text

_REASONS: Final = {reason.name.lower(): reason for reason in DeathReason if reason is not DeathReason.NONE}


def _ids(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[bytes]:
    return [uuid_bytes(ctx, parameter, value) for value in values]


_items = click.argument("ids", metavar="ITEM...", nargs=-1, required=True, callback=_ids)


@click.command(cls=CallCommand)
@_items
@yes_option
@click.pass_obj
def cancel(server: ServerSelection, ids: list[bytes], yes: bool) -> None:
    """
    Remove each ITEM from the queue, for ever.

    It may be ready, delayed or dead.  A leased item is left to its worker.  The exit status is 1 if an item was not
    removed.
    """
    what = f"the item {id_text(ids[0])}" if len(ids) == 1 else counted(len(ids), "item")
    confirm(f"Remove {what} from the queue {server.queue_text}, for ever?", yes=yes)
    _change(server, "cancelled", ids, lambda control, each: control.cancel(each), unknown="there is no such item")


@click.command(cls=CallCommand)
@_items
@click.pass_obj
def kick(server: ServerSelection, ids: list[bytes]) -> None:
    """Make each delayed ITEM ready.  The exit status is 1 if one was not found, is leased or is dead."""
    _change(server, "kicked", ids, lambda control, each: control.kick(each))


def _point(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """
    Return milliseconds since the epoch from a date and time in ISO 8601, of this machine's zone unless it has one.

    Raises:
        click.BadParameter: *value* is something else, or before 1970.
    """
    if value is None:
        return None
    try:
        found = round(datetime.fromisoformat(value).timestamp() * MS_PER_SECOND)
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(f"{value!r} is not a date and time, as in 2026-12-01T08:00+00:00.") from None
    if found < 0:
        raise click.BadParameter(f"{value} is before 1970.")
    return found


@click.command(cls=CallCommand)
@_items
@click.option("--at", callback=_point, metavar="TIME", help="When, as in 2026-12-01T08:00 or 2026-12-01T08:00+00:00.")
@seconds_option("--in", "delay", help="After this time, by this machine's clock.")
@click.pass_obj
def reschedule(server: ServerSelection, ids: list[bytes], at: int | None, delay: int | None) -> None:
    """
    Make each ITEM due at another time.  A time that has passed means now.

    The exit status is 1 if an item was not found, is leased or is dead, or would expire before that time.
    """
    if (at is None) == (delay is None):
        raise click.UsageError("Give one of --at and --in.")
    due = at if at is not None else int(datetime.now(UTC).timestamp() * MS_PER_SECOND) + (delay or 0)
    _change(server, f"rescheduled to {moment(due)}", ids, lambda control, each: control.reschedule(each, due))


def _change(
    server: ServerSelection,
    done: str,
    ids: list[bytes],
    change: Callable[[QueueControl, bytes], Awaitable[ControlOutcome]],
    *,
    unknown: str = "there is no such item, or it is dead",
) -> None:
    """Change each item, and print its outcome as soon as it is known.  The exit status is 1 if one was not changed."""
    outcomes: list[ControlOutcome | InvalidRequest] = []
    reasons = {ControlOutcome.NOT_FOUND: unknown, ControlOutcome.LEASED: "it is leased, and its worker decides"}

    def print_outcome(item_id: bytes, outcome: ControlOutcome | InvalidRequest) -> None:
        if outcome is ControlOutcome.DONE:
            click.echo(f"item {id_text(item_id)} {done}")
        else:
            if isinstance(outcome, InvalidRequest):
                why = one_line(str(outcome))
            else:
                why = reasons.get(outcome) or newer_than_client(outcome)
            click.echo(f"queueber: item {id_text(item_id)} not {done}: {why}", err=True)

    async def work(control: QueueControl) -> None:
        for each in ids:
            try:
                outcomes.append(await change(control, each))
            except InvalidRequest as why:
                # The server refuses this item, and may accept the next.
                outcomes.append(why)
            if not server.as_json:
                print_outcome(each, outcomes[-1])

    server.control(work)
    if server.as_json:
        found = [{"id": id_text(each), **_fields(outcome)} for each, outcome in zip(ids, outcomes, strict=True)]
        click.echo(json.dumps({"outcomes": found}))
    if any(outcome is not ControlOutcome.DONE for outcome in outcomes):
        sys.exit(EXIT_ERROR)


def _fields(outcome: ControlOutcome | InvalidRequest) -> dict[str, str]:
    """Return the fields of an outcome in JSON."""
    if isinstance(outcome, InvalidRequest):
        return {"outcome": "failed", "error": str(outcome)}
    return {"outcome": camel_case(outcome.name)}


@click.command(cls=CallCommand)
@click.argument("lease", metavar="HANDLE", callback=uuid_bytes)
@click.pass_obj
def end_lease(server: ServerSelection, lease: bytes) -> None:
    """
    End the lease with this HANDLE now, as if it had expired.

    Its items are redelivered, and a loss is counted.  `queueber leases` and `queueber get` print handles; the lease's
    id, which the worker has, is accepted too.  The exit status is 1 if there is no such lease.
    """
    ended = server.control(lambda control: control.end_lease(lease))
    problem = f"not ended: there is no such lease in the queue {server.queue_text}"
    server.show_outcome({"ended": ended}, "ended" if ended else None, problem)


@click.command(cls=QueueCommand)
@queue_argument()
@click.option("--item", "ids", multiple=True, callback=_ids, metavar="ITEM", help="Only this item; repeatable.")
@click.option("--reason", type=click.Choice(list(_REASONS)), help="Only items that died of this.")
@click.option("--to", default="", metavar="NAME", help="The queue to move them to; by default their own.")
@click.option("-n", "--limit", type=click.IntRange(1), help="Most items to move; by default all.")
def redrive(server: ServerSelection, ids: list[bytes], reason: str | None, to: str, limit: int | None) -> None:
    """
    Move the dead items of QUEUE back.

    They are delivered again, and their attempts are counted from 1.  They are moved in batches, each all or none.  If a
    batch fails, those before it stay moved.  Items that die meanwhile are left.
    """
    why = DeathReason.NONE if reason is None else _REASONS[reason]
    display = LoadDisplay(quiet=server.as_json)
    moved = 0

    async def work(control: QueueControl) -> None:
        nonlocal moved
        # Items that die again while this runs would be moved for ever.
        number = len(ids) or (await control.stats()).dead
        number = number if limit is None else min(number, limit)
        for part in _parts(ids):
            more = True
            while more and moved < number:
                wanted = min(LISTED_MAX, number - moved)
                step: Redriven = await control.redrive(part, reason=why, limit=wanted, to=to)
                if not moved and step.more:
                    display.begin("Moving", number, items=True)
                moved += step.moved
                display.at(moved)
                more = step.more and step.moved > 0

    ended = False
    try:
        server.control(work, is_empty=lambda _: not moved)
        ended = True
    finally:
        display.end()
        if not ended and moved:
            click.echo(f"queueber: {counted(moved, 'item')} had been moved", err=True)
    server.show({"moved": moved}, f"moved {counted(moved, 'item')}")


def _parts(ids: list[bytes]) -> Iterator[list[bytes]]:
    """Yield *ids* in lists that one call can take; a single empty list, which means all items, if there are none."""
    for begin in range(0, max(1, len(ids)), LISTED_MAX):
        yield ids[begin : begin + LISTED_MAX]
