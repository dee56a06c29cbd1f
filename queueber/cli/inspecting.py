"""``queueber inspect``: what is in a data directory, whether a server runs on it or not."""

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from queueber.cli.attendance import data_dir_option, moment, unreadable_ends_with_74
from queueber.cli.output import bytes_of, printable, uuid
from queueber.errors import InvalidRequest
from queueber.store import inspect as inspect_directory
from queueber.store.inspection import Inspection, ItemView
from queueber.units import MS_PER_SECOND, WallMs


@click.command()
@data_dir_option
@click.option("--queue", metavar="NAME", help="Show the first items of this queue.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="So many of them.")
@click.option("--contents", is_flag=True, help="And what is in them.")
def inspect(data_dir: Path, queue: str | None, limit: int, contents: bool) -> None:
    """
    Show what a data directory holds, without writing to it.

    Beside a running server it shows one moment of it.
    """
    now = WallMs(int(datetime.now(UTC).timestamp() * MS_PER_SECOND))
    with unreadable_ends_with_74():
        try:
            found = inspect_directory(data_dir, now, queue=queue, limit=limit)
        except InvalidRequest as why:
            raise click.ClickException(str(why)) from None
    if queue is None:
        _tell(data_dir, found)
    for item in found.items:
        click.echo(_line(item, contents=contents))


def _tell(path: Path, found: Inspection) -> None:
    state = _state(found)
    version = "no known format" if found.format is None else f"format {found.format.version}"
    click.echo(f"{path}: {state}; {version}; {bytes_of(found.disk_bytes)} of files")
    last = None if found.mark is None else found.mark.queue_time
    noted = (
        f"on disk for certain up to {found.noted:,}"
        if found.noted is not None
        else "how many are on disk is noted nowhere"
    )
    ended = ", where the server ended itself for a failed write" if found.failed else ""
    click.echo(f"last commit {moment(last)}; writes up to {found.reached:,}, {noted}{ended}")
    for queue in found.queues:
        floor = queue.record.floor
        click.echo(
            f"queue {json.dumps(queue.record.name, ensure_ascii=False)}: {queue.items:,} items, {queue.ready:,} ready,"
            f" {queue.delayed:,} delayed, {queue.leased:,} under {queue.leases:,} leases; {queue.record.added:,} added"
            f" and {queue.record.removed:,} removed; floor {floor.due}/{floor.id.hex()}"
        )


def _state(found: Inspection) -> str:
    if found.held:
        return "a server runs on it"
    if found.clean:
        return "stopped in order"
    return "a backup, on which no server has run" if found.fresh else "its server ended without closing it"


def _line(view: ItemView, *, contents: bool) -> str:
    item = view.item
    shown = f": {printable(item.contents)}" if contents else ""
    return (
        f"item {uuid(item.key.id)} {view.state}, due {moment(item.key.due)}, added {moment(item.added_at)},"
        f" leases that ended {item.attempts}, {len(item.contents):,} bytes{shown}"
    )
