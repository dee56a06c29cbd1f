"""
Output of the commands that look into queues: text for people, JSON with the names of the schema.

A number that the server does not know exactly is shown by its bounds: ``12-40``.
Names, errors and headers are printed so that none can control the terminal.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from attrs import asdict

from queueber.api import DeliveryFacts
from queueber.api.control_types import ItemView, LeaseView, QueueCounts, QueueSettings, QueueSummary, SettingsInForce
from queueber.cli.output import aligned, bytes_of, camel_case, encoded, moment, newer_than_client, printable
from queueber.units import MS_PER_SECOND, Unit, counted, quantity, rounded_span
from queueber.values import DeathReason, ItemState, id_text

_DEATHS: Final = {
    DeathReason.NONE: "for no known reason",
    DeathReason.ATTEMPTS: "its last attempt failed",
    DeathReason.LOST: "the lease of its last attempt ended by itself",
    DeathReason.REJECTED: "a worker rejected it",
    DeathReason.EXPIRED: "it was not delivered in time",
}


def death_text(reason: DeathReason) -> str:
    """Return why an item died, as part of a sentence."""
    return _DEATHS.get(reason) or newer_than_client(reason)


def text_of(value: str) -> str:
    """Return text from a server so that it cannot control the terminal."""
    return printable(value.encode(errors="surrogateescape"))


# Queues


def summary_json(queue: QueueSummary) -> dict[str, Any]:
    """Return a queue of the list of queues for JSON."""
    return {"name": queue.name, "stats": counts_json(queue.stats), "labels": dict(queue.labels)}


def counts_json(counts: QueueCounts) -> dict[str, Any]:
    """Return the counts of a queue for JSON."""
    return {camel_case(name): value for name, value in asdict(counts).items()}


def queues_text(queues: Sequence[QueueSummary]) -> str:
    """Return a line for each queue, under a heading."""
    if not queues:
        return "no queues"
    heading = ("queue", "items", "ready", "delayed", "leased", "dead", "bytes", "polls", "oldest due", "notes")
    return aligned([heading, *map(_summary_row, queues)], "<>>>>>>>><")


def _summary_row(queue: QueueSummary) -> tuple[str, ...]:
    counts = queue.stats
    noted = "; ".join(notes(counts, queue.labels))
    numbers = (counts.leased, counts.dead, counts.bytes, counts.waiting_polls)
    leased, dead, size, polls = (f"{number:,}" for number in numbers)
    ready, delayed = bounds(counts.ready, counts.ready_max), bounds(counts.delayed, counts.delayed_max)
    oldest = _distance(counts.oldest_due_ms) if counts.oldest_due_ms else "-"
    return text_of(queue.name), f"{counts.items:,}", ready, delayed, leased, dead, size, polls, oldest, noted


def counts_text(name: str, counts: QueueCounts) -> str:
    """Return the counts of the queue *name*, one per line."""
    oldest = counts.oldest_due_ms
    return aligned(
        [
            ("queue", text_of(name)),
            ("items", f"{counts.items:,}"),
            ("  ready", bounds(counts.ready, counts.ready_max)),
            ("  delayed", bounds(counts.delayed, counts.delayed_max)),
            ("  leased", f"{counts.leased:,}"),
            ("contents", bytes_of(counts.bytes)),
            ("dead items", f"{counts.dead:,}"),
            ("  contents", bytes_of(counts.dead_bytes)),
            ("waiting polls", f"{counts.waiting_polls:,}"),
            ("oldest due", f"{moment(oldest)} ({_distance(oldest)})" if oldest else "none, or not known"),
            ("added", f"{counts.added:,}"),
            ("removed", f"{counts.removed:,}"),
            ("paused", ", ".join(_paused(counts)) or "no"),
        ],
        "<<",
    )


def notes(counts: QueueCounts, labels: Iterable[tuple[str, str]]) -> list[str]:
    """Return what is paused in a queue, and its labels."""
    return [*_paused(counts), *(f"{text_of(name)}={text_of(value)}" for name, value in labels)]


def _paused(counts: QueueCounts | QueueSettings) -> list[str]:
    flags = (("adds paused", counts.adds_paused), ("polls paused", counts.polls_paused))
    return [text for text, paused in flags if paused]


def bounds(least: int, most: int) -> str:
    """Return a number by its bounds: ``12-40``, or the number itself if they are equal."""
    return f"{least:,}" if least == most else f"{least:,}-{most:,}"


def _distance(ms: int) -> str:
    """Return the time between now, by this machine's clock, and *ms*."""
    since = datetime.now(UTC).timestamp() * MS_PER_SECOND - ms
    return f"{rounded_span(since)} ago" if since >= 0 else f"in {rounded_span(-since)}"


# Settings


def settings_json(found: SettingsInForce) -> dict[str, Any]:
    """Return settings for JSON."""
    values = {camel_case(name): value for name, value in asdict(found.settings).items()}
    return {
        "settings": {**values, "labels": dict(found.settings.labels)},
        "defaults": [*map(camel_case, found.defaults)],
    }


def settings_text(found: SettingsInForce, names: Collection[str] | None = None) -> str:
    """
    Return a line for each setting: its name for ``configure``, its value, and whether that is the default.

    *names* selects some; None: all.
    """
    rows = [
        (name.replace("_", "-"), setting_value(name, value), "default" if name in found.defaults else "")
        for name, value in asdict(found.settings).items()
        if names is None or name in names
    ]
    return aligned(rows, "<<<")


def setting_value(name: str, value: Any) -> str:  # noqa: ANN401
    """Return the value of a setting as text that `configure` takes, unless it is a list of labels."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return quantity(value, unit_of(name))
    return " ".join(f"{text_of(label)}={text_of(content)}" for label, content in value) or "none"


def unit_of(setting: str) -> Unit:
    """Return the unit of a setting that is a number."""
    if setting.endswith("_ms"):
        return Unit.MS
    return Unit.BYTES if setting.endswith("bytes") else Unit.COUNT


# Leases


def lease_json(lease: LeaseView) -> dict[str, Any]:
    """Return a lease for JSON."""
    return {
        "handle": id_text(lease.handle),
        "items": lease.items,
        "sinceMs": lease.since_ms,
        "deadlineMs": lease.deadline_ms,
        "peer": lease.peer,
        "session": lease.session,
        "ids": [id_text(each) for each in lease.ids],
    }


def leases_text(leases: Sequence[LeaseView]) -> str:
    """Return a line for each lease, under a heading."""
    if not leases:
        return "no leases"
    rows = [
        (
            id_text(each.handle),
            f"{each.items:,}",
            moment(each.since_ms) if each.since_ms else "before the server's start",
            moment(each.deadline_ms) if each.deadline_ms else "its session ends",
            text_of(each.peer) or "not known any more",
        )
        for each in leases
    ]
    return aligned([("handle", "items", "since", "until", "peer"), *rows], "<>>><")


# Items


def item_json(item: ItemView) -> dict[str, Any]:
    """Return an item for JSON."""
    found: dict[str, Any] = {
        "id": id_text(item.id),
        "state": camel_case(item.state.name),
        **encoded(item.contents),
        "contentsBytes": item.contents_bytes,
        "addedAtMs": item.added_at_ms,
        "dueMs": item.due_ms,
        "attempts": item.attempts,
        **_facts_json(item.facts),
        "expiresAtMs": item.expires_at_ms,
        "place": item.place.hex(),
    }
    if item.waits is not None:
        waits = item.waits
        found["waits"] = {
            "lease": None if waits.lease is None else lease_json(waits.lease),
            "ahead": waits.ahead,
            "queuePaused": waits.queue_paused,
            "leasesFull": waits.leases_full,
            "waitingPolls": waits.waiting_polls,
        }
    return found


def _facts_json(facts: DeliveryFacts) -> dict[str, Any]:
    death = facts.death
    return {
        "failures": facts.failures,
        "losses": facts.losses,
        "firstLeasedAtMs": facts.first_leased_at,
        "lastError": facts.last_error,
        "headers": [{"name": name, "value": encoded(value)} for name, value in facts.headers],
        "death": None
        if death is None
        else {"reason": camel_case(death.reason.name), "diedAtMs": death.died_at, "queue": death.queue},
    }


def items_text(items: Sequence[ItemView]) -> str:
    """Return a line for each item, and one more for its last error."""
    if not items:
        return "no items"
    lines = []
    for item in items:
        lines.append(f"item {id_text(item.id)} {_state(item)}; attempts {item.attempts}: {contents_text(item)}")
        if item.facts.last_error:
            # Workers put the traceback after the first line; `queueber get` shows all of it.
            lines.append(f"  last error: {text_of(item.facts.last_error.splitlines()[0])}")
    return "\n".join(lines)


def _state(item: ItemView) -> str:
    death = item.facts.death
    if item.state is ItemState.DEAD and death is not None:
        return f"died {moment(death.died_at, 'milliseconds')}, {death_text(death.reason)}"
    return f"{camel_case(item.state.name)}, due {moment(item.due_ms, 'milliseconds')}"


def contents_text(item: ItemView) -> str:
    """Return the contents of an item as text, with the number of bytes that are not shown."""
    left = item.contents_bytes - len(item.contents)
    if not left:
        return printable(item.contents)
    # Cut off within a letter, the rest would be shown in base64.
    whole = item.contents.decode(errors="ignore").encode()
    shown = whole if item.contents.startswith(whole) else item.contents
    return f"{printable(shown)} ... ({counted(item.contents_bytes - len(shown), 'more byte')})"


def item_text(queue: str, item: ItemView) -> str:
    """Return everything about an item of the queue *queue*, and why it waits."""
    facts = item.facts
    failures, losses = counted(facts.failures, "failure"), counted(facts.losses, "lost lease")
    rows = [
        ("item", id_text(item.id)),
        ("queue", text_of(queue)),
        ("state", camel_case(item.state.name)),
        *(("why", reason) for reason in _reasons(item)),
        ("due", moment(item.due_ms, "milliseconds")),
        ("added", moment(item.added_at_ms, "milliseconds")),
        (
            "attempts",
            f"{item.attempts:,}, with {failures} and {losses}",
        ),
    ]
    if facts.first_leased_at:
        rows.append(("first leased", moment(facts.first_leased_at, "milliseconds")))
    if facts.last_error:
        rows.append(("last error", text_of(facts.last_error)))
    if facts.death is not None:
        died = facts.death
        where = f"{moment(died.died_at, 'milliseconds')} in {text_of(died.queue)}: {death_text(died.reason)}"
        rows.append(("died", where))
    if item.expires_at_ms:
        rows.append(("expires", moment(item.expires_at_ms, "milliseconds")))
    rows += [("header", f"{text_of(name)}: {printable(value)}") for name, value in facts.headers]
    rows.append(("contents", f"{bytes_of(item.contents_bytes)}: {contents_text(item)}"))
    return aligned(rows, "<<")


def _reasons(item: ItemView) -> list[str]:
    """Return the reason why an item waits, or the worker that holds it."""
    waits = item.waits
    if waits is None:
        return []
    if waits.lease is not None:
        lease = waits.lease
        peer = text_of(lease.peer) or "a peer that is not known any more"
        since = f"since {moment(lease.since_ms)}" if lease.since_ms else "since before the server's start"
        until = f"until {moment(lease.deadline_ms)}" if lease.deadline_ms else "until its session ends"
        return [f"leased by {peer} {since} {until}, handle {id_text(lease.handle)}"]
    if item.state is ItemState.DEAD:
        return ["it is dead until it is redriven"]
    found = ["the polls of the queue are paused"] if waits.queue_paused else []
    if waits.leases_full:
        found.append("the server's limit of leased items is reached")
    if item.state is ItemState.DELAYED:
        found.append("it is not due yet")
    if waits.ahead:
        found.append(f"at most {counted(waits.ahead, 'item')} before it")
    if not waits.waiting_polls:
        found.append("no poll is waiting in the queue")
    return found
