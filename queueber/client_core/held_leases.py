"""The session leases that a client holds, from the poll's answer until their last item is settled."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias, TypeVar

from queueber import api, rpc
from queueber.api import Action, Outcome, Settlement

T = TypeVar("T")
Read: TypeAlias = Callable[[rpc.Results], T]


class _Held:
    """One lease, and its items that are not settled yet."""

    __slots__ = ("ids", "session")

    def __init__(self, session: object, ids: set[bytes]) -> None:
        self.session = session
        """None after an extension: the lease has a deadline now."""

        self.ids = ids


class HeldLeases:
    """
    The session leases of one client.

    A lease of a session does not end while the session is attached.  So the
    client has to know which of them its program still works on: a session that
    attaches again gives back the others, and one that is closed gives back the
    rest.  The results of the calls say when an item leaves its lease.
    """

    def __init__(self) -> None:
        self._held: dict[bytes, _Held] = {}

    def __contains__(self, lease: object) -> bool:
        return lease in self._held

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, session: object, lease: bytes, ids: Iterable[bytes]) -> None:
        """Add a *lease* of *session* on items with these *ids*."""
        self._held[lease] = _Held(session, set(ids))

    def of(self, session: object) -> list[bytes]:
        """Return the leases of *session*, the oldest first."""
        return [lease for lease, held in self._held.items() if held.session is session]

    def forget(self, lease: bytes, item_id: bytes = b"") -> bool:
        """Drop an item of *lease*, or without *item_id* the whole lease.  Return whether it was held."""
        held = self._held.get(lease)
        if held is None:
            return False
        held.ids.discard(item_id)
        if not item_id or not held.ids:
            del self._held[lease]
        return True

    def leave_session(self, lease: bytes) -> None:
        """Note that *lease* has a deadline now.  Its items are still held: those in stock may be handed out."""
        if (held := self._held.get(lease)) is not None:
            held.session = None

    def after_remove(self, item_id: bytes, lease: bytes, read: Read[T]) -> Read[T]:
        """Return *read*, or a function that also drops the item: it is removed, or was not held."""
        if lease not in self._held:
            return read

        def reading(results: rpc.Results) -> T:
            found = read(results)
            self.forget(lease, item_id)
            return found

        return reading

    def after_extend(self, lease: bytes, read: Read[bool]) -> Read[bool]:
        """Return *read*, or a function that also notes that the lease has a deadline now, or is lost."""
        if lease not in self._held:
            return read

        def reading(results: rpc.Results) -> bool:
            is_extended = read(results)
            if is_extended:
                self.leave_session(lease)
            else:
                self.forget(lease)
            return is_extended

        return reading

    def after_settle(self, entries: Sequence[Settlement], read: Read[api.SettleResponse]) -> Read[api.SettleResponse]:
        """Return *read*, or a function that also drops what *entries* have settled."""
        if not any(each.lease in self._held for each in entries):
            return read

        def reading(results: rpc.Results) -> api.SettleResponse:
            response = read(results)
            for entry, settled in zip(entries, response.settled, strict=False):
                if settled.outcome is Outcome.LEASE_LOST:
                    self.forget(entry.lease)
                elif entry.action is Action.EXTEND and response.changed and settled.outcome is Outcome.DONE:
                    self.leave_session(entry.lease)
                elif settled.outcome is Outcome.NOT_FOUND or response.changed:
                    self.forget(entry.lease, entry.id)
            return response

        return reading
