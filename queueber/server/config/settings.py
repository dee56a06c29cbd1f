# ruff: noqa: RUF009  (a call makes each field, as attrs has it)
"""
The configuration of a server.

The fields of `Settings` are the table of options: each has its kind, default and
help.  `OPTION_TABLES` adds those of the limits, of the storage engine and of the
defaults of queues.  The command line, the environment, the file, ``queueber
config``, the help and the docs follow the table.
"""

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property, partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, Self

from attrs import field, fields, frozen

from queueber.broker import ClaimBounds
from queueber.broker.settings import DEFAULT_SETTINGS, DEFINITIONS, QueueConfig, Setting
from queueber.limits import DEFAULTS, PEER_LIMITS, Limits, PeerLimit
from queueber.server.admin.console.access import ConsoleAccess, PasswordFileError, parse_access
from queueber.server.config.spec import FLAG, PATH, YES_OR_NO, Kind, Option, choice, decimal, integer, path, text
from queueber.server.core.reserve import RESERVE_BYTES, SMALL_SHARE
from queueber.server.net.certificates import TlsFiles
from queueber.server.net.listeners import Listen, usable_listen
from queueber.store import Durability, Encoding
from queueber.store.tuning import DEFAULT_TUNING, TUNING_OPTIONS, Tuning, TuningOption, read_compression, usable_cores
from queueber.units import MIB, Unit, quantity

_LOCAL = usable_listen("127.0.0.1:9090")
_CORES = "the cores this process may use, at least 2"


def _option(kind: Kind, default: Any, help: str, default_help: str = "", **more: Any) -> Any:  # noqa: A002, ANN401
    """Return a field that is an option; *more* are further attributes of `Option`."""
    option = partial(kind, default=default, help=help, default_help=default_help, **more)
    is_path = kind.keywords["parse"] is path
    return field(default=default, converter=_as_path if is_path else None, metadata={"option": option})


def _as_path(value: Any) -> Any:  # noqa: ANN401
    """Return a path for a text.  A path of another kind than the system's stays: tests have directories in memory."""
    return Path(value) if isinstance(value, str) else value


_ADDRESS = partial(Option, parse=usable_listen, accepts="HOST:PORT, [v6]:PORT or an endpoint string")
_ADDRESSES = partial(Option, parse=lambda text: usable_listen(text) if text else None, many=True)
_LISTEN = partial(_ADDRESSES, accepts=f"{_ADDRESS.keywords['accepts']}; repeatable; '' for none")
_LISTEN_TLS = partial(_ADDRESSES, accepts="as for --listen")
_CLIENT_NAME = partial(Option, parse=text, accepts="a name; repeatable, one match is enough", many=True)
_PEM = partial(PATH, accepts="a PEM file")
_PASSWORD_FILE = partial(PATH, accepts="a file with one line, user:password, readable by the server's user only")
_CONSOLE = partial(Option, parse=text, accepts="unix:PATH, or a local address with a password file")
_TUNING_KINDS = {
    "compression": partial(Option, parse=read_compression, accepts="none, lz4, zstd or zstd:LEVEL"),
    "prefix_extractor": YES_OR_NO,
}
_FREE_SPACE = partial(integer(0, 1 << 60, Unit.BYTES), accepts="bytes, or with KiB, MiB, GiB")
_FREE_SPACE_DEFAULT = f"{quantity(RESERVE_BYTES, Unit.BYTES)}, or 1/{SMALL_SHARE} of a smaller disk"

_NEEDS = (
    ("listen-tls", "tls-certificate", ""),
    ("tls-certificate", "listen-tls", ": no address would use TLS"),
    ("tls-key", "tls-certificate", ""),
    ("tls-client-ca", "tls-certificate", ""),
    ("tls-client-name", "tls-client-ca", ": without an authority any client can claim any name"),
    ("manhole-password-file", "manhole", ""),
)
"""The options that have no effect without another one, and the reason that is not obvious."""

_EXTRAS = (("tls-certificate", "tls", ("OpenSSL", "cryptography")), ("http", "http", ("prometheus_client",)))
"""The options that need an extra, its name, and its modules."""


@frozen(kw_only=True)
class Settings:
    """The checked configuration of a server."""

    listen: tuple[Listen, ...] = _option(
        _LISTEN, (_LOCAL,), "Address to listen on without TLS", f"{_LOCAL}, or nowhere with --listen-tls"
    )
    listen_tls: tuple[Listen, ...] = _option(
        _LISTEN_TLS, (), "Address to listen on with TLS; needs --tls-certificate", "nowhere"
    )
    tls_certificate: Path | None = _option(
        _PEM, None, "The server's certificate, followed by intermediate certificates"
    )
    tls_key: Path | None = _option(_PEM, None, "The private key; must not be world-readable", "the certificate's file")
    tls_client_ca: Path | None = _option(
        _PEM, None, "Authorities that sign permitted clients' certificates", "any client"
    )
    tls_client_name: tuple[str, ...] = _option(
        _CLIENT_NAME, (), "A name that a client's certificate must have", "any name"
    )
    insecure_plaintext: bool = _option(FLAG, False, "Allow plaintext on addresses that other machines can reach")
    data_dir: Path = _option(PATH, "./queueber-data", "The data directory; created if it is missing")
    wipe: bool = _option(
        FLAG, False, "Empty the data directory first; it must be Queueber's and not in use", command_line_only=True
    )
    workers: int = _option(integer(1, 1024), usable_cores(), "Threads of the storage pool", _CORES)
    durability: Durability = _option(
        choice(*Durability),
        Durability.FSYNC,
        "What an acknowledged write survives: fsync (a power cut), os (a killed process), none (no crash)",
    )
    free_space_reserve: int | None = _option(
        _FREE_SPACE, None, "Free space below which adds are refused; other calls go on; 0 for none", _FREE_SPACE_DEFAULT
    )
    encoding: Encoding = _option(
        choice(*Encoding), Encoding.UNPACKED, "Encoding of new values; packed is smaller and slower", table="storage"
    )
    lease_sweep_interval: float = _option(decimal(0.001, 60), 0.1, "Seconds between two checks for expired leases")
    lease_restart_grace: float = _option(
        decimal(0, 3_600),
        10.0,
        "Most seconds for which leases that ended while the server was down last after its start, at most their length",
    )
    coalesce_max_batch_size: int = _option(integer(1, 100_000), 64, "Most polls served by one claim")
    coalesce_max_batch_items: int = _option(
        integer(1, 1_000_000), 512, "Most items delivered by one claim, after one complete poll"
    )
    coalesce_batch_window_ms: int = _option(
        integer(0, 10_000), 0, "How long an idle server waits for more calls before it cuts a commit"
    )
    drain_seconds: float = _option(
        decimal(0, 3600), 10.0, "How long a stopping server waits for calls, and again for peers to receive replies"
    )
    log_format: str = _option(
        choice("auto", "text", "json"),
        "auto",
        "Format of the log: text, json (one object a line), or auto (the default of twistd or twist)",
    )
    log_level: str = _option(
        choice("debug", "info", "warn", "error", "critical"), "info", "Lowest level that is logged"
    )
    http: Listen | None = _option(_ADDRESS, None, "Address for /metrics, /livez and /readyz over HTTP", "nowhere")
    manhole: str | None = _option(
        _CONSOLE, None, "Address of a debugging console: a Python shell with the server's rights", "nowhere"
    )
    manhole_password_file: Path | None = _option(
        _PASSWORD_FILE, None, "Login of a debugging console that is not on a Unix socket"
    )

    tuning: Tuning = DEFAULT_TUNING
    queue_defaults: QueueConfig = DEFAULT_SETTINGS
    limits: Limits = DEFAULTS
    claim_bytes: int = 16 * MIB
    """Most contents delivered by one claim, after at least one item.  Not an option."""

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Return the settings with *values*, those of all options by their names."""
        chosen = {option.attribute: values[option.name] for option in SERVICE_OPTIONS[1:]}
        for attribute, (part, options) in OPTION_TABLES.items():
            chosen[attribute] = part(**{option.attribute: values[option.name] for option in options})
        return cls(**chosen)

    @property
    def claim(self) -> ClaimBounds:
        """Return the bounds of one claim."""
        return ClaimBounds(
            polls=self.coalesce_max_batch_size, items=self.coalesce_max_batch_items, bytes=self.claim_bytes
        )

    @property
    def tls(self) -> TlsFiles | None:
        """Return the PEM files, if there are any."""
        if self.tls_certificate is None:
            return None
        return TlsFiles(
            certificate=self.tls_certificate,
            key=self.tls_key or self.tls_certificate,
            client_ca=self.tls_client_ca,
            client_names=self.tls_client_name,
        )

    @cached_property
    def console(self) -> ConsoleAccess | None:
        """The access to the debugging console, if there is one.  Cached, because --chroot hides home directories."""
        return None if self.manhole is None else parse_access(self.manhole, self.manhole_password_file)

    @property
    def places(self) -> list[tuple[str, Listen]]:
        """Return all addresses to listen on, each with the name of its option."""
        places = [("listen", each) for each in self.listen] + [("listen-tls", each) for each in self.listen_tls]
        if self.http is not None:
            places.append(("http", self.http))
        if self.console is not None:
            places.append(("manhole", self.console.listen))
        return places

    def conflicts(self) -> Iterator[str]:
        """Yield a sentence for each conflict of options that are valid each on its own; ``--listen`` names one."""
        given = {option.name for option in SERVICE_OPTIONS[1:] if getattr(self, option.attribute)}
        yield from self.limits.conflicts()
        yield from (f"--{a} needs --{b}{why}" for a, b, why in _NEEDS if a in given and b not in given)
        for name, extra, modules in _EXTRAS:
            if name in given and None in map(find_spec, modules):
                yield f"--{name} needs the extra `{extra}`: pip install 'queueber[{extra}]'"
        if not self.listen and not self.listen_tls:
            yield "neither --listen nor --listen-tls has an address to listen on"
        for name, listen in (*(("listen", each) for each in self.listen), ("http", self.http)):
            if listen is not None and listen.exposed and not self.insecure_plaintext:
                yield f"--{name} {listen.text}: plaintext beyond this machine needs --insecure-plaintext"
        yield from self._console_conflicts()

    def _console_conflicts(self) -> Iterator[str]:
        try:
            if self.console is not None and self.console.password_file is not None:
                self.console.password_file.read()
        except PasswordFileError as why:
            yield f"--manhole-password-file {why}"
        except ValueError as why:
            yield f"--manhole {why}"


def _limit(limit: PeerLimit) -> Option:
    kind = integer(limit.low, limit.high, limit.unit, limit.zero)
    says = f"Limit: {limit.description}. When exceeded: {limit.consequence}"
    off = "" if limit.default else "off"
    return kind(attribute=limit.name, default=limit.default, help=says, default_help=off, table="limit")


def _tuning(tuned: TuningOption) -> Option:
    kind = _TUNING_KINDS.get(tuned.name) or integer(tuned.low, tuned.high, tuned.unit or Unit.COUNT)
    cores = _CORES if tuned.name in ("parallelism", "background_jobs") else ""
    return kind(attribute=tuned.name, default=tuned.default, help=tuned.says, default_help=cores, table="storage")


def _queue_setting(name: str, setting: Setting) -> Option:
    kind = YES_OR_NO if setting.high is None else integer(0, setting.high, setting.unit)
    says = f"Default of queues: {setting.description}"
    return kind(attribute=name, default=getattr(DEFAULT_SETTINGS, name), help=says, table="queue")


CONFIG = PATH(attribute="config", default=None, help="A configuration file with these options")

SERVICE_OPTIONS: tuple[Option, ...] = (
    CONFIG,
    *(each.metadata["option"](attribute=each.name) for each in fields(Settings) if "option" in each.metadata),
)

OPTION_TABLES: dict[str, tuple[type[Any], tuple[Option, ...]]] = {
    "tuning": (Tuning, tuple(map(_tuning, TUNING_OPTIONS))),
    "limits": (Limits, tuple(map(_limit, PEER_LIMITS))),
    "queue_defaults": (
        QueueConfig,
        tuple([_queue_setting(*each) for each in DEFINITIONS.items() if each[1].description]),
    ),
}
"""The attributes of `Settings` that have a table of options of their own, each with its class and those options."""

OPTIONS = sum((options for _, options in OPTION_TABLES.values()), SERVICE_OPTIONS)
"""All options, in the order in which they are shown."""


def suggestion(spell: Callable[[Option], str], *names: str) -> str:
    """Return a question about the option that one of *names* was probably meant to be; empty if none is similar."""
    # The word of the table may be missing.
    known = {option.key: option for option in OPTIONS} | {option.name: option for option in OPTIONS}
    for cutoff, name in product((1.0, 0.75), names):
        for close in get_close_matches(name.lower().replace("_", "-"), known, n=1, cutoff=cutoff):
            return f"; did you mean {spell(known[close])}?"
    return ""
