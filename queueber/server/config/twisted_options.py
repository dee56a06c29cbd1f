"""The command line of the service, for twistd and twist."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from getopt import GetoptError, getopt
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from twisted.python import usage

from queueber import __version__
from queueber.server.config.settings import OPTIONS, Settings, similar_option
from queueber.server.config.sources import (
    DEFAULT,
    EX_CONFIG,
    EX_USAGE,
    ConfigError,
    ReloadedConfig,
    Setting,
    load,
    unknown_variables,
)
from queueber.server.config.spec import Option

_COMPLETION = "--_shell-completion"
"""The argument with which a shell asks Twisted for completions."""


def _row(option: Option) -> list[object]:
    """Return an entry of `optParameters`, which is used for the help and for getopt."""
    accepts = option.kind.accepts and f". May be: {option.kind.accepts}"
    return [option.name, option.short, None, f"{option.help} [default: {option.default_text}]{accepts}"]


class Options(usage.Options):
    """Options of `twistd queueber` and `twist queueber`."""

    synopsis = "[options]"
    longdesc = (
        "A durable work-queue server with a Cap'n Proto RPC interface.  Each option may also be set in a file "
        "(--config) or in the environment (QUEUEBER_DATA_DIR for --data-dir, and so on).  The command line takes "
        "precedence over the environment, and the environment over the file.  "
        "Plain numbers are bytes or milliseconds; other units follow the number, as in 16MiB and 30s.  "
        "Exit statuses: 64 wrong options, 74 disk, lock or port, 78 wrong configuration."
    )

    optParameters: ClassVar = [_row(option) for option in OPTIONS if not option.flag]
    optFlags: ClassVar = [[option.name, option.short, option.help] for option in OPTIONS if option.flag]

    settings: Settings
    """The checked configuration, once the command line is parsed."""

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

        self.unknown_variables = unknown_variables(environment)
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
            self.effective, self.settings = self._load()
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
        # pathlib would raise PermissionError.
        if path is not None and os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113
            # Reading a pipe would block until its writer closes it.
            raise ConfigError([f"{path} is not a regular file, and cannot be read a second time"], status=EX_CONFIG)
        effective, settings = self._load()
        changed = {name: new.origin for name, new in effective.items() if new.value != self.effective[name].value}
        return ReloadedConfig(settings, changed)

    def make_config_path_absolute(self, root: str | None) -> None:
        """Keep the file's path valid after twistd has changed the directory, and the root to *root*."""
        path = self.effective["config"].value
        if path is None or self._directory is None:
            return
        absolute = self._directory / path
        if root is not None and absolute.resolve().is_relative_to(root):
            absolute = "/" / absolute.resolve().relative_to(root)
        self._file = str(absolute)

    def explicit(self, *names: str) -> list[str]:
        """Return those of *names* that are set in any source."""
        return [name for name in names if self.effective[name].origin != DEFAULT]

    def _load(self) -> tuple[dict[str, Setting], Settings]:
        return load(self._arguments, self._environment, file=self._file, unknown=self._unknown)


_TypedOptions = list[tuple[str, str]]
"""Options as they were typed, with their values."""


def split_unknown(words: Sequence[str], short: str, long: Sequence[str]) -> tuple[_TypedOptions, list[str]]:
    """
    Return the options in *words* with their values, and a complaint for each other word.

    Twisted's own parser ends at the first unknown word.  *short* and *long* are the options in getopt's form.
    """
    given: _TypedOptions = []
    complaints = []
    left = list(words)
    while left:
        try:
            options, arguments = _take_option(left, short, long)
        except GetoptError as why:
            complaint = why.msg
            if len(why.opt) > 1 and "not recognized" in why.msg:
                similar = similar_option(why.opt)
                complaint = f"--{why.opt} is not an option{f'; did you mean --{similar.name}?' if similar else ''}"
            complaints.append(complaint)
        else:
            given += options
            complaints += [f"unexpected argument {each!r}: everything is an option" for each in arguments]
    return given, complaints


def _take_option(left: list[str], short: str, long: Sequence[str]) -> tuple[_TypedOptions, list[str]]:
    """Remove the first option with its value from *left*.  Return it, or the words that are not options."""
    word = left.pop(0)
    if word == "--":
        arguments, left[:] = list(left), []
        return [], arguments
    try:
        return getopt([word], short, long)
    except GetoptError as why:
        if left and "requires argument" in why.msg:
            return getopt([word, left.pop(0)], short, long)
        if left and "=" not in word and not left[0].startswith("-"):
            # Probably the value of the option that is not known.
            del left[0]
        raise


def exit_with(complaints: Sequence[str], status: int) -> NoReturn:
    """Print *complaints* on standard error, and exit with *status*."""
    for complaint in complaints:
        sys.stderr.write(f"queueber: {complaint}\n")
    raise SystemExit(status)
