"""Adds: how their items enter a queue."""

from collections.abc import Sequence
from itertools import chain, repeat
from typing import Protocol

from attrs import define

from queueber.broker.model import TIME_BYTES, Item, ItemId, Key, LeaseId, new_tuple, off_time
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.polls import Polls
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.broker.storage import PutItems
from queueber.errors import QueueberError
from queueber.units import SpanMs, WallMs, no_earlier_than


class Ids(Protocol):
    """A source of new ids and of random numbers."""

    def items(self, now: WallMs, count: int) -> list[ItemId]:
        """Return *count* ids, each larger than every id that this process received before."""

    def lease(self) -> LeaseId:
        """Return a lease's id that no peer can guess."""

    def below(self, bound: int) -> int:
        """Return a random integer from 0 to *bound* - 1.  *bound* is positive and at most 2**64."""


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
        contents, delays, *_ = zip(*items, strict=True)
        size = sum(map(len, contents))
        replies: list[list[ItemId] | QueueberError] = []
        at = 0
        for call in calls:
            replies.append(ids[at : at + len(call)])
            at += len(call)
        number = self._queues.assign_number(queue) if queue.number is None else queue.number
        delayed = any(delays)
        dues = [no_earlier_than(now, delay) if delay else now for delay in delays] if delayed else repeat(now)
        # Without a step of Python for each item, this takes two fifths of the time of a loop.
        keys = map(new_tuple, repeat(Key), zip(dues, ids, strict=False))
        rows = zip(keys, contents, repeat(now), repeat(0), repeat(None), strict=False)
        added: list[Item] = list(map(new_tuple, repeat(Item), rows))
        if delayed:
            for item in added:
                queue.put(item)
        else:
            queue.append(added, size)
        queue.added += len(ids)
        queue.bytes += size
        if delayed or not ids[0][:TIME_BYTES] == ids[-1][:TIME_BYTES] == now.to_bytes(TIME_BYTES, "big"):
            queue.off_time += sum([off_time(item.key) for item in added])
        self._queues.enforce_budget(queue)
        if self._polls.waiting:
            self._polls.mark_runnable(queue)
        write = new_tuple(PutItems, (number, added))
        return self._uncommitted.plan(queue, [write], replies, size, len(ids))
