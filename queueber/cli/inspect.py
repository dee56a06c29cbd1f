"""``queueber inspect``: show the contents of a data directory, with or without a running server."""

import json
from pathlib import Path
from typing import Any

import click

from queueber.broker.model import TimeMark
from queueber.cli.data_directory import directory_argument, exit_74_if_unreadable
from queueber.cli.output import bytes_of, encoded, moment, printable
from queueber.cli.server_options import json_option
from queueber.errors import InvalidRequest, one_line
from queueber.server.core.clock import QueueClock
from queueber.store import inspect as inspect_directory
from queueber.store.maintenance.inspection import InspectedItem, Inspection
from queueber.units import WallMs, counted
from queueber.values import id_text


@click.command()
@directory_argument
@click.option("--queue", metavar="NAME", help="Show the first items of this queue.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Most items to show.")
@click.option("--contents", is_flag=True, help="Show the items' contents too.")
@json_option
def inspect(data_dir: Path, queue: str | None, limit: int, contents: bool, as_json: bool) -> None:
    """
    Show the contents of the data directory DIR, without writing to it.

    With a running server it shows a snapshot.
    """
    with exit_74_if_unreadable():
        try:
            found = inspect_directory(data_dir, queue_time, queue=queue, limit=limit)
        except InvalidRequest as why:
            raise click.ClickException(str(why)) from None
    if as_json:
        shown: dict[str, Any] = {} if queue is not None else _summary(data_dir, found)
        if queue is not None:
            shown["items"] = [_row(item, contents=contents) for item in found.items]
        click.echo(json.dumps(shown))
        return
    if queue is None:
        _print_results(data_dir, found)
    for item in found.items:
        click.echo(_line(item, contents=contents))


def queue_time(mark: TimeMark | None) -> WallMs:
    """Queue time as a server has it that goes on from *mark*, whether one runs or not."""
    clock = QueueClock()
    clock.begin(mark)
    return clock.now()


def _print_results(path: Path, found: Inspection) -> None:
    state = _state(found)
    version = "no known format" if found.format is None else f"format {found.format.version}"
    click.echo(f"{one_line(str(path))}: {state}; {version}; {bytes_of(found.disk_bytes)} of files")
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
        leases = counted(queue.leases, "lease")
        click.echo(
            f"{'dead items of ' if queue.dead else ''}queue {json.dumps(queue.record.name, ensure_ascii=False)}:"
            f" {counted(queue.items, 'item')}, {bytes_of(queue.record.bytes)},"
            f" {queue.ready:,} ready, {queue.delayed:,} delayed, {queue.leased:,} under {leases};"
            f" {queue.record.added:,} added and {queue.record.removed:,} removed; floor {floor.due}/{floor.id.hex()}"
        )
        if queue.settings:
            click.echo(f"  configured: {json.dumps(queue.settings, ensure_ascii=False)}")
    if found.retired:
        purged = counted(found.retired, "queue that was", "queues that were")
        click.echo(f"the items of {purged} purged or deleted remain")


def _summary(path: Path, found: Inspection) -> dict[str, Any]:
    """Return the directory and its queues for JSON: times in ms of queue time, sizes in bytes."""
    return {
        "path": str(path),
        "state": _state(found),
        "format": None if found.format is None else found.format.version,
        "disk_bytes": found.disk_bytes,
        "last_commit_ms": None if found.mark is None else found.mark.queue_time,
        "writes": found.reached,
        "writes_noted": found.noted,
        "failed": found.failed,
        "queues": [
            {
                "name": queue.record.name,
                "dead": queue.dead,
                "items": queue.items,
                "ready": queue.ready,
                "delayed": queue.delayed,
                "leased": queue.leased,
                "leases": queue.leases,
                "added": queue.record.added,
                "removed": queue.record.removed,
                "bytes": queue.record.bytes,
                "settings": queue.settings,
            }
            for queue in found.queues
        ],
        "retired_queues": found.retired,
    }


def _row(view: InspectedItem, *, contents: bool) -> dict[str, Any]:
    item = view.item
    return {
        "id": id_text(item.key.id),
        "state": view.state,
        "due_ms": item.key.due,
        "added_at_ms": item.added_at,
        "attempts": item.attempts,
        "bytes": len(item.contents),
        **(encoded(item.contents) if contents else {}),
    }


def _state(found: Inspection) -> str:
    if found.locked:
        return "a server runs on it"
    if found.clean_shutdown:
        return "stopped in order"
    return "a backup, on which no server has run" if found.never_served else "its server ended without closing it"


def _line(view: InspectedItem, *, contents: bool) -> str:
    item = view.item
    shown = f": {printable(item.contents)}" if contents else ""
    return (
        f"item {id_text(item.key.id)} {view.state}, due {moment(item.key.due)}, added {moment(item.added_at)},"
        f" leases that ended {item.attempts}, {counted(len(item.contents), 'byte')}{shown}"
    )
