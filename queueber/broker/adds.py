"""Adds: how their items enter a queue."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Protocol, TypeAlias

from attrs import define

from queueber.broker.model import TIME_BYTES, Facts, Item, ItemId, Key, LeaseId, new_tuple, off_time
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.polls import Polls
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.broker.storage import PutItems
from queueber.errors import InvalidRequest, Overloaded, QueueberError, too_large
from queueber.limits import Limits
from queueber.units import WallMs, no_earlier_than
from queueber.values import ItemOptions, NewItem

Adding: TypeAlias = tuple[Queue, Sequence[NewItem]]
"""A queue, and items to add to it."""


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
    _limits: Limits

    def add(  # noqa: C901  (the path of each add, without a further call)
        self, queue: Queue, calls: Sequence[Sequence[NewItem]], now: WallMs, *, checked: bool = False
    ) -> Plan[list[list[ItemId] | QueueberError]]:
        """
        Add items; all of one call, or none.

        Deduplication keys are not looked at.  With *checked*, the caller has found no reason to refuse a call: it has
        asked `why_never` and `why_refused`, or `why_not`.

        Returns:
            A plan whose reply has for each call the ids of its items, in order, or why it is refused: `Overloaded` by a
            limit or a pause, `InvalidRequest` for what can never be added.  If *checked*, no call is refused.
        """
        queue.used_at = now
        if queue.checks_adds and not checked:
            return self._add_checked(queue, calls, now)
        full = self._queues.why_full() if queue.number is None and not checked else None
        if full is not None:
            return self._uncommitted.plan(queue, [], [full if call else [] for call in calls])
        items = calls[0] if len(calls) == 1 else list(chain.from_iterable(calls))
        if not items:
            return self._uncommitted.plan(queue, [], [[] for _ in calls])
        contents, delays, options = zip(*items, strict=True)
        delayed = any(delays)
        dues: Iterable[WallMs] = repeat(now)
        if delayed:
            dues = [no_earlier_than(now, delay) if delay else now for delay in delays]
        facts: Iterable[Facts | None] = repeat(None)
        if any(options):
            if not checked:
                return self._add_checked(queue, calls, now)
            delayed, facts = True, [_facts_of(each) for each in options]
            dues = [_due_of(due, each, now) for due, each in zip(dues, options, strict=False)]
        ids = self._ids.items(now, len(items))
        size = sum(map(len, contents))
        replies: list[list[ItemId] | QueueberError] = []
        at = 0
        for call in calls:
            replies.append(ids[at : at + len(call)])
            at += len(call)
        number = self._queues.assign_number(queue) if queue.number is None else queue.number
        # Without a step of Python for each item, this takes two fifths of the time of a loop.
        keys = map(new_tuple, repeat(Key), zip(dues, ids, strict=False))
        rows = zip(keys, contents, repeat(now), repeat(0), facts, strict=False)
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
        self._queues.windows.enforce(queue)
        if self._polls.waiting:
            self._polls.mark_runnable(queue)
        write = new_tuple(PutItems, (number, added))
        return self._uncommitted.plan(queue, [write], replies, size, len(ids))

    def _add_checked(
        self, queue: Queue, calls: Sequence[Sequence[NewItem]], now: WallMs
    ) -> Plan[list[list[ItemId] | QueueberError]]:
        """Add the items of the calls that are not refused."""
        refusals: list[QueueberError | None] = []
        admitted: list[Sequence[NewItem]] = []
        count = size = 0
        for items in calls:
            why = self.why_never(enumerate(items), now) or self.why_refused(queue, items, count, size)
            refusals.append(why)
            if why is None:
                admitted.append(items)
                count += len(items)
                size += sum([len(item.contents) for item in items])
        plan = self.add(queue, admitted, now, checked=True)
        replies = iter(plan.reply)
        plan.reply = [next(replies) if why is None else why for why in refusals]
        return plan

    def why_not(
        self, adds: Sequence[Adding], freed: Mapping[Queue, Sequence[int]], now: WallMs
    ) -> QueueberError | None:
        """
        Return why *adds* cannot be made together; None if they can.

        *freed* has the sizes of the items that leave each queue before.
        """
        wanted: dict[Queue, list[NewItem]] = {}
        for place, (queue, items) in enumerate(adds):
            wanted.setdefault(queue, []).extend(items)
            if (never := self.why_never(enumerate(items), now, f"adds[{place}].")) is not None:
                return never
        for queue, items in wanted.items():
            sizes = freed.get(queue, ())
            if (why := self.why_refused(queue, items, -len(sizes), -sum(sizes))) is not None:
                return why
        return self._queues.why_full(sum(queue.number is None for queue, items in wanted.items() if items))

    def why_never(self, items: Iterable[tuple[int, NewItem]], now: WallMs, path: str = "") -> InvalidRequest | None:
        """
        Return why *items* can never be added because of their options; None if they can.

        Each item comes with its place in the add, and *path* leads to the add within the call.
        """
        for place, item in items:
            options = item.options
            if options is None or not (options.due or options.expires_at):
                continue
            if (why := self._why_never(item, options, place, now, path)) is not None:
                return why
        return None

    def _why_never(
        self, item: NewItem, options: ItemOptions, place: int, now: WallMs, path: str
    ) -> InvalidRequest | None:
        own = f"{path}options[{place}]."
        if options.due > now + self._limits.delay_ms:
            return InvalidRequest(
                f"{own}dueMs is {options.due - now:,} ms from now; the limit is {self._limits.delay_ms:,} (delay_ms)",
                limit="delay_ms",
            )
        expires_at = options.expires_at
        if 0 < expires_at <= now:
            return InvalidRequest(
                f"{own}expiresAtMs is {now - expires_at:,} ms ago by the server's clock; it must be later than now"
            )
        due = _due_of(no_earlier_than(now, item.delay) if item.delay else now, options, now)
        if 0 < expires_at <= due:
            asked = f"{own}dueMs" if options.due else f"visibilityTimeout of {path}items[{place}]"
            return InvalidRequest(
                f"{own}expiresAtMs is {expires_at - now:,} ms from now by the server's clock; it must be later than the"
                f" moment at which the item becomes due, {due - now:,} ms from now ({asked})"
            )
        return None

    def why_refused(
        self, queue: Queue, items: Sequence[NewItem | Item], count: int = 0, size: int = 0
    ) -> QueueberError | None:
        """
        Return why *items* cannot be added to *queue*; None if they can.

        *count* items with contents of *size* bytes are taken for added already, or for removed if these are negative.
        """
        why: QueueberError | None = None
        if queue.owner is not None:
            why = InvalidRequest("these are the dead items of a queue, to which nothing can be added")
        elif items and queue.number is None:
            why = self._queues.why_full()
        if why is not None or not items or not queue.checks_adds:
            return why
        settings, name = queue.settings, queue.name
        sizes = [len(item.contents) for item in items]
        if settings.adds_paused:
            return Overloaded(f"adds to queue {name!r} are paused")
        if 0 < settings.max_item_bytes < max(sizes):
            field, limit = f"contents of an item of queue {name!r} (maxItemBytes)", settings.max_item_bytes
            return too_large(field, value=max(sizes), limit=limit, unit="bytes")
        for what, there, added, most in (
            ("items (maxItems)", queue.items + count, len(items), settings.max_items),
            ("bytes (maxBytes)", queue.bytes + size, sum(sizes), settings.max_bytes),
        ):
            if 0 < most < there + added:
                after = f"{there + added:,} {what}"
                why = Overloaded(f"queue {name!r} has {there:,} and would have {after}; the limit is {most:,}")
        return why


def _facts_of(options: ItemOptions | None) -> Facts | None:
    """Return the facts of an item with *options*; None without any."""
    if options is None or not (options.headers or options.expires_at):
        return None
    return Facts(headers=options.headers, expires_at=options.expires_at)


def _due_of(due: WallMs, options: ItemOptions | None, now: WallMs) -> WallMs:
    """Return the due that is given in *options*, or now if that has passed; without any, *due*."""
    return due if options is None or not options.due else max(options.due, now)
