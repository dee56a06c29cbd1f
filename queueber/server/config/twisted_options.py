"""The command line of the service, for twistd and twist."""

import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from getopt import GetoptError, gnu_getopt
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from twisted.python import usage

from queueber import __version__
from queueber.server.config.options import OPTIONS
from queueber.server.config.settings import ReloadedConfig, Settings, load
from queueber.server.config.sources import DEFAULT, EX_CONFIG, EX_USAGE, ConfigError, Setting, unknown_variables
from queueber.server.config.spec import Option, suggest

_COMPLETION = "--_shell-completion"
"""The argument with which a shell asks Twisted for completions."""


def _row(option: Option) -> list[object]:
    """Return an entry of `optParameters`, which is used for the help and for getopt."""

    def keep(value: str) -> str:
        return value

    # Not capitalised: users copy values from here.
    keep.coerceDoc = option.accepts and f"May be: {option.accepts}"  # type: ignore[attr-defined]
    return [option.name, option.short, None, f"{option.help} [default: {option.default_text}]", keep]


class Options(usage.Options):
    """Options of `twistd queueber` and `twist queueber`."""

    synopsis = "[options]"
    longdesc = (
        "A durable work-queue server with a Cap'n Proto RPC interface.  Each option may also be set in a file "
        "(--config) or in the environment (QUEUEBER_DATA_DIR for --data-dir, and so on).  The command line takes "
        "precedence over the environment, and the environment over the file.  "
        "Exit statuses: 64 wrong options, 74 disk, lock or port, 78 wrong configuration."
    )

    optParameters: ClassVar = [_row(option) for option in OPTIONS if not option.flag]
    optFlags: ClassVar = [[option.name, option.short, option.help] for option in OPTIONS if option.flag]

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        check_parent: Callable[[Mapping[str, Any]], str | None] = lambda _: None,
        log_failed_start: Callable[[Mapping[str, Any], Sequence[str]], None] = lambda *_: None,
    ) -> None:
        """
        Take the options that are not on the command line from *environment*.

        *check_parent* returns a complaint about the options of twistd or twist, or None.  *log_failed_start* is called
        with those options and all complaints, which are also printed.
        """
        self._environment = environment
        self._check_parent = check_parent
        self._log_failed_start = log_failed_start
        self._arguments: dict[str, list[str]] = {}
        self._unknown: list[str] = []
        self._directory: Path | None = None
        self._file: str | None = None
        self.effective: dict[str, Setting] = {}
        """The value and the source of every option, once the command line is parsed."""

        super().__init__()  # type: ignore[no-untyped-call]

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"queueber {__version__}")  # noqa: T201
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse *options*.  If any option is invalid, exit with a line on standard error for each mistake."""
        if self.parent is not None and (complaint := self._check_parent(self.parent)):
            self.reject([complaint], EX_USAGE)
        words = sys.argv[1:] if options is None else list(options)
        if _COMPLETION in words:
            super().parseOptions(words)  # type: ignore[no-untyped-call]
        parser: Any = self
        given, self._unknown = split_unknown(words, parser.shortOpt, parser.longOpt)
        for typed, value in given:
            name = parser.synonyms[typed.lstrip("-")]
            if name in ("help", "version"):
                parser.opt_help() if name == "help" else self.opt_version()
            self._arguments.setdefault(name, []).append(value if f"{name}=" in parser.longOpt else "yes")
        with suppress(OSError):
            self._directory = Path.cwd()
        try:
            self.effective, self._settings = self._load()
        except ConfigError as why:
            # Twisted would exit with status 1, and twist would print the whole help as well.
            self.reject(str(why).splitlines(), why.status)

    def reject(self, complaints: Sequence[str], status: int) -> NoReturn:
        """Log *complaints* if twistd or twist runs the service, print them, and exit with *status*."""
        if self.parent is not None:
            self._log_failed_start(self.parent, complaints)
        exit_with(complaints, status)

    def reload(self) -> ReloadedConfig:
        """
        Read the file and the environment again.  The command line stays the same.

        Raises:
            ConfigError: names all mistakes.
        """
        path = self._file or self.effective["config"].value
        if path and _is_special(path):
            # Reading a pipe would block until its writer closes it.
            raise ConfigError([f"{path} is not a regular file, and cannot be read a second time"], status=EX_CONFIG)
        effective, settings = self._load()
        changed = {name: new.origin for name, new in effective.items() if new.value != self.effective[name].value}
        return ReloadedConfig(settings, changed)

    def make_config_path_absolute(self, root: str | None) -> None:
        """Keep the file's path valid after twistd has changed the directory, and the root to *root*."""
        path = self.effective["config"].value
        if not path or self._directory is None:
            return
        path = str(self._directory / path)
        if root is not None and Path(path).resolve().is_relative_to(root):
            path = f"/{Path(path).resolve().relative_to(root)}"
        self._file = path

    def explicit(self, *names: str) -> list[str]:
        """Return those of *names* that are set in any source."""
        return [name for name in names if self.effective[name].origin != DEFAULT]

    def _load(self) -> tuple[dict[str, Setting], Settings]:
        return load(self._arguments, self._environment, file=self._file, unknown=self._unknown)

    @property
    def settings(self) -> Settings:
        """Return the checked configuration."""
        return self._settings

    @property
    def unknown_variables(self) -> dict[str, str]:
        """Return the environment variables that look like options but are not, each with a hint."""
        return unknown_variables(OPTIONS, self._environment)


def split_unknown(words: Sequence[str], short: str, long: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """
    Split *words* into the known options with their values, and a complaint for each other word.

    Twisted's own parser ends at the first unknown word.  *short* and *long* are the options in getopt's form.
    """
    left, complaints = list(words), []
    while True:
        try:
            # Unlike `getopt`, this does not end at the first word that is not an option.
            options, arguments = gnu_getopt(left, short, list(long))
        except GetoptError as why:
            complaint = why.msg
            if len(why.opt) > 1 and "not recognized" in why.msg:
                hint = suggest(f"--{why.opt}", {f"--{each.rstrip('=')}": f"--{each.rstrip('=')}" for each in long})
                complaint = f"--{why.opt} is not an option{hint}"
            complaints.append(complaint)
            _drop(left, why.opt)
        else:
            return options, complaints + [
                f"unexpected argument {each!r}: everything is an option" for each in arguments
            ]


def _drop(words: list[str], name: str) -> None:
    """Remove the option *name* from *words*, and the next word if it looks like the option's value."""
    for at, word in enumerate(words):
        typed, equals, _ = word.partition("=")
        if typed.startswith("--"):
            # getopt reports the full name of an abbreviated option.
            found = typed != "--" and f"--{name}".startswith(typed)
        else:
            found = len(name) == 1 and typed.startswith("-") and name in typed
        if found:
            follows = words[at + 1 : at + 2]
            has_value = not equals and follows and not follows[0].startswith("-")
            del words[at : at + (2 if has_value else 1)]
            return
    raise AssertionError(f"getopt complains of {name!r}, which is not there")


def _is_special(path: str) -> bool:
    try:
        return not stat.S_ISREG(Path(path).stat().st_mode)
    except OSError:
        return False


def exit_with(complaints: Sequence[str], status: int) -> NoReturn:
    """Print *complaints* on standard error, and exit with *status*."""
    for complaint in complaints:
        sys.stderr.write(f"queueber: {complaint}\n")
    raise SystemExit(status)
