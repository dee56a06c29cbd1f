"""
How the log is written: text for people, or one JSON object a line for programs.

What each level asks of whoever reads it is in ``docs/operating.md``.
"""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from attrs import define, field
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    textFileLogObserver,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer

# What Twisted puts into an event beside the fields that were logged.
_OWN = frozenset({"log_time", "log_level", "log_namespace", "log_format", "log_logger", "log_source", "log_failure"})
_OLD = frozenset({"time", "system", "message", "isError", "format", "failure", "why", "log_system", "log_flattened"})


def json_line(event: LogEvent) -> str:
    """*event* as one JSON object: time, level, namespace, message, fields, and the exception if there was one."""
    level = event.get("log_level")
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(event["log_time"], UTC).isoformat(timespec="milliseconds"),
        "level": level.name if level is not None else "info",
        "namespace": event.get("log_namespace"),
        "message": formatEvent(event),
    }
    fields = {key: value for key, value in event.items() if key not in _OWN and key not in _OLD}
    if fields:
        line["fields"] = fields
    failure = event.get("log_failure")
    if failure is not None:
        line["exception"] = failure.getTraceback()
    return json.dumps(line, default=str, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[TextIO], ILogObserver]] = {
    "text": textFileLogObserver,
    "json": lambda out: FileLogObserver(out, json_line),
}


@implementer(ILogObserver)
@define(eq=False)
class Log:
    """What twistd or twist is given as the place for all events; its level can be changed while it is used."""

    _observer: ILogObserver
    _predicate: LogLevelFilterPredicate = field(factory=LogLevelFilterPredicate, init=False)
    _filter: ILogObserver = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Put the level before the place."""
        self._filter = FilteringLogObserver(self._observer, [self._predicate])

    def set_level(self, name: str) -> None:
        """Let through what is at least as grave as *name*."""
        self._predicate.setLogLevelForNamespace("", LogLevel.levelWithName(name))

    def __call__(self, event: LogEvent) -> None:
        """Write *event*, if it is grave enough."""
        self._filter(event)


def log_of(parent: Any, log_format: str) -> Log | None:  # noqa: ANN401  (twistd's and twist's options)
    """
    The log of a server started under *parent*, installed there if that is twist.

    For twistd the caller sets it as the application's component.  None when
    the service was made by something else, which then has its own.
    """
    if parent is None:
        return None
    if "fileLogObserverFactory" in parent:
        choose = FORMATS.get(log_format, parent["fileLogObserverFactory"])
        log = Log(choose(parent["logFile"]))
        parent["fileLogObserverFactory"] = lambda _: log
        parent["logLevel"] = LogLevel.debug
        return log
    if parent.get("logger") or parent.get("syslog"):
        return None
    name = parent.get("logfile") or "-"
    out: Any = sys.stdout if name == "-" else LogFile.fromFullPath(name)
    make: Callable[[TextIO], ILogObserver] = FORMATS.get(log_format, textFileLogObserver)
    return Log(make(out))
