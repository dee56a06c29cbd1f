"""The service's options: text to checked values."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

from attrs import frozen
from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactor
from twisted.python import usage

from queueber import __version__
from queueber.broker import ClaimBounds
from queueber.limits import PEER_LIMITS, Limits, PeerLimit, UnusableLimits
from queueber.server.listening import Listen, parse_listen
from queueber.store import Durability, Encoding
from queueber.units import Unit, parse, quantity

EX_USAGE = 64
"""Wrong options: ``sysexits.h``."""

DEFAULT_LISTEN = "127.0.0.1:9090"

T = TypeVar("T", int, float)


@frozen(kw_only=True)
class Settings:
    """What a server is to be, checked."""

    listen: tuple[Listen, ...]
    data_dir: Path
    workers: int
    durability: Durability
    encoding: Encoding
    sweep_seconds: float
    claim: ClaimBounds
    window_ms: int
    wipe: bool
    limits: Limits


def usable_cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _between(name: str, convert: Callable[[str], T], low: T, high: T) -> Callable[[str], T]:
    def coerce(text: str) -> T:
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise usage.UsageError(f"--{name} is {text!r}; it must be a number from {low} to {high}")
        return value

    coerce.coerceDoc = f"A number from {low} to {high}"  # type: ignore[attr-defined]
    return coerce


def _one_of(name: str, choices: tuple[str, ...]) -> Callable[[str], str]:
    def coerce(text: str) -> str:
        if text not in choices:
            raise usage.UsageError(f"--{name} is {text!r}; it must be one of {', '.join(choices)}")
        return text

    coerce.coerceDoc = f"One of {', '.join(choices)}."  # type: ignore[attr-defined]
    return coerce


def _limit_option(limit: PeerLimit) -> list[object]:
    """A row of `optParameters`."""
    name = option_of(limit)
    low, high = quantity(limit.low, limit.unit), quantity(limit.high, limit.unit)

    def coerce(text: str) -> int:
        try:
            value = parse(text, limit.unit)
        except ValueError as why:
            raise usage.UsageError(f"--{name}: {why}") from None
        if not limit.low <= value <= limit.high:
            raise usage.UsageError(f"--{name} is {text!r}; it must be from {low} to {high}")
        return value

    unit = {
        Unit.COUNT: "A number",
        Unit.BYTES: "Bytes, or with KiB, MiB, GiB",
        Unit.MS: "Milliseconds, or with s, h, d",
    }
    coerce.coerceDoc = f"{unit[limit.unit]}: {low} to {high}"  # type: ignore[attr-defined]
    default = f"Off by default: {limit.says}" if limit.default == 0 else f"By default {limit.figure} {limit.says}"
    return [name, None, None, f"{default}; beyond: {limit.beyond}", coerce]


def option_of(limit: PeerLimit) -> str:
    """The name of the option that sets *limit*, without its dashes."""
    return "limit-" + limit.name.replace("_", "-")


class Options(usage.Options):
    """Options of `twistd queueber` and `twist queueber`."""

    synopsis = "[options]"
    longdesc = (
        "A durable work-queue server, spoken to in Cap'n Proto RPC.  "
        "Exit statuses: 64 wrong options, 74 disk, lock or port."
    )

    optParameters: ClassVar = [
        ["data-dir", "d", "./queueber-data", "The directory with the data; made if it is not there."],
        [
            "workers",
            "w",
            None,
            "Threads of the storage pool; by default the cores this process may use, at least 2",
            _between("workers", int, 1, 1024),
        ],
        [
            "durability",
            None,
            "fsync",
            "What an acknowledged write survives: fsync (a power cut), os (a kill), none (nothing; for measuring)",
            _one_of("durability", ("fsync", "os", "none")),
        ],
        [
            "storage-encoding",
            None,
            "unpacked",
            "How values are written from now on: unpacked (faster) or packed (smaller).",
            _one_of("storage-encoding", ("unpacked", "packed")),
        ],
        [
            "lease-sweep-interval",
            None,
            0.1,
            "Seconds between two looks for leases that have run out.",
            _between("lease-sweep-interval", float, 0.001, 60.0),
        ],
        [
            "coalesce-max-batch-size",
            None,
            64,
            "Polls served by one claim, at most.",
            _between("coalesce-max-batch-size", int, 1, 100_000),
        ],
        [
            "coalesce-max-batch-items",
            None,
            512,
            "Items handed out by one claim, at most, after one whole poll.",
            _between("coalesce-max-batch-items", int, 1, 1_000_000),
        ],
        [
            "coalesce-batch-window-ms",
            None,
            0,
            "How long an idle server waits for more before it cuts a commit.",
            _between("coalesce-batch-window-ms", int, 0, 10_000),
        ],
        *map(_limit_option, PEER_LIMITS),
    ]
    optFlags: ClassVar = [
        ["wipe", None, "Empty the data directory first: one of Queueber's that no server holds, or refuse."],
        ["insecure-plaintext", None, "Allow plaintext beyond this machine."],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._listen: list[Listen] = []

    def opt_listen(self, text: str) -> None:
        """Where to listen, repeatable: HOST:PORT, [v6]:PORT or an endpoint string.  [default: 127.0.0.1:9090]."""
        try:
            listen = parse_listen(text)
            serverFromString(MemoryReactor(), listen.endpoint)
        except (ValueError, TypeError, LookupError, ImportError) as why:
            raise usage.UsageError(f"--listen {text}: {why}") from why
        self._listen.append(listen)

    opt_l = opt_listen

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"queueber {__version__}")  # noqa: T201
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Take the command line's *options*; wrong ones end the process with one line and the status for that."""
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as why:
            # Left to twistd, they would end it with 1, which says nothing; twist would print the whole help as well.
            sys.stderr.write(f"queueber: {why}\n")
            raise SystemExit(EX_USAGE) from None

    def parseArgs(self, *args: str) -> None:
        """Take no arguments."""
        if args:
            raise usage.UsageError(f"unexpected argument {args[0]!r}: everything is an option")

    def postOptions(self) -> None:
        """Check what depends on more than one option."""
        if not self._listen:
            self._listen.append(parse_listen(DEFAULT_LISTEN))
        try:
            self._limits().check()
        except UnusableLimits as why:
            raise usage.UsageError(f"the --limit-... options contradict each other: {why}") from None
        if not self["data-dir"]:
            raise usage.UsageError("--data-dir is empty; it must name a directory")
        if not self["insecure-plaintext"]:
            for listen in self._listen:
                if listen.exposed:
                    raise usage.UsageError(
                        f"--listen {listen.text}: plaintext beyond this machine needs --insecure-plaintext"
                    )

    def _limits(self) -> Limits:
        given = {limit.name: self[option_of(limit)] for limit in PEER_LIMITS}
        return Limits(**{name: value for name, value in given.items() if value is not None})

    @property
    def settings(self) -> Settings:
        """All of them, as values."""
        return Settings(
            listen=tuple(self._listen),
            data_dir=Path(self["data-dir"]),
            workers=self["workers"] or max(2, usable_cores()),
            durability=Durability(self["durability"]),
            encoding=Encoding(self["storage-encoding"]),
            sweep_seconds=float(self["lease-sweep-interval"]),
            claim=ClaimBounds(polls=int(self["coalesce-max-batch-size"]), items=int(self["coalesce-max-batch-items"])),
            window_ms=int(self["coalesce-batch-window-ms"]),
            wipe=bool(self["wipe"]),
            limits=self._limits(),
        )
