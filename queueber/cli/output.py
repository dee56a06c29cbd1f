"""
What the command prints: text for people, JSON for programs.

Contents may be any bytes.  For people those that are not plain printable text
are shown quoted, as JSON would, or in base64, so that nobody's item controls
the terminal; JSON says which encoding its contents are in.
"""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from uuid import UUID

from queueber.client import Batch
from queueber.units import Unit, WallMs, counted

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def uuid(identity: bytes) -> str:
    """An item's or a lease's id, as a UUID; one of another length, which no server of ours gives, in hexadecimal."""
    return str(UUID(bytes=identity)) if len(identity) == 16 else identity.hex()  # noqa: PLR2004  (a UUID's length)


def added_text(ids: list[bytes]) -> str:
    """The id of each item on a line."""
    return "\n".join(map(uuid, ids))


def added_json(ids: list[bytes]) -> str:
    """The same for programs."""
    return json.dumps({"ids": [uuid(item_id) for item_id in ids]})


def batch_text(batch: Batch, *, contents: bool = True) -> str:
    """The lease, then a line for each item: its id, which attempt this is, and its *contents*."""
    if not batch.items:
        return "no items"
    lines = [f"lease {uuid(batch.lease)} until {_moment(batch.deadline)}"]
    for item in batch.items:
        shown = f": {printable(item.contents)}" if contents else ""
        lines.append(f"item {uuid(item.id)} attempt {item.attempt}{shown}")
    return "\n".join(lines)


def batch_json(batch: Batch) -> str:
    """The same for programs; the names are those of the schema."""
    items = [
        {"id": uuid(item.id), "attempt": item.attempt, "addedAtMs": item.added_at, **encoded(item.contents)}
        for item in batch.items
    ]
    lease = uuid(batch.lease) if batch.lease else None
    return json.dumps({"lease": lease, "leaseDeadlineMs": batch.deadline, "items": items})


def _moment(at: WallMs) -> str:
    try:
        return (_EPOCH + timedelta(milliseconds=at)).isoformat(timespec="milliseconds")
    except OverflowError:
        return f"{at} ms"


def bytes_of(value: int) -> str:
    """So many bytes as a person would say it, and exactly."""
    for name, size in Unit.BYTES.value:
        if value >= size > 1:
            return f"{value / size:,.1f} {name} ({value:,} bytes)"
    return counted(value, "byte")


def printable(contents: bytes) -> str:
    """*contents* for a person."""
    found = encoded(contents)
    text = found["contents"]
    if found["encoding"] == "base64":
        return f"base64 {text}"
    return text if text.isprintable() else json.dumps(text)


def encoded(contents: bytes) -> dict[str, str]:
    """*contents* as text, and which encoding takes that back to bytes."""
    try:
        return {"contents": contents.decode(), "encoding": "utf-8"}
    except UnicodeDecodeError:
        return {"contents": b64encode(contents).decode(), "encoding": "base64"}
