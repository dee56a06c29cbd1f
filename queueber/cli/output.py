"""
Output of the command: text for people, JSON for programs.

Contents may be any bytes.  As text, contents that are not plain printable text
are quoted as in JSON, or encoded in base64, so that no item can control the
terminal.  In JSON a field names the encoding of the contents.
"""

import json
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from queueber.client import Batch
from queueber.units import Unit, counted
from queueber.values import id_text

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def camel_case(name: str) -> str:
    """Return the schema's name of a field or an enumerator: ``maxAttempts`` for ``max_attempts``."""
    first, *rest = name.lower().split("_")
    return first + "".join(map(str.capitalize, rest))


def newer_than_client(placeholder: IntEnum) -> str:
    """Return a text for an enumerator that only the server knows."""
    return f"the server answers {type(placeholder).__name__} {placeholder}, which this client does not know"


def aligned(rows: Sequence[Sequence[str]], sides: str) -> str:
    """Return *rows* as a table; *sides* has ``<`` for each column to align to the left, and ``>`` for the others."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def batch_text(batch: Batch, *, contents: bool = True) -> str:
    """Return the lease and a line for each item with its id, its attempt and, if wanted, its *contents*."""
    if not batch.items:
        return "no items"
    lines = [f"lease {id_text(batch.lease)} until {moment(batch.deadline, 'milliseconds')}"]
    for item in batch.items:
        shown = f": {printable(item.contents)}" if contents else ""
        lines.append(f"item {id_text(item.id)} attempt {item.attempt}{shown}")
    return "\n".join(lines)


def batch_json(batch: Batch) -> str:
    """Return the batch as JSON with the names of the schema."""
    items = [
        {"id": id_text(item.id), "attempt": item.attempt, "addedAtMs": item.added_at, **encoded(item.contents)}
        for item in batch.items
    ]
    lease = id_text(batch.lease) if batch.lease else None
    return json.dumps({"lease": lease, "leaseDeadlineMs": batch.deadline, "items": items})


def moment(ms: int | None, timespec: str = "seconds") -> str:
    """Return a point in queue time as text."""
    if ms is None:
        return "no known time"
    try:
        return (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec=timespec)
    except OverflowError:
        return f"{ms} ms"


def bytes_of(value: int) -> str:
    """Return a number of bytes as text, rounded and exact."""
    for name, size in Unit.BYTES.value:
        if value >= size > 1:
            return f"{value / size:,.1f} {name} ({value:,} bytes)"
    return counted(value, "byte")


def printable(contents: bytes) -> str:
    """Return *contents* as printable text."""
    found = encoded(contents)
    text = found["contents"]
    if found["encoding"] == "base64":
        return f"base64 {text}"
    return text if text.isprintable() else json.dumps(text)


def encoded(contents: bytes) -> dict[str, str]:
    """Return *contents* as text, with the encoding that converts it back to bytes."""
    try:
        return {"contents": contents.decode(), "encoding": "utf-8"}
    except UnicodeDecodeError:
        return {"contents": b64encode(contents).decode(), "encoding": "base64"}
