"""Adds: what they may ask for, and how their items enter a queue."""

from collections.abc import Sequence
from itertools import chain
from typing import Protocol

from attrs import define

from queueber.broker.model import Item, ItemId, Key, LeaseId, new_tuple
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.polls import Polls
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.broker.storage import PutItem, Write
from queueber.errors import InvalidRequest, QueueberError, too_large
from queueber.limits import Limits
from queueber.units import SpanMs, WallMs, no_earlier_than


class Ids(Protocol):
    """A source of new ids."""

    def items(self, now: WallMs, count: int) -> list[ItemId]:
        """Return *count* ids, each larger than all that this process received before."""

    def lease(self) -> LeaseId:
        """Return a lease's id that no peer can guess."""


@define(eq=False)
class Adds:
    """Decides adds."""

    _queues: Queues
    _polls: Polls
    _uncommitted: UncommittedPlans
    _ids: Ids
    _limits: Limits

    def add(
        self, queue: Queue, calls: Sequence[Sequence[tuple[bytes, SpanMs]]], now: WallMs
    ) -> Plan[list[list[ItemId] | QueueberError]]:
        """
        Add an item for each pair of contents and delay; all items of one call, or none.

        Returns:
            A plan whose reply has for each call the ids of its items, in order,
            or the reason for its refusal: `InvalidRequest` (too many items, one
            that is too large or delayed for too long, or too many bytes) or
            `Overloaded` (too many queues).
        """
        refused, size = self._validate(queue, calls)
        accepted = [call for place, call in enumerate(calls) if place not in refused] if refused else calls
        items = accepted[0] if len(accepted) == 1 else list(chain.from_iterable(accepted))
        if not items:
            return self._uncommitted.plan(queue, [], [refused.get(place, []) for place in range(len(calls))])
        ids = self._ids.items(now, len(items))
        replies: list[list[ItemId] | QueueberError] = []
        at = 0
        for place, call in enumerate(calls):
            if place in refused:
                replies.append(refused[place])
            else:
                replies.append(ids[at : at + len(call)])
                at += len(call)
        return self._uncommitted.plan(queue, self._put_new(queue, items, ids, size, now), replies, size)

    def _validate(
        self, queue: Queue, calls: Sequence[Sequence[tuple[bytes, SpanMs]]]
    ) -> tuple[dict[int, QueueberError], int]:
        """Return why calls are refused, by their places, and the size of the contents of the others."""
        limits = self._limits
        items_max, contents_max, delay_max = limits.items_per_add, limits.contents_bytes, limits.delay_ms
        no_queue = self._queues.why_full() if queue.number is None else None
        refused: dict[int, QueueberError] = {}
        accepted_bytes = 0
        for place, items in enumerate(calls):
            why: QueueberError | None = None
            total = 0
            if len(items) > items_max:
                why = self._above("items_per_add", "items", len(items), "items")
            else:
                for contents, delay in items:
                    size = len(contents)
                    total += size
                    if size > contents_max:
                        why = self._above("contents_bytes", "contents", size, "bytes")
                        break
                    if delay > delay_max:
                        why = self._above("delay_ms", "visibilityTimeoutMs", delay, "ms")
                        break
            if why is None and total > limits.add_bytes:
                why = self._above("add_bytes", "contents of all items", total, "bytes")
            if why is None and items:
                why = no_queue
            if why is None:
                accepted_bytes += total
            else:
                refused[place] = why
        return refused, accepted_bytes

    def _above(self, limit: str, field: str, value: int, unit: str) -> InvalidRequest:
        return too_large(field, value=value, limit=getattr(self._limits, limit), unit=unit, name=limit)

    def _put_new(
        self, queue: Queue, items: Sequence[tuple[bytes, SpanMs]], ids: Sequence[ItemId], size: int, now: WallMs
    ) -> list[Write]:
        """Put *items*, whose contents are *size* bytes together, into *queue*."""
        number = self._queues.assign_number(queue) if queue.number is None else queue.number
        added: list[Item] = []
        writes: list[Write] = []
        delayed = False
        for item_id, (contents, delay) in zip(ids, items, strict=True):
            due = now
            if delay:
                due = no_earlier_than(now, delay)
                delayed = True
            item = new_tuple(Item, (new_tuple(Key, (due, item_id)), contents, now, 0))
            added.append(item)
            writes.append(new_tuple(PutItem, (number, item)))
        if delayed:
            for item in added:
                queue.put(item)
        else:
            queue.append(added, size)
        queue.added += len(ids)
        self._queues.enforce_budget(queue)
        if self._polls.waiting:
            self._polls.mark_runnable(queue)
        return writes
