"""SIGHUP: read again what may change while the server runs."""

import signal
from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.logger import Logger

from queueber.errors import QueueberError
from queueber.server.certificates import Certificates
from queueber.server.logs import Log
from queueber.server.settings import Settings


@define(eq=False)
class Reloader:
    """Takes over new certificates and another level of the log; everything else stays as it was started with."""

    _settings: Callable[[], Settings]
    """Gives the options as they are in their places now, or raises."""

    _certificates: Certificates | None
    _log: Log | None
    log = Logger()

    def reload(self) -> None:
        """Do so; what cannot be used is told, and what was in force stays."""
        try:
            settings = self._settings()
            if self._certificates is not None and settings.tls is not None:
                self._certificates.load(settings.tls)
        except QueueberError as why:
            self.log.error(  # noqa: TRY400  (a traceback tells an operator nothing about a file)
                "Not reloaded: {why}", why="; ".join(str(why).splitlines())
            )
            return
        if self._log is not None:
            self._log.set_level(settings.log_level)
        self.log.info("Reloaded: certificates and log level {name}", name=settings.log_level)


def on_hangup(reactor: Any, reload: Callable[[], None]) -> Callable[[], None]:  # noqa: ANN401
    """
    Call *reload* in the reactor's thread for each SIGHUP.

    Returns:
        What puts back how it was before.
    """
    before = signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(reload))

    def put_back() -> None:
        signal.signal(signal.SIGHUP, before)

    return put_back
