"""Adds: how their items enter a queue."""

from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Protocol

from attrs import define

from queueber.broker.model import Item, ItemId, Key, LeaseId, new_tuple
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.polls import Polls
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.broker.storage import PutItem, Write
from queueber.errors import QueueberError
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

    def add(
        self, queue: Queue, calls: Sequence[Sequence[tuple[bytes, SpanMs]]], now: WallMs
    ) -> Plan[list[list[ItemId] | QueueberError]]:
        """
        Add an item for each pair of contents and delay; all items of one call, or none.

        Returns:
            A plan whose reply has for each call the ids of its items, in order, or `Overloaded`: too many queues.
        """
        full = self._queues.why_full() if queue.number is None else None
        if full is not None:
            return self._uncommitted.plan(queue, [], [full if call else [] for call in calls])
        items = calls[0] if len(calls) == 1 else list(chain.from_iterable(calls))
        if not items:
            return self._uncommitted.plan(queue, [], [[] for _ in calls])
        ids = self._ids.items(now, len(items))
        size = sum(map(len, map(itemgetter(0), items)))
        replies: list[list[ItemId] | QueueberError] = []
        at = 0
        for call in calls:
            replies.append(ids[at : at + len(call)])
            at += len(call)
        return self._uncommitted.plan(queue, self._put_new(queue, items, ids, size, now), replies, size)

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
