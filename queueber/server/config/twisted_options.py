"""The options as twistd and twist know them: the command line of the service."""

import os
import re
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from twisted.python import usage

from queueber import __version__
from queueber.server.app.daemonize import unplaced_pid_file
from queueber.server.app.logs import log_refusal
from queueber.server.app.reload import ReloadedConfig
from queueber.server.config.argv import COMPLETION, readable
from queueber.server.config.settings import OPTIONS, ConflictingOptions, Settings, settings_from
from queueber.server.config.sources import (
    COMMAND_LINE,
    DEFAULT,
    EX_CONFIG,
    EX_USAGE,
    Setting,
    Wrong,
    gather,
    spelling,
    unknown_variables,
)
from queueber.server.config.spec import Option


def _row(option: Option) -> list[object]:
    """What `optParameters` wants.  The text is kept as it is: all texts are read together."""

    def keep(value: str) -> str:
        return value

    # Not with a capital: what is copied from here is a value.
    keep.coerceDoc = option.accepts and f"May be: {option.accepts}"  # type: ignore[attr-defined]
    return [option.name, option.short, None, f"{option.says} [default: {option.default_text}]", keep]


def _repeated(option: Option) -> Callable[["Options", str], None]:
    def take(self: "Options", value: str) -> None:
        self.repeated.setdefault(option.name, []).append(value)

    take.__doc__ = f"{option.says}: {option.accepts}.  [default: {option.default_text}]."
    return take


class Options(usage.Options):
    """Options of `twistd queueber` and `twist queueber`."""

    synopsis = "[options]"
    longdesc = (
        "A durable work-queue server, spoken to in Cap'n Proto RPC.  Each option may also stand in a file (--config) "
        "or in the environment (QUEUEBER_DATA_DIR for --data-dir, and so on); the command line is stronger than the "
        "environment, and that than the file.  "
        "Exit statuses: 64 wrong options, 74 disk, lock or port, 78 wrong configuration."
    )

    optParameters: ClassVar = [_row(option) for option in OPTIONS if not option.flag and not option.many]
    optFlags: ClassVar = [[option.name, option.short, option.says] for option in OPTIONS if option.flag]

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self.repeated: dict[str, list[str]] = {}
        self._unknown: list[str] = []
        self._environment = environment
        self._directory: Path | None = None
        self._file: str | None = None
        self.effective: dict[str, Setting] = {}
        """Every option's value and where it came from, once the command line was parsed."""

        super().__init__()  # type: ignore[no-untyped-call]

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"queueber {__version__}")  # noqa: T201
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Take the command line's *options*; wrong ones end the process with a line each and the status for that."""
        if self.parent is not None and (complaint := unplaced_pid_file(self.parent)):
            end_with([complaint], EX_USAGE, self.parent)
        words = sys.argv[1:] if options is None else list(options)
        if COMPLETION not in words:
            known: Any = self
            words, self._unknown = readable(words, known.shortOpt, known.longOpt)
        try:
            super().parseOptions(words)  # type: ignore[no-untyped-call]
        except usage.UsageError as why:
            # Left to twistd, they would end it with 1, which says nothing; twist would print the whole help as well.
            end_with([str(why)], EX_USAGE, self.parent)
        except Wrong as why:
            end_with(str(why).splitlines(), why.status, self.parent)

    def postOptions(self) -> None:
        """Put together what came from where, and check it."""
        arguments: dict[str, list[str]] = dict(self.repeated)
        for option in OPTIONS:
            if option.flag and self[option.name]:
                arguments[option.name] = ["yes"]
            elif not option.flag and not option.many and self[option.name] is not None:
                arguments[option.name] = [self[option.name]]
        self._arguments = arguments
        with suppress(OSError):
            self._directory = Path.cwd()
        self.effective, self._settings = self._resolved()

    def again(self) -> ReloadedConfig:
        """
        The settings as file and environment have them now, with the command line as it was.

        Raises:
            Wrong: naming all that is wrong.
        """
        path = self._file or self.effective["config"].value
        if path and _is_special(path):
            # To read a pipe would be to wait for its writer.
            raise Wrong([f"{path} is no regular file, and cannot be read a second time"], status=EX_CONFIG)
        effective, settings = self._resolved()
        changed = {
            name: setting.origin for name, setting in effective.items() if setting.value != self.effective[name].value
        }
        return ReloadedConfig(settings, changed)

    def anchor(self, root: str | None) -> None:
        """Read the file by an absolute path from now on: twistd changes the directory, and its root to *root*."""
        path = self.effective["config"].value
        if not path or self._directory is None:
            return
        path = str(self._directory / path)
        if root is not None and Path(path).resolve().is_relative_to(root):
            path = f"/{Path(path).resolve().relative_to(root)}"
        self._file = path

    def given(self, *names: str) -> list[str]:
        """Those of *names* that somebody has chosen, wherever that was."""
        return [name for name in names if self.effective[name].origin != DEFAULT]

    def _resolved(self) -> tuple[dict[str, Setting], Settings]:
        found = gather(OPTIONS, arguments=self._arguments, environment=self._environment, file=self._file)
        for complaint in self._unknown:
            found.complain(COMMAND_LINE, complaint)
        effective, settings = found.settings, None
        try:
            settings = settings_from(effective)
        except ConflictingOptions as why:
            for names, reason in why.complaints:
                # What cannot be read may be what would have resolved it.
                if not found.unread and found.wrong.isdisjoint(names):
                    found.complain(*_placed(effective, names, reason))
        found.refuse()
        assert settings is not None, "there is no contradiction that is not told"
        return effective, settings

    @property
    def settings(self) -> Settings:
        """All of them, as values."""
        return self._settings

    @property
    def unknown_variables(self) -> dict[str, str]:
        """Environment variables that look like options of ours and are none, each with what might have been meant."""
        return unknown_variables(OPTIONS, self._environment)


for _option in OPTIONS:
    if _option.many:
        # Twisted knows options that may be repeated by methods of these names.
        for _name in filter(None, (_option.name, _option.short)):
            setattr(Options, f"opt_{_name.replace('-', '_')}", _repeated(_option))


def _placed(effective: Mapping[str, Setting], names: Sequence[str], reason: str) -> list[str]:
    """
    The places where the options were given, and after the first of them *reason* with their names as spelled there.

    An option that has its default is spelled as the first that was given, because it would be given there, too.
    """
    given = [effective[name].origin for name in names if effective[name].origin not in (COMMAND_LINE, DEFAULT)]
    origins = given or [COMMAND_LINE]
    for name in names:
        setting = effective[name]
        default = setting.origin == DEFAULT
        spelled = spelling(setting.option, origins[0] if default else setting.origin)
        reason = re.sub(rf"--{name}(?![\w-])", spelled, reason)
        if default:
            reason = re.sub(rf"({re.escape(spelled)} \([^)]*)\)", r"\1, the default)", reason)
    return [origins[0], reason, *origins[1:]]


def _is_special(path: str) -> bool:
    try:
        return not stat.S_ISREG(Path(path).stat().st_mode)
    except OSError:
        return False


def end_with(complaints: Sequence[str], status: int, parent: Any = None) -> NoReturn:  # noqa: ANN401
    """End the process with *status*, after a line for each of *complaints*; *parent* is twistd's or twist's options."""
    if parent is not None:
        log_refusal(parent, complaints)
    for complaint in complaints:
        sys.stderr.write(f"queueber: {complaint}\n")
    raise SystemExit(status)
