"""Reload on SIGHUP the options that can change at run time."""

import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from queueber.errors import QueueberError
from queueber.server.admin.console.access import PasswordFile
from queueber.server.app.logs import Log
from queueber.server.app.startup import warn_of_plaintext
from queueber.server.config.settings import Settings
from queueber.server.net.certificates import Certificates

CERTIFICATES = frozenset({"tls-certificate", "tls-key", "tls-client-ca", "tls-client-name"})
"""The options that are reloaded if the server has TLS."""

LEVEL = "log-level"
"""The option that is reloaded if the log is the server's own."""


@define(eq=False)
class ConfigReloader:
    """Applies new certificates and a new log level.  Other changes need a restart."""

    _read: Callable[[], tuple[Settings, Mapping[str, str]]]
    """Read the options again, as `Options.reload` does."""

    _certificates: Certificates | None
    _log: Log | None
    _plaintext: Sequence[IListeningPort]
    """The ports without TLS."""

    _password_file: PasswordFile | None
    """The console's password file, if it has one."""

    log = Logger()

    def reload(self) -> None:
        """Reload.  On an error, log it and keep the current configuration."""
        done: list[str] = []
        applied: set[str] = set()
        try:
            settings, changed = self._read()
            if self._certificates is not None and settings.tls is not None:
                demanded = self._certificates.files.client_ca is not None
                self._certificates.load(settings.tls)
                if settings.tls.client_ca is not None and not demanded:
                    warn_of_plaintext(self._plaintext, self.log)
                done.append("certificates")
                applied |= CERTIFICATES
        except QueueberError as why:
            self.log.error(  # noqa: TRY400  (a traceback does not help an operator with a file)
                "Not reloaded: {why}", why="; ".join(str(why).splitlines())
            )
            return
        if self._log is not None:
            self._log.set_level(settings.log_level)
            done.append(f"log level {settings.log_level}")
            applied.add(LEVEL)
        self.log.info("Reloaded: {done}", done=" and ".join(done) or "nothing, without TLS and a log of its own")
        if self._password_file is not None and not self._password_file.is_in_reach:
            self.log.info(
                "The password of the console is that of the start: {path} belongs to the user before --uid, or is"
                " outside of --chroot",
                path=self._password_file.path,
            )
        left = [f"{name} ({place})" for name, place in changed.items() if name not in applied]
        if left:
            self.log.warn("Changed, and not taken over without a restart: {left}", left=", ".join(left))


def on_signals(reactor: Any, numbers: Sequence[signal.Signals], call: Callable[[], None]) -> Callable[[], None]:  # noqa: ANN401
    """
    Call *call* in the reactor's thread for each signal of *numbers*.

    Returns:
        A function that restores the previous handlers.
    """
    previous = [(number, signal.signal(number, lambda *_: reactor.callFromThread(call))) for number in numbers]

    def restore() -> None:
        for number, handler in previous:
            signal.signal(number, handler)

    return restore
