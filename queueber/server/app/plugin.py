"""`Options` and `makeService`, the interface of a service maker for twistd and twist."""

import os
import signal
from collections.abc import Sequence
from typing import NoReturn

from twisted.application.service import IService

from queueber.server.app.daemonize import Launcher, check_pid_file, import_for_chroot
from queueber.server.app.entry import SIGNALS
from queueber.server.app.logs import Log, log_failed_start, open_log
from queueber.server.app.reload import on_signals
from queueber.server.app.service import QueueberService
from queueber.server.config import twisted_options
from queueber.server.core.clock import use_monotonic_time

__all__ = ["Options", "makeService"]


class Options(twisted_options.Options):
    """The options of the service, checked together with those of twistd or twist, in whose log mistakes appear."""

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse *options*, after a check of those of twistd or twist."""
        if self.parent is not None and (complaint := check_pid_file(self.parent)):
            self.reject([complaint], os.EX_USAGE)
        super().parseOptions(options)

    def reject(self, complaints: Sequence[str], status: int) -> NoReturn:
        """Log *complaints* if twistd or twist runs the service, print them, and exit with *status*."""
        if self.parent is not None:
            log_failed_start(self.parent, complaints)
        super().reject(complaints, status)

    def open_log(self) -> Log | None:
        """Return the log as `logs.open_log` does.  If its file cannot be opened, print the reason and exit."""
        try:
            return open_log(self.parent, self.settings.log_format)
        except OSError as why:
            super().reject([str(why)], os.EX_IOERR)


def makeService(options: Options) -> IService:
    """Return the service for twistd or twist.  No file is opened before it is started, except the log."""
    from twisted.internet import reactor  # noqa: PLC0415, TID251  (the one place; importing it earlier installs one)

    if not __debug__:
        # Assertions find bugs before their effects are on disk, and `check` consists of them.
        options.reject(["Python runs without assertions (-O or PYTHONOPTIMIZE), which a server needs"], os.EX_CONFIG)
    SIGNALS.hold()
    use_monotonic_time(reactor)
    for name, hint in options.effective.unknown_variables.items():
        QueueberService.log.warn("{name} in the environment is not an option{hint}", name=name, hint=hint)
    launcher = Launcher(options.parent) if options.parent is not None else Launcher()
    complaints = launcher.complaints()
    if unusable := launcher.leave_unusable_directory(str(options.settings.data_dir)):
        complaints.append(unusable)
    if complaints:
        options.reject(complaints, os.EX_USAGE)
    log = options.open_log()
    if log is not None:
        on_signals(reactor, (signal.SIGUSR1,), log.rotate)
        log.set_level(options.settings.log_level)
    elif options.parent is not None and (idle := options.explicit("log-format", "log-level")):
        QueueberService.log.warn(
            "{options} without effect: --syslog and --logger have a format and a level of their own",
            options=" and ".join(f"--{name}" for name in idle),
        )
    if options.parent is not None and log is None and signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:
        on_signals(reactor, (signal.SIGUSR1,), _cannot_rotate)
    options.make_config_path_absolute(launcher.root)
    if launcher.root is not None:
        import_for_chroot()
    launcher.expect_fork()
    service = QueueberService(reactor, options.settings, reload=options.reload, log=log, launcher=launcher)
    service.preload()
    return service


def _cannot_rotate() -> None:
    QueueberService.log.warn("Not rotated: with --syslog and --logger the log is not the server's own")
