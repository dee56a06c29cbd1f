"""
LeaseOptions of leases: until when each is safe, which to extend, and which are lost.

A session lease is safe for as long as the session, whose upkeep is not here.
A lease with a deadline is extended when a third of its span has passed, as long as it has an item in upkeep:
waiting, running or ending.  An item leaves upkeep before it is settled, so that an extension that fails because the
item is settled never counts as a loss.

All times are monotonic and counted from the moment at which a call was sent, so
that neither a wall clock nor a slow reply makes a lease look longer than it is.
"""

import math
from collections.abc import Iterator

from queueber.errors import QueueberError
from queueber.units import MS_PER_SECOND, SpanMs
from queueber.worker.actions import Extend, KeptLease, PollAnswer, TakenItem

EXTEND_FRACTION = 1 / 3
"""The part of a lease's span after which it is extended: two more attempts fit before its end."""

RETRY_SECONDS = 1.0
"""The wait after an extension that the server could not answer."""


class Leases:
    """The leases of this worker that are needed, by id."""

    def __init__(self, span_seconds: float) -> None:
        """*span_seconds* is the span of leases with a deadline."""
        self._span = span_seconds
        self._leases: dict[bytes, KeptLease] = {}
        self._unsettled: dict[bytes, int] = {}
        """TakenItems of each lease whose end the server has not confirmed."""

        self._session_until = math.inf
        """Until when the session is safe; no limit before the first answer, because no lease depends on it then."""

    def add(self, delivered: PollAnswer) -> list[TakenItem]:
        """Return the items of a poll's answer, which are in upkeep from now on under its lease."""
        lease = KeptLease(delivered.lease, delivered.place, delivered.session, delivered.sent + self._span)
        lease.extend_at = delivered.sent + self._span * EXTEND_FRACTION
        items = [TakenItem(item, item_id, lease) for item_id, item in delivered.items]
        lease.held.update(items)
        self._leases[lease.id] = lease
        self._unsettled[lease.id] = len(items)
        return items

    def settled(self, taken: TakenItem) -> None:
        """Note that the server has answered the settlement of *taken*, or that it will not be asked again."""
        lease = taken.lease.id
        if lease in self._unsettled:
            self._unsettled[lease] -= 1
            if not self._unsettled[lease]:
                self._forget(lease)

    def covered(self, until: float) -> None:
        """Note that the session is safe until *until*."""
        self._session_until = until

    def safe(self, lease: KeptLease, now: float) -> bool:
        """Return whether the server holds *lease* for certain."""
        return not lease.lost and now < (self._session_until if lease.session else lease.safe_until)

    def lose(self, lease_id: bytes) -> KeptLease | None:
        """Return the lease, which is lost from now on, or None if it is not needed."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            lease.lost = True
            self._forget(lease_id)
        return lease

    def unsafe(self, now: float) -> list[KeptLease]:
        """Return the leases that have become unsafe by *now*."""
        return [lease for lease in self._leases.values() if not self.safe(lease, now)]

    def to_extend(self, now: float) -> Iterator[Extend]:
        """Yield an extension for each lease that needs one by *now*; `extended` takes its answer."""
        for lease in self._leases.values():
            if not lease.session and lease.held and not lease.extending and now >= lease.extend_at:
                lease.extending = True
                yield Extend(lease.id, lease.place, SpanMs(math.ceil(self._span * MS_PER_SECOND)))

    def extended(self, lease_id: bytes, answer: bool | QueueberError, sent: float, now: float) -> bool:
        """
        Process the answer to an extension that was sent at *sent*.

        Return whether the lease is lost: its end is certain, and an item still needs it.
        """
        lease = self._leases.get(lease_id)
        if lease is None:
            return False
        lease.extending = False
        if answer is True:
            lease.safe_until = max(lease.safe_until, sent + self._span)
            lease.extend_at = sent + self._span * EXTEND_FRACTION
        elif answer is not False:
            lease.extend_at = now + RETRY_SECONDS
        # Without an item in upkeep its last settlement has overtaken the extension.
        return answer is False and bool(lease.held)

    def _forget(self, lease_id: bytes) -> None:
        self._leases.pop(lease_id, None)
        self._unsettled.pop(lease_id, None)

    def __len__(self) -> int:
        """Return the number of leases that are needed."""
        return len(self._leases)
