"""
Notify systemd of the service's state, with the datagrams of ``sd_notify(3)``, and of the progress of a long start.

Without ``NOTIFY_SOCKET`` in the environment nothing is sent.
"""

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field
from twisted.application.internet import TimerService
from twisted.logger import Logger

from queueber.server.core.clock import periodic_timer
from queueber.units import US_PER_SECOND

REPORT_SECONDS = 5.0

EXTEND_SECONDS = 60
"""The extension of the start timeout that each report of progress asks for."""


@define(eq=False)
class Notifier:
    """The supervisor's socket.  Without one, nothing is sent."""

    _address: str | None
    watchdog_seconds: float | None
    """The watchdog timeout; None without a watchdog.  `alive` must be called at least twice within it."""

    log = Logger()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Notifier":
        """Return the notifier for the socket in *environment*."""
        usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        ours = not pid or pid == str(os.getpid())
        return cls(environment.get("NOTIFY_SOCKET"), int(usec) / US_PER_SECOND if usec.isdigit() and ours else None)

    def send(self, **state: object) -> None:
        """Send *state*, such as ``READY=1``.  A failure is only logged."""
        if not self._address:
            return
        # A leading @ stands for the NUL of a name in the abstract namespace.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        message = "\n".join(f"{key}={value}" for key, value in state.items()).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message, address)
        except OSError as why:
            self.log.debug("The supervisor cannot be notified: {why}", why=why)

    def status(self, text: str) -> None:
        """Send a line for ``systemctl status``."""
        self.send(STATUS=text)

    def ready(self, text: str) -> None:
        """Notify that the start is complete."""
        self.send(READY=1, STATUS=text)

    def stopping(self) -> None:
        """Notify that the shutdown has begun."""
        self.send(STOPPING=1, STATUS="Stopping")

    def alive(self) -> None:
        """Notify the watchdog."""
        self.send(WATCHDOG=1)


@define(eq=False)
class StartupProgress:
    """The progress of a start, reported to the log and the supervisor, which then extends its timeout."""

    _reactor: Any
    _notifier: Notifier
    _stage: Callable[[], str] = field(default=lambda: "starting", init=False)
    _began: float = field(default=0.0, init=False)
    _timer: TimerService = field(init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Make the timer."""
        self._timer = periodic_timer(self._reactor, REPORT_SECONDS, self._report)

    def begin(self) -> None:
        """Report the progress every `REPORT_SECONDS` from now on."""
        self._began = self._reactor.seconds()
        self._timer.startService()

    def at(self, stage: str | Callable[[], str]) -> None:
        """Report *stage* to the supervisor.  A function is called for each report."""
        self._stage = stage if callable(stage) else lambda: stage
        self._notifier.status(self._stage())

    @property
    def stage(self) -> str:
        """Return what the start is doing."""
        return self._stage()

    @property
    def seconds(self) -> float:
        """Return the duration of the start."""
        return float(self._reactor.seconds()) - self._began

    def _report(self) -> None:
        if self.seconds < REPORT_SECONDS / 2:
            # The timer calls at its start, too, when there is nothing to report.
            return
        stage = self._stage()
        self.log.info("Still starting after {seconds:.0f} s: {stage}", seconds=self.seconds, stage=stage)
        self._notifier.send(STATUS=stage, EXTEND_TIMEOUT_USEC=EXTEND_SECONDS * US_PER_SECOND)

    def end(self) -> None:
        """Stop reporting."""
        if self._timer.running:
            self._timer.stopService()
