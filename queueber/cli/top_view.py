"""
The picture that ``queueber top`` shows of a `Top`, as lines of styled text for a terminal of any size.

Names, errors and contents are escaped, so that none can control the terminal, and none is read as markup.
"""

from collections.abc import Callable, Sequence
from typing import Final

from attrs import asdict
from rich.text import Text

from queueber.api.control_types import ItemView, LeaseView
from queueber.cli.queue_output import bounds, contents_text, notes, setting_value, text_of
from queueber.cli.top_state import Row, Screen, Top, Worker, workers_of
from queueber.cli.top_text import Cell, Column, facts, grid, rate, seconds_text, since, size
from queueber.units import counted
from queueber.values import ItemState, id_text

ROOMY: Final = 10
"""The least height at which a blank line is spent."""

KEYS: Final = {
    Screen.QUEUES: "Enter open  s sort  r reverse  / filter  p pause  w workers  h help  q quit",
    Screen.QUEUE: "Esc back  d dead items  p pause polls  a pause adds  w workers  h help  q quit",
    Screen.WORKERS: "Esc back  h help  q quit",
}
"""The line at the bottom."""

HELP: Final = """\
Up Down PgUp PgDn Home End   move, also k j g G
Enter                        open the queue: settings, next items, leases
Esc                          back to the list; in the list: drop the filter
s or right, left             sort by the next column, by the one before
r                            reverse the order
/                            type a part of a name: only such queues
p                            pause or resume the polls of the queue
a                            pause or resume its adds
d                            in a queue: dead items, or the next ones
w                            the workers that hold items
Space                        ask the server now
q                            quit

12-40   a number that the server does not know exactly: its bounds
in/s    items added in a second, over the last seconds
out/s   items that left: removed, dead, expired, cancelled or purged
oldest  time since the first waiting item became due
polls   polls that wait for an item: idle workers"""

_CELLS: Final[dict[str, Callable[[Row, int], Cell]]] = {
    "ready": lambda row, _: Cell(bounds(row.counts.ready, row.counts.ready_max)),
    "leased": lambda row, _: Cell(f"{row.counts.leased:,}"),
    "in/s": lambda row, _: Cell(rate(row.added), "green" if row.added else ""),
    "out/s": lambda row, _: Cell(rate(row.gone), "green" if row.gone else ""),
    "dead": lambda row, _: Cell(f"{row.counts.dead:,}", "red" if row.counts.dead else ""),
    "oldest": lambda row, now: Cell(since(row.counts.oldest_due_ms, now) if row.counts.oldest_due_ms else "-"),
    "delayed": lambda row, _: Cell(bounds(row.counts.delayed, row.counts.delayed_max)),
    "polls": lambda row, _: Cell(f"{row.counts.waiting_polls:,}"),
    "bytes": lambda row, _: Cell(size(row.counts.bytes)),
    "notes": lambda row, _: Cell("; ".join(notes(row.counts, row.labels)), "yellow"),
}
"""The columns of the list after the name, the most important ones first."""

_WIDTHS: Final = {"oldest": 8, "bytes": 9, "polls": 5, "dead": 5}
_WIDTH: Final = 7


def picture(top: Top, now: float, width: int, height: int, clock: str = "") -> list[Text]:
    """
    Return *height* lines of at most *width* cells that show *top* at the monotonic time *now*.

    *clock* is the time of day, as text.  Sets `Top.page`.
    """
    head = [_title(top, width, clock), _state(top, now), *([Text()] if height >= ROOMY else [])]
    rows = max(1, height - len(head) - 1)
    # Below the heading, for which a screen of one row has no room.
    top.page = max(1, rows - 1)
    if top.help:
        body = [Text(line) for line in HELP.splitlines()]
    elif top.screen is Screen.QUEUE:
        body = _queue(top, width, rows)
    elif top.screen is Screen.WORKERS:
        body = _workers(top, width)
    else:
        body = _list(top, width)[0 if rows > 1 else -1 :]
    body += [Text()] * (rows - len(body))
    bottom = Text("any key goes back" if top.help else KEYS[top.screen], "dim")
    lines = [*head, *body[:rows], bottom][:height]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _title(top: Top, width: int, clock: str) -> Text:
    title = Text.assemble(("queueber", "bold"), f" {text_of(top.address)}")
    if top.sample is not None:
        rows = [top.row(each) for each in top.sample.queues]
        added, gone = (_total([row.added for row in rows]), _total([row.gone for row in rows]))
        more = " or more" if top.sample.more else ""
        items = counted(sum(row.counts.items for row in rows), "item")
        title.append(f"  {counted(len(rows), 'queue')}{more}  {items}  in {rate(added)}/s  out {rate(gone)}/s")
    blanks = width - title.cell_len - len(clock)
    return title.append(" " * blanks + clock) if blanks > 1 else title


def _total(rates: Sequence[float | None]) -> float | None:
    known = [each for each in rates if each is not None]
    return sum(known) if known or not rates else None


def _state(top: Top, now: float) -> Text:
    """Return the line under the title: a question, the filter, an error, a message, or the order."""
    if top.asking is not None:
        return Text(f"{top.asking.question}  [y/N]", "bold reverse")
    if top.typing:
        return Text.assemble("only names with: ", (top.filter, "bold"), ("_", "bold"))
    if top.error:
        old = f"no answer for {seconds_text(now - top.sample.at)}: " if top.sample is not None else ""
        return Text(f"{old}{text_of(top.error)}", "bold red")
    if top.message:
        return Text(text_of(top.message), "bold")
    if top.screen is not Screen.QUEUES:
        return Text()
    only = f"; only names with {text_of(top.filter)}" if top.filter else ""
    return Text(f"by {top.sort}{', reversed' if top.reverse else ''}{only}", "dim")


def _list(top: Top, width: int) -> list[Text]:
    rows, cursor, _ = top.window()
    if not rows:
        return [Text("no queue has such a name" if top.filter else "no queues")]
    now = top.sample.wall_ms if top.sample is not None else 0
    columns = [Column("queue", left=True)]
    columns += [Column(title, _WIDTHS.get(title, _WIDTH), left=title == "notes") for title in _CELLS]
    cells = [[_name(row), *(cell(row, now) for cell in _CELLS.values())] for row in rows]
    return grid(columns, cells, width, cursor=cursor)


def _name(row: Row) -> Cell:
    """Return the name of a queue.  A pause is marked here too: a narrow terminal has no room for notes."""
    if row.counts.polls_paused or row.counts.adds_paused:
        return Cell(f"{text_of(row.name)} (paused)", "yellow")
    return Cell(text_of(row.name))


def _queue(top: Top, width: int, height: int) -> list[Text]:
    row, detail = top.found(top.opened), top.detail
    if row is None:
        return [Text("There is no such queue any more.")]
    now = top.sample.wall_ms if top.sample is not None else 0
    numbers = [("items", f"{row.counts.items:,}")]
    numbers += [(title, text) for title, cell in _CELLS.items() if (text := cell(row, now).text)]
    body = [Text(text_of(row.name), "bold"), *facts(numbers, width)]
    if detail is None or (detail.name, detail.dead) != (row.name, top.dead):
        # The answer is on its way.
        return body
    known = detail.settings
    configured = [
        (name.replace("_", "-"), setting_value(name, value))
        for name, value in asdict(known.settings).items()
        if name not in known.defaults and name not in {"labels", "adds_paused", "polls_paused"}
    ]
    body += facts(configured or [("settings", "all defaults")], width)
    left = height - len(body) - 2
    leases = detail.leases.found[: max(1, left // 2 - 1)]
    items = detail.items.found[: max(1, left - len(leases) - 2)]
    body += [Text(), *_items(items, width, now, dead=top.dead)]
    return [*body, Text(), *_leases(leases, width, now)]


def _items(items: Sequence[ItemView], width: int, now: int, *, dead: bool) -> list[Text]:
    title = "dead items" if dead else "next items"
    if not items:
        return [Text(f"no {'dead' if dead else 'waiting'} items")]
    columns = [Column(title, left=True), Column("died" if dead else "due"), Column("attempts"), Column("id", left=True)]
    return grid(columns, [_item(each, now) for each in items], width)


def _item(item: ItemView, now: int) -> list[Cell]:
    death = item.facts.death
    moment = death.died_at if death is not None and item.state is ItemState.DEAD else item.due_ms
    when = since(moment, now)
    shown = contents_text(item)
    error = item.facts.last_error.strip()
    if error:
        shown = f"{text_of(error.splitlines()[-1])} | {shown}"
    return [
        Cell(shown, "red" if error else ""),
        Cell(when if when.startswith("in ") else f"{when} ago"),
        Cell(f"{item.attempts:,}"),
        Cell(id_text(item.id)),
    ]


def _leases(leases: Sequence[LeaseView], width: int, now: int) -> list[Text]:
    if not leases:
        return [Text("no leases")]
    columns = [Column("worker", left=True), Column("items"), Column("held for"), Column("ends"), Column("handle")]
    rows = [
        [
            Cell(_peer(each.peer)),
            Cell(f"{each.items:,}"),
            Cell(since(each.since_ms, now) if each.since_ms else "before the start"),
            Cell(since(each.deadline_ms, now) if each.deadline_ms else "with its session"),
            Cell(id_text(each.handle)),
        ]
        for each in leases
    ]
    return grid(columns, rows, width)


def _peer(peer: str) -> str:
    return text_of(peer) or "not known any more"


def _kept(worker: Worker) -> str:
    """Return how a worker keeps its leases."""
    if not worker.sessions:
        return "time"
    return "session" if worker.sessions == worker.leases else "both"


def _workers(top: Top, width: int) -> list[Text]:
    workers = workers_of(top.leases)
    if not workers:
        return [Text("no worker holds an item")]
    now = top.sample.wall_ms if top.sample is not None else 0
    columns = [Column("worker", left=True), Column("items"), Column("leases"), Column("longest"), Column("kept by")]
    rows = [
        [
            Cell(_peer(each.peer)),
            Cell(f"{each.items:,}"),
            Cell(f"{each.leases:,}"),
            Cell(since(each.since_ms, now) if each.since_ms else "before the start"),
            Cell(_kept(each)),
            Cell(", ".join(map(text_of, each.queues))),
        ]
        for each in workers
    ]
    return grid([*columns, Column("queues", left=True)], rows, width)
