"""
Telling systemd how the service is: the datagrams of ``sd_notify(3)``.

Without ``NOTIFY_SOCKET`` in the environment nothing is sent, so a server need
not know whether systemd started it.
"""

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

MICROSECONDS = 1_000_000

REPORT_SECONDS = 5.0

EXTEND_SECONDS = 60
"""How much longer a supervisor is asked to wait, each time something is told."""


@define(eq=False)
class Notifier:
    """The supervisor's socket, if there is one."""

    _address: str | None
    watchdog_seconds: float | None
    """How often a sign of life is wanted, at half of which one is sent; None for never."""

    log = Logger()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Notifier":
        """The one that the service was started with."""
        usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        ours = not pid or pid == str(os.getpid())
        return cls(environment.get("NOTIFY_SOCKET"), int(usec) / MICROSECONDS if usec.isdigit() and ours else None)

    def send(self, **state: object) -> None:
        """Tell *state*, such as ``READY=1``.  Nobody to tell it to is no error."""
        if not self._address:
            return
        # A name that begins with @ is in the abstract namespace, where it begins with NUL.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        message = "\n".join(f"{key}={value}" for key, value in state.items()).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message, address)
        except OSError as why:
            self.log.debug("The supervisor cannot be told: {why}", why=why)

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self.send(STATUS=text)

    def ready(self, text: str) -> None:
        """The service serves."""
        self.send(READY=1, STATUS=text)

    def stopping(self) -> None:
        """It has begun to stop."""
        self.send(STOPPING=1, STATUS="Stopping")

    def alive(self) -> None:
        """A sign of life for the watchdog."""
        self.send(WATCHDOG=1)


@define(eq=False)
class StartupProgress:
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
        self._call.start(REPORT_SECONDS, now=False)

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
