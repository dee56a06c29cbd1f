"""
Dead letters, and redrives: dead items go back to a queue, in bounded steps.  `deaths` has how items die.

The rows are read a slice at a time, each from a snapshot of its own, and
meanwhile the redrive follows all plans that were not durable when it began and
all made since.  The last write of a row decides, even if a slice shows another.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from attrs import define, field

from queueber.broker.adds import Adds
from queueber.broker.deaths import NO_FACTS
from queueber.broker.model import Item, ItemId, Key, QueueNumber, off_time
from queueber.broker.moves import Changes, Moves
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.broker.storage import DeleteItem, PutItems, Scan, Write
from queueber.errors import InvalidRequest, QueueberError
from queueber.limits import Limits
from queueber.units import WallMs
from queueber.values import DeathReason

_SLICES_MAX = 64
"""A redrive that has found items reads no further slices than these for more, so that it ends among other items."""


class RedriveReply(NamedTuple):
    """The result of a redrive."""

    moved: int
    more: bool
    """Whether there may be more such items."""


@define(eq=False)
class Redrive:
    """
    A search for dead items.

    The caller reads slices of the rows above `after`, or the rows of `ids` if there are any, some at a time, until
    `done`.
    """

    dead: Queue
    """The dead items of a queue, as a queue."""

    number: QueueNumber
    to: Queue
    ids: Sequence[ItemId]
    """Only these; empty: all."""

    reason: DeathReason
    """Only items that died of this; `NONE`: of any."""

    limit: int
    """The most items to move."""

    bytes_max: int
    """The most bytes of contents to move."""

    after: Key
    done: bool = False
    more: bool = False
    """Whether rows were left unread."""

    _slices: int = 0
    _found: dict[Key, Item] = field(factory=dict)
    _log: dict[Key, Item | None] = field(factory=dict)
    """The last state of the rows that were written since; None if one was deleted."""

    _wanted: frozenset[ItemId] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Index the ids."""
        self._wanted = frozenset(self.ids)

    def note(self, writes: Sequence[Write]) -> None:
        """Note the writes of a plan."""
        for write in writes:
            if isinstance(write, PutItems) and write.queue == self.number:
                self._log.update((item.key, item) for item in write.items)
            elif isinstance(write, DeleteItem) and write.queue == self.number:
                self._log[write.key] = None

    def add_slice(self, scan: Scan) -> None:
        """Add a slice of rows."""
        self._keep(scan.items)
        if scan.items:
            self.after = scan.items[-1].key
        self._slices += 1
        found = self._movable()
        self.done = scan.exhausted or self._is_enough(found) or (bool(found) and self._slices >= _SLICES_MAX)
        self.more = not scan.exhausted

    def add_rows(self, items: Iterable[Item], *, last: bool) -> None:
        """Add the rows of the next of `ids`, as far as there are any; *last* if these are all."""
        self._keep(items)
        self.done = last or self._is_enough(self._movable())
        self.more = not last

    def _is_enough(self, found: Sequence[Item]) -> bool:
        return len(found) > self.limit or sum(len(item.contents) for item in found) > self.bytes_max

    def _keep(self, items: Iterable[Item]) -> None:
        self._found.update((item.key, item) for item in items if self._matches(item))

    def _matches(self, item: Item) -> bool:
        if self._wanted and item.key.id not in self._wanted:
            return False
        death = item.facts.death if item.facts is not None else None
        return self.reason is DeathReason.NONE or (death is not None and death.reason is self.reason)

    def _movable(self) -> list[Item]:
        """Return the items found so far that are still there and not leased, in order."""
        now = self._found | {key: item for key, item in self._log.items() if item is None or self._matches(item)}
        return [item for _, item in sorted(now.items()) if item is not None and item.key.id not in self.dead.held]

    def result(self) -> tuple[list[Item], bool]:
        """Return the items to move now, in the order in which they died, and whether there may be more."""
        if self.dead.number != self.number:
            # They were purged meanwhile.
            return [], False
        found = self._movable()
        taken: list[Item] = []
        size = 0
        for item in found[: self.limit]:
            size += len(item.contents)
            if size > self.bytes_max and taken:
                break
            taken.append(item)
        return taken, self.more or len(taken) < len(found)


@define(eq=False)
class DeadLetters:
    """Finds dead items, and moves them back."""

    _queues: Queues
    _moves: Moves
    _uncommitted: UncommittedPlans
    _adds: Adds
    _limits: Limits

    def of(self, queue: Queue) -> Queue:
        """
        Return the dead items of *queue* as a queue.  Asking for it costs nothing that lasts.

        Raises:
            InvalidRequest: *queue* holds dead items itself.
        """
        if queue.owner is not None:
            raise InvalidRequest("these are dead items, which do not die again; there are no dead letters of them")
        return self._queues.dead_line(queue)

    def begin(self, queue: Queue, to: Queue, ids: Sequence[ItemId], reason: DeathReason, limit: int) -> Redrive | None:
        """
        Begin a redrive of the dead items of *queue*; None if there are none.

        The caller reads what the redrive wants, then calls `redrive`, or `end` if it cannot read.
        """
        dead = queue.dead
        if dead is None or dead.number is None:
            return None
        search = Redrive(dead, dead.number, to, ids, reason, limit, self._limits.add_bytes, dead.floor)
        self._uncommitted.follow(search)
        return search

    def end(self, redrive: Redrive) -> None:
        """Give up a redrive."""
        self._uncommitted.unfollow(redrive)

    def redrive(self, search: Redrive, now: WallMs) -> Plan[RedriveReply | QueueberError]:
        """
        Move the items that *search* has found: all, or none if the target cannot take them.

        They are due now and count their attempts anew.
        """
        self._uncommitted.unfollow(search)
        items, more = search.result()
        dead, to = search.dead, search.to
        size = sum(len(item.contents) for item in items)
        if not items:
            return Plan([], (), RedriveReply(0, more))
        if (why := self._adds.why_refused(to, items)) is not None:
            return Plan([], (), why)
        number = self._queues.assign_number(to) if to.number is None else to.number
        changes = Changes(dead)
        for item in items:
            dead.discard(item.key)
            self._moves.drop(changes, search.number, item)
        moved = [_revived(item, to, now) for item in sorted(items, key=_id)]
        changes.writes.append(PutItems(number, moved))
        changes.others[to] = None
        changes.size = size
        to.added += len(moved)
        to.bytes += size
        for item in moved:
            to.off_time += off_time(item.key)
            to.put(item)
        reply: RedriveReply | QueueberError = RedriveReply(len(moved), more)
        return self._moves.plan(changes, reply)


def _id(item: Item) -> ItemId:
    return item.key.id


def _revived(item: Item, to: Queue, now: WallMs) -> Item:
    """Return a dead item as it is in its queue again: with its history, and with its attempts before it."""
    # Its time to live begins anew: otherwise it would die again at once.
    ttl = to.settings.ttl_ms
    expires_at = WallMs(now + ttl if ttl else 0)
    facts = (item.facts or NO_FACTS)._replace(failures=0, expires_at=expires_at)
    return Item(Key(now, item.key.id), item.contents, item.added_at, 0, facts)
