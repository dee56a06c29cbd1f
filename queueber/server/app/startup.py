"""A start that takes long tells how far it is, to the log and to the supervisor, which then does not give up on it."""

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from queueber.server.app.sd_notify import MICROSECONDS, Notifier

TELL_SECONDS = 5.0

EXTEND_SECONDS = 60
"""How much longer a supervisor is asked to wait, each time something is told."""


@define(eq=False)
class Progress:
    """What a start is at."""

    _reactor: Any
    _notifier: Notifier
    _stage: Callable[[], str] = field(default=lambda: "starting", init=False)
    _began: float = field(default=0.0, init=False)
    _call: LoopingCall = field(init=False)
    log = Logger()

    def begin(self) -> None:
        """Tell something every few seconds from now on."""
        self._began = self._reactor.seconds()
        self._call = LoopingCall(self._tell)
        self._call.clock = self._reactor
        self._call.start(TELL_SECONDS, now=False)

    def at(self, stage: str | Callable[[], str]) -> None:
        """The start has come to *stage*; a function is asked each time something is told."""
        self._stage = stage if callable(stage) else lambda: stage
        self._notifier.status(self._stage())

    @property
    def stage(self) -> str:
        """What it is at."""
        return self._stage()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return float(self._reactor.seconds()) - self._began

    def _tell(self) -> None:
        stage = self._stage()
        self.log.info("Still starting after {seconds:.0f} s: {stage}", seconds=self.seconds, stage=stage)
        self._notifier.send(STATUS=stage, EXTEND_TIMEOUT_USEC=EXTEND_SECONDS * MICROSECONDS)

    def end(self) -> None:
        """It has started, or failed to."""
        if self._call.running:
            self._call.stop()
