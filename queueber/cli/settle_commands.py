"""``queueber fail``, ``defer`` and ``reject``: settle leased items as failed, deferred or rejected."""

from typing import Final
from uuid import UUID

import click

from queueber.cli.arguments import seconds_option, uuid_bytes
from queueber.cli.output import camel_case, moment, newer_than_client
from queueber.cli.server_options import CallCommand, ServerSelection
from queueber.cli.terminal import confirm, yes_option
from queueber.client import Action, Outcome, Settled, Settlement
from queueber.fixed_limits import ERROR_BYTES_MAX
from queueber.units import SpanMs
from queueber.values import id_text

ALL: Final = "all"

_DONE: Final = {Action.FAIL: "failed", Action.DEFER: "deferred", Action.REJECT: "rejected"}

_NOT_DONE: Final = {
    Outcome.LEASE_LOST: "the lease has ended, or is of another queue",
    Outcome.NOT_FOUND: "the lease does not hold this item",
}


def _item_or_all(_: click.Context, __: click.Parameter, value: str) -> bytes:
    """
    Return the 16 bytes of an item's id, or none for all items of the lease.

    Raises:
        click.BadParameter: *value* is neither an id nor `ALL`.
    """
    if value == ALL:
        return b""
    try:
        return UUID(value).bytes
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither {ALL!r}, a UUID nor 32 hexadecimal digits.") from None


_item = click.argument("item_id", metavar="ITEM", callback=_item_or_all)
_lease = click.argument("lease", callback=uuid_bytes)


def _error_text(_: click.Context, __: click.Parameter, value: str) -> str:
    """
    Return the text of an error, with replacement characters for what is not UTF-8.

    The end of a long text is kept, because the end of a program's output usually has the reason.
    """
    text = value.encode(errors="surrogateescape").decode(errors="replace").encode()
    return text[-ERROR_BYTES_MAX:].decode(errors="ignore")


_error = click.option(
    "--error",
    default="",
    callback=_error_text,
    metavar="TEXT",
    help="The reason, kept with the item; of more than 4 KiB, the end.",
)


@click.command(cls=CallCommand)
@_item
@_lease
@_error
@seconds_option("--delay", help="Time until it is due again; by default the queue's backoff.")
@click.pass_obj
def fail(server: ServerSelection, item_id: bytes, lease: bytes, error: str, delay: int | None) -> None:
    """
    Return ITEM, held under LEASE, as failed.

    ITEM may be the word all, for all items of the lease.  An item whose last attempt has failed moves to the dead items
    of its queue; others are retried.  The exit status is 1 if LEASE has ended or does not hold ITEM.
    """
    _settle(server, Settlement(lease, item_id, Action.FAIL, _span(delay), error))


@click.command(cls=CallCommand)
@_item
@_lease
@seconds_option("--delay", help="Time until it is due again; by default it returns to its old place.")
@click.pass_obj
def defer(server: ServerSelection, item_id: bytes, lease: bytes, delay: int | None) -> None:
    """
    Return ITEM, held under LEASE, and count no attempt.

    ITEM may be the word all, for all items of the lease.  The exit status is 1 if LEASE has ended or does not hold
    ITEM.
    """
    _settle(server, Settlement(lease, item_id, Action.DEFER, _span(delay)))


@click.command(cls=CallCommand)
@_item
@_lease
@_error
@yes_option
@click.pass_obj
def reject(server: ServerSelection, item_id: bytes, lease: bytes, error: str, yes: bool) -> None:
    """
    Move ITEM, held under LEASE, to the dead items.

    ITEM may be the word all, for all items of the lease; that needs a confirmation.  The exit status is 1 if LEASE has
    ended or does not hold ITEM.
    """
    if not item_id:
        confirm(f"Move all items under the lease {id_text(lease)} to the dead items?", yes=yes)
    _settle(server, Settlement(lease, item_id, Action.REJECT, error=error))


def _span(ms: int | None) -> SpanMs | None:
    return None if ms is None else SpanMs(ms)


def _settle(server: ServerSelection, entry: Settlement) -> None:
    """Settle *entry*, and print its outcome.  If nothing was changed, the exit status is 1."""
    (settled,) = server.do(lambda queue: queue.settle(entry, timeout_ms=server.timeout_ms)).settled
    found = {"outcome": camel_case(settled.outcome.name), "died": settled.died, "dueMs": settled.due}
    done = _DONE[entry.action]
    text = done + _consequence(entry, settled) if settled.outcome is Outcome.DONE else None
    why = _NOT_DONE.get(settled.outcome) or newer_than_client(settled.outcome)
    server.show_outcome(found, text, f"not {done}: {why}")


def _consequence(entry: Settlement, settled: Settled) -> str:
    """Return where the item of *entry* is now, or nothing for several items, which may differ."""
    if not entry.id:
        return ""
    if settled.died:
        last = "that was its last attempt, and " if entry.action is Action.FAIL else ""
        return f": {last}it is among the dead items"
    return f": due again at {moment(settled.due, 'milliseconds')}"
