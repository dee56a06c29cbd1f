"""
Format the log: text for people, or one JSON object a line for programs.

``docs/operating.md`` describes the levels.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    formatEventAsClassicLogText,
    textFileLogObserver,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer

from queueber.errors import one_line
from queueber.server.app.log_output import Destination, LogOutput, NotRotated, RotatedFile, descriptor_of
from queueber.units import counted

# The keys that Twisted adds to the logged fields of an event.
_OWN = frozenset({"log_time", "log_level", "log_namespace", "log_format", "log_logger", "log_source", "log_failure"})
_OLD = frozenset({"time", "system", "message", "isError", "format", "failure", "why", "log_system", "log_flattened"})


FINAL = "final"
"""The field that marks the last line of a process, which gives the reason for its end."""


def json_line(event: LogEvent) -> str:
    """Return *event* as a JSON object with time, level, namespace, message, fields, and any exception."""
    level = event.get("log_level")
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(event["log_time"], UTC).isoformat(timespec="milliseconds"),
        "level": level.name if level is not None else "info",
        "namespace": event.get("log_namespace"),
        "message": formatEvent(event),
    }
    fields = {key: value for key, value in event.items() if key not in _OWN and key not in _OLD and key != FINAL}
    if fields:
        line["fields"] = fields
    failure = event.get("log_failure")
    if failure is not None:
        line["exception"] = failure.getTraceback()
    return json.dumps(line, default=str, ensure_ascii=False) + "\n"


def text_line(event: LogEvent) -> str | None:
    """Return *event* in Twisted's format.  A message of the server stays on one line, whatever a path contains."""
    if str(event.get("log_namespace")).startswith("queueber."):
        message = one_line(formatEvent(event))
        event = {key: value for key, value in event.items() if key != "log_flattened"}
        event |= {"log_format": "{one_line}", "one_line": message}
    return formatEventAsClassicLogText(event)


MakeObserver = Callable[[Any], ILogObserver]
"""Return an observer that writes each event to a text file."""

FORMATS: dict[str, MakeObserver] = {
    "text": lambda out: FileLogObserver(out, text_line),
    "json": lambda out: FileLogObserver(out, json_line),
}


@implementer(ILogObserver)
@define(eq=False)
class Log:
    """
    The log observer for twistd or twist, whose level can change at run time.

    For an event with the field `FINAL` the call waits until the line is written, up to `FLUSH_SECONDS`.  After that
    only errors are logged, so that the last line gives the reason for the end of the process.
    """

    output: LogOutput
    _observer: ILogObserver
    _predicate: LogLevelFilterPredicate = field(factory=LogLevelFilterPredicate, init=False)
    _filter: ILogObserver = field(init=False)
    _ended: bool = field(default=False, init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Create the filter for the level."""
        self._filter = FilteringLogObserver(self._observer, [self._predicate])

    @classmethod
    def to(cls, destination: Destination, make: MakeObserver) -> "Log":
        """Return a log with the format *make* that is written to *destination*."""
        if make is FORMATS["json"]:
            destination.encoding = "utf-8"
        output = LogOutput(destination, partial(_unwritten, make))
        return cls(output, make(output))

    def set_level(self, name: str) -> None:
        """Log events of the level *name* and above."""
        self._predicate.setLogLevelForNamespace("", LogLevel.levelWithName(name))

    def __call__(self, event: LogEvent) -> None:
        """Write *event*, if its level is high enough."""
        final = event.get(FINAL, False)
        if self._ended and not final and (event.get("log_level") or LogLevel.info) < LogLevel.error:
            return
        if final:
            # At any level: exit statuses refer to this line.
            self._observer(event)
        else:
            self._filter(event)
        if final or self._ended:
            self._ended = True
            self.output.drain()

    def begin(self, root: str | None) -> None:
        """Start the writing thread, after the last fork.  *root* is the directory of --chroot, or None."""
        destination = self.output.destination
        if root is not None and isinstance(destination, RotatedFile):
            destination.enter_chroot(root)
        self.output.start()

    def rotate(self) -> None:
        """Begin a new file after the present lines, and log the outcome."""
        self.output.call(self._rotate)

    def _rotate(self) -> None:
        try:
            done = self.output.destination.rotate()
        except NotRotated as why:
            self.log.warn("Not rotated: {why}", why=str(why))
        else:
            self.log.info("Rotated: {done}", done=done)


def _unwritten(make: MakeObserver, lines: int, why: str) -> str:
    """Return the line that stands for *lines* missing ones."""
    text = StringIO()
    make(text)(
        {
            "log_format": "{lines} of the log {are} missing here: {why}",
            "log_level": LogLevel.warn,
            "log_namespace": __name__,
            "log_time": datetime.now(UTC).timestamp(),
            "lines": counted(lines, "line"),
            "are": "is" if lines == 1 else "are",
            "why": why,
        }
    )
    return text.getvalue()


def open_log(parent: Any, log_format: str) -> Log | None:  # noqa: ANN401  (twistd's and twist's options)
    """
    Return the log for a server run by twistd or twist with the options *parent*.

    For twist it is installed here; for twistd the caller sets it as a component of the application.  None if the server
    is run by another program, or with --syslog or --logger.

    Raises:
        OSError: the file cannot be opened.  The text names the option.
    """
    if parent is None:
        return None
    if "fileLogObserverFactory" in parent:
        make = FORMATS.get(log_format, parent["fileLogObserverFactory"])
        if make is textFileLogObserver:
            make = FORMATS["text"]
        log = Log.to(_twist_destination(parent["logFile"]), make)
        parent["fileLogObserverFactory"] = lambda _: log
        parent["logLevel"] = LogLevel.debug
        log.output.start()
        return log
    if parent.get("logger") or parent.get("syslog"):
        return None
    log = Log.to(_twistd_destination(parent), FORMATS.get(log_format, FORMATS["text"]))
    if parent.get("nodaemon"):
        log.output.start()
    return log


def log_failed_start(parent: Any, complaints: Sequence[str]) -> None:  # noqa: ANN401  (as for `open_log`)
    """
    Write the *complaints* that prevent a start to the log file in twistd's or twist's options.

    Without a log file nothing is written, because they are printed on standard error anyway.
    """
    name, file = parent.get("logfile"), parent.get("logFile")
    if file is not None and file not in (sys.stdout, sys.stderr):
        name = file.name
    if name in (None, "-"):
        return
    with suppress(OSError):
        file = LogFile.fromFullPath(name)
        log = Log.to(RotatedFile(file), FORMATS["text"])
        report = Logger(__name__, observer=log)
        for complaint in complaints:
            report.critical("Cannot start: {why}", why=complaint)
        file.close()


def _twist_destination(file: Any) -> Destination:  # noqa: ANN401
    if file is None or file in (sys.stdout, sys.stderr):
        file = file or sys.stdout
        return descriptor_of(file, "standard output" if file is sys.stdout else "standard error")
    # twist does not rotate by size.
    path = Path(file.name).absolute()
    file.close()
    return RotatedFile(LogFile(path.name, str(path.parent), rotateLength=None))


def _twistd_destination(parent: Any) -> Destination:  # noqa: ANN401
    name, foreground = parent.get("logfile"), parent.get("nodaemon")
    if name == "-" and not foreground:
        raise OSError("--logfile -: a server in the background has no standard output; name a file, or use --nodaemon")
    if name == "-" or (foreground and not name):
        return descriptor_of(sys.stdout, "standard output")
    name = name or "twistd.log"
    is_new = not os.path.lexists(name)
    try:
        file: Any = LogFile.fromFullPath(name)
    except OSError as why:
        raise OSError(f"--logfile {name}: {why.strerror or why}") from None
    if is_new and parent.get("uid") is not None and os.geteuid() == 0:
        # Only a file that this process has created: an existing link could point to any file.
        os.fchown(file._file.fileno(), parent["uid"], -1 if parent.get("gid") is None else parent["gid"])  # noqa: SLF001
    return RotatedFile(file)
