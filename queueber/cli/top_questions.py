"""The questions that ``queueber top`` asks a server in one round."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from queueber.api.control_types import Listed, QueueSummary
from queueber.cli.queue_views import listed
from queueber.cli.top_state import Change, Detail, QueueLeases, Sample
from queueber.client import Client
from queueber.units import MS_PER_SECOND
from queueber.values import ItemState

CONTENTS_BYTES: Final = 100
"""Bytes of an item's contents that are asked for."""

LEASES_MAX: Final = 100
"""Leases of a queue that are asked for at a time."""

ITEMS_MAX: Final = 50
"""Items of a queue that are asked for at a time."""

WORKER_QUEUES_MAX: Final = 50
"""Queues whose leases are asked for to show the workers: those with the most leased items."""


class TopCalls:
    """The calls of ``queueber top``, one method for each part of its screens."""

    def __init__(self, client: Client, prefix: str, limit: int, seconds: Callable[[], float]) -> None:
        """Ask *client* for up to *limit* queues that begin with *prefix*.  *seconds* is a monotonic clock."""
        self._client = client
        self._prefix = prefix
        self._limit = limit
        self._seconds = seconds

    async def sample(self) -> Sample:
        """Return the queues now."""

        def ask(last: QueueSummary | None, number: int) -> Awaitable[Listed[QueueSummary]]:
            return self._client.queues(self._prefix, after="" if last is None else last.name, limit=number)

        found, more = await listed(ask, self._limit)
        now = int(datetime.now(UTC).timestamp() * MS_PER_SECOND)
        return Sample(at=self._seconds(), wall_ms=now, queues=found, more=more)

    async def detail(self, name: str, *, dead: bool) -> Detail:
        """Return what the screen of the queue *name* shows."""
        control = self._client.control(name)
        state = ItemState.DEAD if dead else None
        return Detail(
            name=name,
            dead=dead,
            settings=await control.settings(),
            items=await control.peek(state, limit=ITEMS_MAX, contents_bytes=CONTENTS_BYTES),
            leases=await control.leases(limit=LEASES_MAX),
        )

    async def leases(self, sample: Sample) -> list[QueueLeases]:
        """Return the leases of the queues in *sample* with the most leased items."""
        held = sorted(sample.queues, key=lambda queue: -queue.stats.leased)[:WORKER_QUEUES_MAX]
        return [
            QueueLeases(name=each.name, leases=await self._client.control(each.name).leases(limit=LEASES_MAX))
            for each in held
            if each.stats.leased
        ]

    async def change(self, change: Change) -> None:
        """Pause or resume a queue."""
        control = self._client.control(change.queue)
        do = control.pause if change.pause else control.resume
        await do(adds=change.adds, polls=not change.adds)
