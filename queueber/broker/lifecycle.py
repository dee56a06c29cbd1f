"""
The life of a queue: settings, purge, delete, its end without use, and the rows that are left.

A purge and a delete retire the queue's number.  The rows under it are deleted
in slices, over restarts.  Those of items that are leased stay until they leave
their leases.  A retired number has a row of its own until none of its items
has one.
"""

from collections.abc import Collection, Sequence

from attrs import define

from queueber.broker.deaths import DropReason
from queueber.broker.leases import LeaseTable
from queueber.broker.model import UNKNOWN_TIME, Key
from queueber.broker.moves import Changes, Moves
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.polls import Polls
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues, Retired
from queueber.broker.settings import READ_ONLY, QueueConfig, check_changes
from queueber.broker.storage import DeleteItem, SettingFields, Write
from queueber.errors import InvalidRequest, QueueberError
from queueber.limits import Limits
from queueber.units import WallMs


@define(eq=False)
class Lifecycle:
    """Configures, purges and deletes queues, and deletes the rows of retired numbers."""

    _queues: Queues
    _leases: LeaseTable
    _polls: Polls
    _uncommitted: UncommittedPlans
    _moves: Moves
    _limits: Limits

    def configure(
        self, queue: Queue, changes: SettingFields, reset: Collection[str] = ()
    ) -> Plan[QueueConfig | QueueberError]:
        """
        Change settings, by the schema's names of their fields; those in *reset* go back to the server's default.

        Returns:
            A plan whose reply has all settings, `InvalidRequest`: a value or a name cannot be had, or `Overloaded`:
            too many queues.
        """
        try:
            check_changes(changes, reset)
        except InvalidRequest as why:
            return self._uncommitted.plan(queue, [], why)
        # A queue that was not configured has nothing to reset, and does not get a row for that.
        return self._change(queue, changes, [wire for wire in reset if wire in queue.configured])

    def pause(self, queue: Queue, *, adds: bool, polls: bool, paused: bool) -> Plan[QueueConfig | QueueberError]:
        """Pause adds, polls or both, or with *paused* false resume them if they are; otherwise as `configure`."""
        fields = {"addsPaused": adds, "pollsPaused": polls}
        assert fields.keys() == READ_ONLY
        chosen = [name for name, one in fields.items() if one]
        if paused:
            return self._change(queue, dict.fromkeys(chosen, True))
        return self._change(queue, {}, [name for name in chosen if name in queue.configured])

    def _change(
        self, queue: Queue, changes: SettingFields, reset: Collection[str] = ()
    ) -> Plan[QueueConfig | QueueberError]:
        why: QueueberError | None = None
        if queue.owner is not None:
            why = InvalidRequest("dead items have no settings of their own")
        elif (changes or reset) and queue.number is None:
            why = self._queues.why_full()
        if why is not None or not (changes or reset):
            return self._uncommitted.plan(queue, [], why or queue.settings)
        # The call is a use of the queue: the next look begins the time anew.
        queue.used_at = UNKNOWN_TIME
        writes = self._queues.configure(queue, changes, reset)
        self._polls.mark_runnable(queue)
        return self._uncommitted.plan(queue, writes, queue.settings)

    def purge(self, queue: Queue) -> Plan[int]:
        """Remove all items of *queue* that are not leased; the reply of the plan is their number."""
        count = queue.items - len(queue.held)
        if queue.number is None or not count:
            return self._uncommitted.plan(queue, [], 0)
        old = queue.number
        writes = self._queues.retire(queue)
        self._polls.mark_runnable(queue)
        return self._uncommitted.plan(queue, writes, count, dropped=(old,))

    def delete(self, queue: Queue, now: WallMs) -> Plan[None]:
        """Delete *queue*, which is not a dead line, with its dead items and its settings; its leases end at *now*."""
        if queue.number is None:
            return self._uncommitted.plan(queue, [], None)
        lines = [queue] if queue.dead is None else [queue, queue.dead]
        dropped = tuple([line.number for line in lines if line.number is not None])
        for lease in {lease for line in lines for lease in line.held.values()}:
            self._leases.end(lease, now)
        writes = self._queues.delete(queue)
        for line in lines:
            self._polls.mark_runnable(line)
        return self._uncommitted.plan(queue, writes, None, dropped=dropped)

    def look_at(self, queue: Queue, now: WallMs) -> Plan[None] | None:
        """
        End what has lived too long in *queue*, one of `Queues.watched`: a slice of its dead items, or an idle queue.

        Returns:
            The plan, after which the caller looks again; None if there is nothing to end now.
        """
        settings, dead = queue.settings, queue.dead
        if dead is not None and settings.dead_ttl_ms:
            plan = self._end_dead(dead, WallMs(now - settings.dead_ttl_ms))
            if plan is not None:
                return plan
        if queue.keyed_until is None:
            queue.keyed_until = WallMs(now + settings.dedup_window_ms)
        if self._is_used(queue):
            queue.used_at = now
        if queue.number is None or not 0 < settings.idle_ttl_ms <= now - queue.used_at or now < queue.keyed_until:
            return None
        return self.delete(queue, now)

    def _is_used(self, queue: Queue) -> bool:
        """Return whether *queue* has items or polls, or is paused, or whether its last use is not known."""
        dead, settings = queue.dead, queue.settings
        return bool(
            queue.items
            or (dead is not None and dead.items)
            or self._polls.waiters_of(queue)
            or settings.adds_paused
            or settings.polls_paused
            or not queue.used_at
        )

    def _end_dead(self, dead: Queue, until: WallMs) -> Plan[None] | None:
        """Remove a slice of the dead items that are older than *until*; None if none is known."""
        items = dead.window.pop_due(self._limits.expiry_slice, until, self._limits.refill_bytes)
        if not items:
            if not dead.window.covers(until):
                self._uncommitted.start_refill(dead)
            return None
        changes = Changes(dead)
        assert dead.number is not None, "a queue with items has a number"
        for item in items:
            self._moves.drop_for(changes, dead.number, item, DropReason.DEAD_TTL)
        dead.raise_floor(items[-1].key)
        return self._moves.plan(changes, None)

    def next_retired(self) -> Retired | None:
        """
        Return a number with rows to delete: the caller reads keys above its `after`, and calls `clear`.

        A number is not returned before its end is durable: until then, rows may be added under it.
        """
        waiting = {number for plan in self._uncommitted for number in plan.dropped}
        retired = self._queues.retired.values()
        return next((each for each in retired if not each.cleared and each.number not in waiting), None)

    def clear(self, retired: Retired, keys: Sequence[Key], *, exhausted: bool) -> Plan[None]:
        """Delete the rows at *keys*, the next of the number; *exhausted* if there are no others above them."""
        writes: list[Write] = [DeleteItem(retired.number, key) for key in keys if key.id not in retired.kept]
        if keys:
            retired.after = keys[-1]
        retired.cleared = exhausted
        return self._uncommitted.plan(retired.queue, writes, None)

    def forget_cleared(self) -> list[Plan[None]]:
        """Forget the numbers whose rows are deleted and whose leases have ended."""
        return [
            self._uncommitted.plan(retired.queue, self._queues.forget_retired(retired.number), None)
            for retired in [each for each in self._queues.retired.values() if each.cleared]
            if not _leased(retired)
        ]


def _leased(retired: Retired) -> bool:
    """Return whether an item of the number is still leased, and forget those that are not."""
    held = retired.queue.held
    while retired.kept:
        item_id = next(iter(retired.kept))
        lease = held.get(item_id)
        if lease is not None and lease.queue == retired.number:
            return True
        retired.kept.discard(item_id)
    return False
