"""Conditions that a test has on an item, and the text of a failure, which lists what is there instead."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from attrs import field, frozen

from queueber.testing.inspection import StoredItem

Expected: TypeAlias = bytes | bytearray | memoryview | str | Callable[[bytes], object]
"""Contents: the bytes, the text in UTF-8, or a function that says whether it accepts the bytes."""

SHOWN: Final = 20
"""The most items that a failure lists."""

CONTENTS_SHOWN: Final = 60
"""The most characters of an item's contents in a failure."""


class _Any:
    """Stands for a condition that was not given; None is a value of JSON."""

    def __repr__(self) -> str:
        return "anything"


ANY: Final[Any] = _Any()


@frozen(kw_only=True)
class Wanted:
    """The conditions on an item; those that are not given hold."""

    contents: Expected | None = None
    json: Any = ANY
    task: str | None = None
    args: Sequence[Any] | None = None
    kwargs: Mapping[str, Any] | None = None
    headers: Mapping[str, bytes | str] = field(factory=dict)
    delay: float | None = None

    def matches(self, item: StoredItem) -> bool:
        """Return whether *item* meets all conditions."""
        return (
            self._has_contents(item.contents)
            and self.task in {None, item.task}
            and all(item.headers.get(name) == _bytes(value) for name, value in self.headers.items())
            and (self.delay is None or abs(item.delay - self.delay) < 0.0005)  # noqa: PLR2004  (half a millisecond)
            and self._has_json(item)
        )

    def _has_contents(self, contents: bytes) -> bool:
        expected = self.contents
        if expected is None:
            return True
        return bool(expected(contents)) if callable(expected) else contents == _bytes(expected)

    def _has_json(self, item: StoredItem) -> bool:
        if self.json is ANY and self.args is None and self.kwargs is None:
            return True
        try:
            value = item.json()
        except ValueError:
            return False
        call = value if isinstance(value, dict) else {}
        return (
            self.json in (ANY, value)
            and (self.args is None or call.get("args") == list(self.args))
            and (self.kwargs is None or call.get("kwargs") == dict(self.kwargs))
        )

    def __str__(self) -> str:
        parts = []
        if self.task is not None:
            parts.append(f"task {self.task}")
        if self.contents is not None:
            shown = "that it accepts" if callable(self.contents) else repr(_bytes(self.contents))
            parts.append(f"contents {shown}")
        if self.json is not ANY:
            parts.append(f"JSON {self.json!r}")
        parts += [
            f"{name} {value!r}" for name in ("args", "kwargs", "delay") if (value := getattr(self, name)) is not None
        ]
        parts += [f"header {name}={_bytes(value)!r}" for name, value in self.headers.items()]
        return f"with {', '.join(parts)}" if parts else "at all"


def _bytes(value: bytes | bytearray | memoryview | str) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def describe(items: Iterable[StoredItem], *, with_queue: bool) -> str:
    """Return a line for each of *items*, up to `SHOWN`."""
    all_items = list(items)
    lines = [_line(item, with_queue=with_queue) for item in all_items[:SHOWN]]
    if len(all_items) > SHOWN:
        lines.append(f"  and {len(all_items) - SHOWN:,} more")
    return "\n".join(lines)


def _line(item: StoredItem, *, with_queue: bool) -> str:
    contents = repr(item.contents)
    if len(contents) > CONTENTS_SHOWN:
        contents = f"{contents[:CONTENTS_SHOWN]}… ({len(item.contents):,} bytes)"
    facts = ["removed" if item.state is None else item.state.name.lower()]
    if item.delay:
        facts.append(f"delay {item.delay:g} s")
    if item.attempts:
        facts.append(f"attempts {item.attempts}")
    if item.last_error:
        facts.append(f"last error {item.last_error.splitlines()[-1]!r}")
    where = f"{item.queue}: " if with_queue else ""
    task = f"{item.task} " if item.task is not None else ""
    return f"  {where}{task}{contents} ({', '.join(facts)})"
