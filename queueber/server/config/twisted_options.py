"""The command line of the service, for twistd and twist."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from getopt import GetoptError, getopt
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from twisted.python import usage

from queueber import __version__
from queueber.server.config.settings import OPTIONS, Settings, suggestion
from queueber.server.config.sources import (
    COMMAND_LINE,
    DEFAULT,
    ConfigError,
    OptionValue,
    ReloadedConfig,
    read_environment,
    resolve,
)
from queueber.server.config.spec import FLAG, Option


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

    optParameters: ClassVar = [_row(option) for option in OPTIONS if option.kind is not FLAG]
    optFlags: ClassVar = [[option.name, option.short, option.help] for option in OPTIONS if option.kind is FLAG]

    effective: Mapping[str, OptionValue]
    """The value and the source of every option, once the command line is parsed."""

    settings: Settings
    """The checked configuration, once the command line is parsed."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Take the options that are not on the command line from *environment*."""
        self._environment = environment
        self._arguments: Mapping[str, Sequence[str]] = {}
        self._unknown: Sequence[str] = ()
        self._directory: Path | None = None
        self._file: str | None = None
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def unknown_variables(self) -> Mapping[str, str]:
        """The variables that look like options but are not, each with a hint or an empty text."""
        return read_environment(self._environment)[1]

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"queueber {__version__}")  # noqa: T201
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse *options*.  If any option is invalid, exit with a line on standard error for each mistake."""
        words = sys.argv[1:] if options is None else list(options)
        if "--_shell-completion" in words:
            # Twisted completes them for a shell.
            super().parseOptions(words)  # type: ignore[no-untyped-call]
        self._arguments, self._unknown = self._read_arguments(words)
        if "help" in self._arguments:
            self.opt_help()  # type: ignore[no-untyped-call]
        if "version" in self._arguments:
            self.opt_version()
        with suppress(OSError):
            self._directory = Path.cwd()
        try:
            self.effective, self.settings = self._load(at_start=True)
        except ConfigError as why:
            # Twisted would exit with status 1, and twist would print the whole help as well.
            self.reject(str(why).splitlines(), why.status)

    def reject(self, complaints: Sequence[str], status: int) -> NoReturn:
        """Print *complaints* on standard error, and exit with *status*."""
        for complaint in complaints:
            sys.stderr.write(f"queueber: {complaint}\n")
        raise SystemExit(status)

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
            raise ConfigError([f"{path} is not a regular file, and cannot be read a second time"], status=os.EX_CONFIG)
        effective, settings = self._load(at_start=False)
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
        return [name for name in names if self.effective[name].source != DEFAULT]

    def _load(self, *, at_start: bool) -> tuple[Mapping[str, OptionValue], Settings]:
        found = resolve(self._arguments, self._environment, file=self._file, unknown=self._unknown)
        return found.values, found.checked(at_start=at_start)

    def _read_arguments(self, words: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
        """Return the texts of each option, by its name, and a complaint for each word that Twisted would end at."""
        parser: Any = self
        given: dict[str, list[str]] = {}
        complaints: list[str] = []
        left = list(words)
        while left:
            taken = len(left) if left[0] == "--" else 1
            try:
                options, arguments = getopt(left[:taken], parser.shortOpt, parser.longOpt)
            except GetoptError as why:
                options, arguments = [], []
                needs_value = "requires argument" in why.msg
                # After an option that is not known, a word is probably its value.
                if left[1:] and (needs_value or not ("=" in left[0] or left[1].startswith("-"))):
                    taken = 2
                if left[1:] and needs_value:
                    options, _ = getopt(left[:taken], parser.shortOpt, parser.longOpt)
                elif len(why.opt) > 1 and "not recognized" in why.msg:
                    complaints.append(f"--{why.opt} is not an option{suggestion(COMMAND_LINE.spell, why.opt)}")
                else:
                    complaints.append(why.msg)
            for typed, value in options:
                name = parser.synonyms[typed.lstrip("-")]
                given.setdefault(name, []).append(value if f"{name}=" in parser.longOpt else "yes")
            complaints += [f"unexpected argument {each!r}: everything is an option" for each in arguments]
            del left[:taken]
        return given, complaints
