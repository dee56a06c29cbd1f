"""`WorkItem`: the argument of a handler."""

import threading
from typing import Any

from queueber.api import DeliveryFacts, PolledItem
from queueber.client_core.delivery import Delivered
from queueber.values import id_text

_NO_FACTS = DeliveryFacts()
_CREATING = threading.Lock()


class WorkItem(Delivered):
    """
    One item, leased to this worker while its handler runs.

    The end of the handler settles it, so it has no methods for that.
    """

    def __init__(self, queue: str, lease: bytes, polled: PolledItem, facts: DeliveryFacts = _NO_FACTS) -> None:
        """Created by the worker, from one item of a poll's answer."""
        super().__init__(polled, lease, facts)
        self.queue = queue
        """The name of its queue."""

        self.lost = False
        """Whether its lease has ended.  The item may be delivered elsewhere, and the handler's result has no effect."""

        self.stopping = False
        """
        Whether the handler should end now: its lease is lost, it ran for too long, or the worker stops.

        A coroutine is cancelled instead.  A handler in a thread looks at this from time to time.
        """

        self.why = ""
        """Why it should end."""

        self.span_context: Any = None
        """The context of the OpenTelemetry span in which the handler runs, or ran."""

        self._event: threading.Event | None = None

    def __repr__(self) -> str:
        return f"<WorkItem {id_text(self.id)} of {self.queue}, attempt {self.attempt}>"

    def wait(self, seconds: float) -> bool:
        """Sleep up to *seconds* in a handler's thread.  Return early, and True, when the handler should end."""
        with _CREATING:
            if self._event is None:
                self._event = threading.Event()
            if self.stopping:
                self._event.set()
        return self._event.wait(seconds)

    def end(self, why: str, *, lost: bool) -> None:
        """Let the handler know that it should end.  Called by the worker."""
        with _CREATING:
            self.lost, self.stopping, self.why = self.lost or lost, True, why
            if self._event is not None:
                self._event.set()
