"""Commands that look into queues: ``queueber queues``, ``peek``, ``dead``, ``get``, ``leases`` and ``settings``."""

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, TypeVar

import click

from queueber.api.control_types import ItemView, LeaseView, Listed, QueueCounts, QueueSummary, SettingsInForce
from queueber.cli import queue_output as output
from queueber.cli.arguments import number_option, option_group, uuid_bytes
from queueber.cli.server_options import CallCommand, QueueCommand, ServerSelection, queue_argument
from queueber.cli.terminal import LoadDisplay
from queueber.cli.watch import show, watch_options
from queueber.client import Client
from queueber.client.control import QueueControl
from queueber.fixed_limits import LISTED_MAX
from queueber.values import ItemState

T = TypeVar("T")

SHOWN_BYTES: Final = 200
"""Bytes of an item's contents that are shown as text."""

COUNT_LOOK_SECONDS: Final = 0.5
"""The time between two looks at the progress of an exact count."""

STATES: Final = {"ready": ItemState.READY, "delayed": ItemState.DELAYED, "dead": ItemState.DEAD}


def label(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, str] | None:
    """
    Return the name and the value of a label given as NAME=VALUE; None stays None.

    Raises:
        click.BadParameter: *value* has no equals sign, or no name.
    """
    if value is None:
        return None
    name, equals, content = value.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{value!r} is not NAME=VALUE.")
    return name, content


def place(_: click.Context, __: click.Parameter, value: str) -> bytes:
    """
    Return the bytes of a place, given in hexadecimal digits.

    Raises:
        click.BadParameter: *value* is something else.
    """
    try:
        return bytes.fromhex(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a place; it must be hexadecimal digits.") from None


async def listed(ask: Callable[[T | None, int], Awaitable[Listed[T]]], limit: int | None) -> tuple[list[T], bool]:
    """
    Return up to *limit* elements, and whether there are more.

    *ask* returns some after one, at most as many as its second argument.
    """
    found: list[T] = []
    more = True
    while more and (limit is None or len(found) < limit):
        wanted = LISTED_MAX if limit is None else min(LISTED_MAX, limit - len(found))
        part = await ask(found[-1] if found else None, wanted)
        found += part.found
        # An empty part could not be continued.
        more = part.more and bool(part.found)
    return found, more


_limit_option = click.option("-n", "--limit", type=click.IntRange(1), help="Most to show; by default all.")


@click.command(cls=CallCommand)
@click.argument("prefix", default="")
@click.option("--label", "wanted", callback=label, metavar="NAME=VALUE", help="Only queues with this label.")
@_limit_option
@watch_options
@click.pass_obj
def queues(
    server: ServerSelection,
    prefix: str,
    wanted: tuple[str, str] | None,
    limit: int | None,
    interval: int | None,
) -> None:
    """
    List the queues with their numbers of items.

    They are sorted by name, and begin with PREFIX if it is given.  A number that is not known exactly is shown by
    its bounds, as in 12-40.
    """

    async def look(client: Client) -> str:
        def ask(last: QueueSummary | None, number: int) -> Awaitable[Listed[QueueSummary]]:
            return client.queues(prefix, label=wanted, after="" if last is None else last.name, limit=number)

        found, more = await listed(ask, limit)
        text = output.queues_text(found) + ("\nthere are more" if more else "")
        return server.rendered({"queues": [output.summary_json(each) for each in found], "more": more}, text)

    show(server, look, interval)


@click.command(cls=QueueCommand)
@queue_argument()
@_limit_option
@watch_options
def leases(server: ServerSelection, limit: int | None, interval: int | None) -> None:
    """
    List the leases on items of QUEUE, and their peers.

    A lease is shown by its handle, for `queueber end-lease`.  The handle is not the lease's id, which `queueber poll`
    prints: it gives no right to the items, and `queueber remove` and the like do not know it.
    """

    async def look(client: Client) -> str:
        control = client.control(server.queue_name)

        def ask(last: LeaseView | None, number: int) -> Awaitable[Listed[LeaseView]]:
            return control.leases(after=b"" if last is None else last.handle, limit=number)

        found, more = await listed(ask, limit)
        if not found and interval is None:
            await server.check_queue(client)
        text = output.leases_text(found) + ("\nthere are more" if more else "")
        return server.rendered({"leases": [output.lease_json(each) for each in found], "more": more}, text)

    show(server, look, interval)


_peek_options = option_group(
    number_option("-n", "--limit", kind=click.IntRange(1), default=10, help="Most items to show."),
    click.option("--after", callback=place, default="", metavar="PLACE", help="Begin after the item at this place."),
    click.option(
        "--bytes",
        "size",
        type=click.IntRange(0),
        help=f"Most bytes of each item's contents, 0 for all; by default {SHOWN_BYTES}, and all with --json.",
    ),
)


@click.command(cls=QueueCommand)
@queue_argument()
@click.option("--state", type=click.Choice(list(STATES)), help="Only these items; by default ready and delayed ones.")
@_peek_options
def peek(server: ServerSelection, state: str | None, **more: Any) -> None:  # noqa: ANN401  (those of `_print_items`)
    """
    Show the first items of QUEUE without leasing them.

    They are in the order in which they become due.
    """
    _print_items(server, None if state is None else STATES[state], **more)


@click.command(cls=QueueCommand)
@queue_argument()
@_peek_options
def dead(server: ServerSelection, **more: Any) -> None:  # noqa: ANN401  (those of `_print_items`)
    """
    Show the dead items of QUEUE, and why they died.

    `queueber redrive` moves them back.
    """
    _print_items(server, ItemState.DEAD, **more)


def _print_items(
    server: ServerSelection,
    state: ItemState | None,
    *,
    limit: int,
    after: bytes,
    size: int | None,
) -> None:
    shown = SHOWN_BYTES if size is None and not server.as_json else size

    async def look(control: QueueControl) -> tuple[list[ItemView], bool]:
        def ask(last: ItemView | None, number: int) -> Awaitable[Listed[ItemView]]:
            begin = after if last is None else last.place
            return control.peek(state, after=begin, limit=number, contents_bytes=shown or None)

        return await listed(ask, limit)

    found, more = server.control(look, is_empty=lambda result: not result[0])
    following = found[-1].place.hex() if more else None
    items = [output.item_json(each) for each in found]
    server.show({"items": items, "after": following}, output.items_text(found))
    if following is not None and not server.as_json:
        click.echo(f"there are more: --after {following}", err=True)


@click.command(cls=CallCommand)
@click.argument("item_id", metavar="ITEM", callback=uuid_bytes)
@click.pass_obj
def get(server: ServerSelection, item_id: bytes) -> None:
    """
    Show ITEM, and why it waits or which worker has it.

    It may be ready, delayed, leased or dead.  The exit status is 1 if there is no such item.
    """
    item = server.control(lambda control: control.get(item_id))
    text = None if item is None else output.item_text(server.queue_name, item)
    problem = f"there is no such item in the queue {server.queue_text}"
    server.show_outcome({"item": None if item is None else output.item_json(item)}, text, problem)


@click.command(cls=QueueCommand)
@queue_argument()
def settings(server: ServerSelection) -> None:
    """
    Print the settings in force for QUEUE.

    They have the names that `queueber configure` takes.
    """
    print_settings(server, server.control(lambda control: control.settings(), needs_queue=True))


def print_settings(server: ServerSelection, found: SettingsInForce, names: Collection[str] | None = None) -> None:
    """Print the settings of a queue; as text only those with these *names*, if there are any."""
    server.show(output.settings_json(found), output.settings_text(found, names))


async def look_at_counts(
    client: Client, server: ServerSelection, *, exact: bool, progress: bool = False, once: bool = True
) -> str:
    """
    Return the counts of the selected queue as text, or as JSON; with *progress*, show that of an exact count.

    Raises:
        click.ClickException: the queue does not exist, and this look is the only one, *once*.
    """
    control = client.control(server.queue_name)
    counts = await (count_with_progress(control) if progress else control.stats(exact=exact))
    if once and not (counts.items or counts.dead or counts.waiting_polls):
        await server.check_queue(client)
    found = {"name": server.queue_name, "stats": output.counts_json(counts)}
    return server.rendered(found, output.counts_text(server.queue_name, counts))


async def count_with_progress(control: QueueControl, clock: Any = None) -> QueueCounts:  # noqa: ANN401
    """
    Count a queue exactly, and show meanwhile how far that is, by *clock* or the reactor.

    The client must be able to make calls concurrently.
    """
    # Imported here, because only a count on a terminal needs a reactor.
    from twisted.internet.defer import ensureDeferred  # noqa: PLC0415
    from twisted.internet.task import LoopingCall  # noqa: PLC0415

    display = LoadDisplay()
    began = False

    async def look() -> None:
        nonlocal began
        now = await control.stats()
        if now.counting and not began:
            began = True
            display.begin("Counting", now.items - now.leased, items=True)
        display.at(now.counting)

    counting = control.stats(exact=True)
    loop = LoopingCall(lambda: ensureDeferred(look()))
    loop.clock = clock or loop.clock
    # What ends the looks ends the count, too, and is reported as its end.
    loop.start(COUNT_LOOK_SECONDS, now=False).addErrback(lambda _: None)
    try:
        return await counting
    finally:
        if loop.running:
            loop.stop()
        display.end()
