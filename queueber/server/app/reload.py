"""Signals: SIGHUP, for which is read again what may change while the server runs, and more than one of the others."""

import signal
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define
from twisted.logger import Logger

from queueber.errors import QueueberError
from queueber.server.app.logs import Log
from queueber.server.config.settings import ReloadedConfig
from queueber.server.net.certificates import Certificates

CERTIFICATES = frozenset({"tls-certificate", "tls-key", "tls-client-ca", "tls-client-name"})
"""The options that are read again where there is TLS."""

LEVEL = "log-level"
"""The one that is read again where the log is the server's own."""


@define(eq=False)
class ConfigReloader:
    """Takes over new certificates and another level of the log; everything else stays as it was started with."""

    _again: Callable[[], ReloadedConfig]
    """Gives the options as they are in their places now, or raises."""

    _certificates: Certificates | None
    _log: Log | None
    log = Logger()

    def reload(self) -> None:
        """Do so; what cannot be used is told, and what was in force stays."""
        done: list[str] = []
        taken: set[str] = set()
        try:
            found = self._again()
            if self._certificates is not None and found.settings.tls is not None:
                self._certificates.load(found.settings.tls)
                done.append("certificates")
                taken |= CERTIFICATES
        except QueueberError as why:
            self.log.error(  # noqa: TRY400  (a traceback tells an operator nothing about a file)
                "Not reloaded: {why}", why="; ".join(str(why).splitlines())
            )
            return
        if self._log is not None:
            self._log.set_level(found.settings.log_level)
            done.append(f"log level {found.settings.log_level}")
            taken.add(LEVEL)
        self.log.info("Reloaded: {done}", done=" and ".join(done) or "nothing, without TLS and a log of its own")
        left = [f"{name} ({place})" for name, place in found.changed.items() if name not in taken]
        if left:
            self.log.warn("Changed, and not taken over without a restart: {left}", left=", ".join(left))


def on_signals(reactor: Any, numbers: Sequence[signal.Signals], call: Callable[[], None]) -> Callable[[], None]:  # noqa: ANN401
    """
    Call *call* in the reactor's thread for each signal of *numbers*.

    Returns:
        What puts back how it was before.
    """
    before = [(number, signal.signal(number, lambda *_: reactor.callFromThread(call))) for number in numbers]

    def put_back() -> None:
        for number, handler in before:
            signal.signal(number, handler)

    return put_back
