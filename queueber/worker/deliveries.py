"""The deliveries of a worker by their state, and the moves between the states."""

from collections.abc import Iterator

from queueber.worker.actions import Delivery, State
from queueber.worker.verdicts import Verdict


class Deliveries:
    """
    All deliveries that are not OVER.

    Each collection is ordered by the time at which its deliveries entered it, so
    that the first of those that run, or that are ending, is the first in time.
    """

    def __init__(self) -> None:
        self.waiting: dict[Delivery, None] = {}
        self.running: dict[Delivery, None] = {}
        """Those with a handler that are neither ENDING nor ABANDONED."""

        self.ending: dict[Delivery, None] = {}
        self.abandoned: dict[Delivery, None] = {}

    @property
    def with_handler(self) -> int:
        """The number of handlers."""
        return len(self.running) + len(self.ending) + len(self.abandoned)

    def __bool__(self) -> bool:
        """Return whether one needs its lease."""
        return bool(self.waiting or self.running or self.ending)

    def wait(self, delivery: Delivery) -> None:
        """Enter a new delivery."""
        self.waiting[delivery] = None

    def start_next(self, now: float) -> Delivery:
        """Return the delivery that has waited longest, which is RUNNING from *now* on."""
        delivery = next(iter(self.waiting))
        del self.waiting[delivery]
        delivery.state, delivery.started = State.RUNNING, now
        self.running[delivery] = None
        return delivery

    def ask_to_end(self, delivery: Delivery, verdict: Verdict, until: float) -> None:
        """Let a RUNNING delivery be ENDING, with this *verdict* unless it succeeds, and at most *until* then."""
        del self.running[delivery]
        delivery.state, delivery.on_end, delivery.ending_until = State.ENDING, verdict, until
        self.ending[delivery] = None

    def abandon(self, delivery: Delivery) -> None:
        """Let a RUNNING or ENDING delivery be ABANDONED."""
        del self._of(delivery.state)[delivery]
        delivery.state = State.ABANDONED
        self.abandoned[delivery] = None

    def drop(self, delivery: Delivery) -> State:
        """Let a delivery be OVER; return the state that it had."""
        state, delivery.state = delivery.state, State.OVER
        del self._of(state)[delivery]
        return state

    def overdue(self, max_runtime: float, now: float) -> Iterator[Delivery]:
        """Yield the RUNNING deliveries whose handlers began at least *max_runtime* ago."""
        for delivery in list(self.running):
            if delivery.begun is not None and now >= delivery.begun + max_runtime:
                yield delivery

    def not_ended(self, now: float) -> Iterator[Delivery]:
        """Yield the ENDING deliveries whose time is over.  Each has to leave the state."""
        while self.ending and now >= (first := next(iter(self.ending))).ending_until:
            yield first

    def _of(self, state: State) -> dict[Delivery, None]:
        match state:
            case State.WAITING:
                return self.waiting
            case State.RUNNING:
                return self.running
            case State.ENDING:
                return self.ending
            case _:
                return self.abandoned
