"""The command line of the service, for twistd and twist."""

import os
import sys
from collections.abc import Mapping, Sequence
from getopt import GetoptError, getopt
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from twisted.python import usage

from queueber import __version__
from queueber.server.config.settings import OPTIONS, Settings, suggestion
from queueber.server.config.sources import COMMAND_LINE, DEFAULT, ConfigError, Resolved, resolve
from queueber.server.config.spec import Option

_LETTERS = {"listen": "l", "data-dir": "d", "workers": "w"}


def _row(option: Option) -> list[object]:
    """Return an entry of `optParameters`, which is used for the help and for getopt."""
    accepts = option.accepts and f". May be: {option.accepts}"
    help_text = f"{option.help} [default: {option.default_text}]{accepts}"
    return [option.name, _LETTERS.get(option.name), None, help_text]


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

    optParameters: ClassVar = [_row(option) for option in OPTIONS if not option.is_flag]
    optFlags: ClassVar = [[option.name, None, option.help] for option in OPTIONS if option.is_flag]

    effective: Resolved
    """The values and the sources of all options, once the command line is parsed."""

    settings: Settings
    """The checked configuration, once the command line is parsed."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Take the options that are not on the command line from *environment*."""
        self._environment = environment
        self._arguments: dict[str, list[str]] = {}
        super().__init__()  # type: ignore[no-untyped-call]

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
        self._arguments, complaints = self._read_arguments(words)
        if "help" in self._arguments:
            self.opt_help()  # type: ignore[no-untyped-call]
        if "version" in self._arguments:
            self.opt_version()
        self.effective = resolve(self._arguments, self._environment, complaints)
        try:
            self.settings = self.effective.checked()
        except ConfigError as why:
            # Twisted would exit with status 1, and twist would print the whole help as well.
            self.reject(str(why).splitlines(), why.status)

    def reject(self, complaints: Sequence[str], status: int) -> NoReturn:
        """Print *complaints* on standard error, and exit with *status*."""
        for complaint in complaints:
            sys.stderr.write(f"queueber: {complaint}\n")
        raise SystemExit(status)

    def reload(self) -> tuple[Settings, Mapping[str, str]]:
        """
        Read the file and the environment again.  The command line stays the same.

        Returns:
            The settings, and the options whose values have changed since the start, each with its source now.

        Raises:
            ConfigError: names all mistakes.
        """
        path = self.effective.values["config"]
        # pathlib would raise PermissionError.
        if path is not None and os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113
            # Reading a pipe would block until its writer closes it.
            raise ConfigError([f"{path} is not a regular file, and cannot be read a second time"], status=os.EX_CONFIG)
        found = resolve(self._arguments, self._environment)
        changed = {
            option.name: found.sources[option.name].origin(option)
            for option in OPTIONS[1:]
            if found.values[option.name] != self.effective.values[option.name]
        }
        # The console stays as it was at the start, and --uid may have put its password file out of reach.
        found.values.update({"manhole": None, "manhole-password-file": None})
        return found.checked(), changed

    def make_config_path_absolute(self, root: str | None) -> None:
        """Keep the file's path valid after twistd has changed the directory, and the root to *root*."""
        path = self.effective.values["config"]
        if path is None:
            return
        absolute = Path(path).absolute()
        if root is not None and absolute.resolve().is_relative_to(root):
            absolute = "/" / absolute.resolve().relative_to(root)
        self.effective.values["config"] = str(absolute)
        self._arguments["config"] = [str(absolute)]

    def explicit(self, *names: str) -> list[str]:
        """Return those of *names* that are set in any source."""
        return [name for name in names if self.effective.sources[name] != DEFAULT]

    def _read_arguments(self, words: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
        """Return the texts of each option, by its name, and a complaint for each word that Twisted would end at."""
        parser: Any = self
        given: dict[str, list[str]] = {}
        complaints: list[str] = []
        left = list(words)
        while left:
            taken = [left.pop(0)]
            if taken == ["--"]:
                taken, left = [*taken, *left], []
            options: list[tuple[str, str]] = []
            arguments: list[str] = []
            try:
                options, arguments = getopt(taken, parser.shortOpt, parser.longOpt)
            except GetoptError as why:
                if "requires argument" in why.msg and left:
                    options, _ = getopt([*taken, left.pop(0)], parser.shortOpt, parser.longOpt)
                elif len(why.opt) > 1 and "not recognized" in why.msg:
                    complaints.append(f"--{why.opt} is not an option{suggestion(COMMAND_LINE.spell, why.opt)}")
                else:
                    complaints.append(why.msg)
                if not options and left and not ("=" in taken[0] or left[0].startswith("-")):
                    # After an option that is not known, a word is probably its value.
                    left.pop(0)
            for typed, value in options:
                name = parser.synonyms[typed.lstrip("-")]
                given.setdefault(name, []).append(value if f"{name}=" in parser.longOpt else "yes")
            complaints += [f"unexpected argument {each!r}: everything is an option" for each in arguments]
        return given, complaints
