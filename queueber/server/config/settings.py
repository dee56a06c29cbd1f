# ruff: noqa: RUF009  (a call makes each field, as attrs has it)
"""
The configuration of a server.

The fields of `Settings` are the table of options: each has its parser, default
and help.  `OPTIONS` adds those of the limits and of the storage engine.  The
command line, the environment, the file, ``queueber config``, the help and the
docs follow it.  So a new option is one more field; a new table of the file is a
class of such fields, an attribute of `Settings`, and an entry of `OPTION_TABLES`.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, Self

from attrs import evolve, field, fields, frozen

from queueber.broker import ClaimBounds
from queueber.broker.settings import DEFAULT_SETTINGS, DEFINITIONS, Setting
from queueber.broker.settings import Settings as QueueSettings
from queueber.limits import DEFAULTS, PEER_LIMITS, Limits, PeerLimit
from queueber.server.config.console_access import ConsoleAccess, PasswordFileError, parse_access, read_password
from queueber.server.config.spec import PATH, YES_OR_NO, Option, ValueKind, choice, decimal, integer, path, text
from queueber.server.core.reserve import RESERVE_BYTES, SMALL_SHARE
from queueber.server.net.certificates import TlsFiles
from queueber.server.net.listeners import Listen, usable_listen
from queueber.store import Durability, Encoding
from queueber.store.tuning import DEFAULT_TUNING, TUNING_OPTIONS, Tuning, TuningOption, read_compression, usable_cores
from queueber.units import MIB, Unit, quantity

Conflict = tuple[tuple[str, ...], str]
"""The names of conflicting options and the reason, which spells each name as on the command line."""

_DEFAULT_LISTEN = "127.0.0.1:9090"


def option_name(attribute: str, table: str | None = None) -> str:
    """Return the name of the option for *attribute* of the settings, or of the part of them that *table* is for."""
    return (f"{table}-{attribute}" if table else attribute).replace("_", "-")


def option_field(kind: ValueKind, default: Any, help: str, default_help: str = "", **more: Any) -> Any:  # noqa: A002, ANN401
    """Return a field that is an option; *more* are further attributes of `Option`."""
    definition = {"kind": kind, "default": default, "help": help, "default_help": default_help, **more}
    return field(default=default, converter=_as_path if kind.parse is path else None, metadata={"option": definition})


def options_of(part: type[Any], table: str | None = None) -> tuple[Option, ...]:
    """Return the options among the fields of *part*; *table* is their table in the file, if it is one for all."""
    return tuple(
        Option(name=option_name(each.name, table), **({"table": table} | each.metadata["option"]))
        for each in fields(part)
        if "option" in each.metadata
    )


def _as_path(value: str | Path | None) -> Path | None:
    return Path(value) if isinstance(value, str) else value


def _usable_pages(value: str) -> Listen:
    listen = usable_listen(value)
    if find_spec("prometheus_client") is None:
        raise ValueError("needs the extra `http`: pip install 'queueber[http]'")
    return listen


_ADDRESS = "HOST:PORT, [v6]:PORT or an endpoint string"
_PAGES = ValueKind(_usable_pages, _ADDRESS)
_LISTEN = ValueKind(usable_listen, f"{_ADDRESS}; repeatable; '' for none")
_LISTEN_TLS = ValueKind(usable_listen, "as for --listen")
_CLIENT_NAME = ValueKind(text, "a name; repeatable, one match is enough")
_PEM = ValueKind(path, "a PEM file")
_PASSWORD_FILE = ValueKind(path, "a file with one line, user:password, readable by the server's user only")
_CONSOLE = ValueKind(text, "unix:PATH, or a local address with a password file")
_FREE_SPACE = evolve(integer(0, 1 << 60, Unit.BYTES), accepts="bytes, or with KiB, MiB, GiB")
_FREE_SPACE_DEFAULT = f"{quantity(RESERVE_BYTES, Unit.BYTES)}, or 1/{SMALL_SHARE} of a smaller disk"


@frozen(kw_only=True)
class Settings:
    """The checked configuration of a server."""

    listen: tuple[Listen, ...] = option_field(
        _LISTEN,
        (usable_listen(_DEFAULT_LISTEN),),
        "Address to listen on without TLS",
        f"{_DEFAULT_LISTEN}, or nowhere with --listen-tls",
        short="l",
        many=True,
        may_be_none=True,
        replaced_by="listen-tls",
    )
    listen_tls: tuple[Listen, ...] = option_field(
        _LISTEN_TLS,
        (),
        "Address to listen on with TLS; needs --tls-certificate",
        "nowhere",
        many=True,
        may_be_none=True,
    )
    tls_certificate: Path | None = option_field(
        _PEM, None, "The server's certificate, followed by intermediate certificates"
    )
    tls_key: Path | None = option_field(
        _PEM, None, "The certificate's private key; must not be world-readable", "the certificate's file"
    )
    tls_client_ca: Path | None = option_field(
        _PEM, None, "Authorities that sign the certificates of permitted clients", "any client"
    )
    tls_client_name: tuple[str, ...] = option_field(
        _CLIENT_NAME, (), "A name that a client's certificate must have", "any name", many=True
    )
    insecure_plaintext: bool = option_field(
        YES_OR_NO, default=False, help="Allow plaintext on addresses that other machines can reach", flag=True
    )
    data_dir: Path = option_field(PATH, "./queueber-data", "The data directory; created if it is missing", short="d")
    wipe: bool = option_field(
        YES_OR_NO,
        default=False,
        help="Empty the data directory first; refused unless it is Queueber's and no other process has locked it",
        flag=True,
        command_line_only=True,
    )
    workers: int = option_field(
        integer(1, 1024),
        usable_cores(),
        "Threads of the storage pool",
        "the cores this process may use, at least 2",
        short="w",
    )
    durability: Durability = option_field(
        choice(*Durability),
        Durability.FSYNC,
        "What an acknowledged write survives: fsync (a power cut), os (a killed process), none (no crash)",
    )
    free_space_reserve: int | None = option_field(
        _FREE_SPACE, None, "Free space below which adds are refused; other calls go on; 0 for none", _FREE_SPACE_DEFAULT
    )
    storage_encoding: Encoding = option_field(
        choice(*Encoding),
        Encoding.UNPACKED,
        "Encoding of new values: unpacked (faster) or packed (smaller)",
        table="storage",
    )
    lease_sweep_interval: float = option_field(decimal(0.001, 60), 0.1, "Seconds between two checks for expired leases")
    lease_restart_grace: float = option_field(
        decimal(0, 3_600),
        10.0,
        "Most seconds for which leases that ended while the server was down last after its start, at most their length",
    )
    coalesce_max_batch_size: int = option_field(integer(1, 100_000), 64, "Most polls served by one claim")
    coalesce_max_batch_items: int = option_field(
        integer(1, 1_000_000), 512, "Most items delivered by one claim, after one complete poll"
    )
    coalesce_batch_window_ms: int = option_field(
        integer(0, 10_000), 0, "How long an idle server waits for more calls before it cuts a commit"
    )
    drain_seconds: float = option_field(
        decimal(0, 3600),
        10.0,
        "How long a stopping server waits for calls under way, and again for peers to receive their replies",
    )
    log_format: str = option_field(
        choice("auto", "text", "json"),
        "auto",
        "Format of the log: text, json (one object a line), or auto (the default of twistd or twist)",
    )
    log_level: str = option_field(
        choice("debug", "info", "warn", "error", "critical"), "info", "Lowest level that is logged"
    )
    http: Listen | None = option_field(_PAGES, None, "Address for /metrics, /livez and /readyz over HTTP", "nowhere")
    manhole: str | None = option_field(
        _CONSOLE, None, "Address of a debugging console, a Python shell with the rights of the server's user", "nowhere"
    )
    manhole_password_file: Path | None = option_field(
        _PASSWORD_FILE, None, "Login of a debugging console that is not on a Unix socket"
    )

    tuning: Tuning = DEFAULT_TUNING
    queue_defaults: QueueSettings = DEFAULT_SETTINGS
    limits: Limits = DEFAULTS
    claim_bytes: int = 16 * MIB
    """Most contents delivered by one claim, after at least one item.  Not an option."""

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Return the settings with *values*, those of all options by their names."""
        own = {option.name.replace("-", "_"): values[option.name] for option in SERVICE_OPTIONS if option is not CONFIG}
        parts = {
            attribute: part(**{option.attribute: values[option.name] for option in options})
            for attribute, (part, options) in OPTION_TABLES.items()
        }
        return cls(**own, **parts)

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
        found = [("listen", each) for each in self.listen] + [("listen-tls", each) for each in self.listen_tls]
        if self.http is not None:
            found.append(("http", self.http))
        if self.console is not None:
            found.append(("manhole", self.console.listen))
        return found

    def conflicts(self) -> Iterator[Conflict]:
        """Yield the options that are valid each on its own but not together."""
        for limits, reason in self.limits.violations():
            spelled = re.sub(rf"\b({'|'.join(limits)})\b", lambda each: f"--{option_name(each[0], 'limit')}", reason)
            yield tuple(option_name(limit, "limit") for limit in limits), spelled
        yield from self._tls_conflicts()
        yield from self._console_conflicts()
        if not self.listen and not self.listen_tls:
            yield ("listen", "listen-tls"), "there is no address to listen on, neither with TLS nor without"
        pages = [("http", self.http)] if self.http is not None else []
        for name, listen in [("listen", each) for each in self.listen] + pages:
            if listen.exposed and not self.insecure_plaintext:
                reason = f"--{name} {listen.text}: plaintext beyond this machine needs --insecure-plaintext"
                yield (name, "insecure-plaintext"), reason

    def _tls_conflicts(self) -> Iterator[Conflict]:
        if self.tls_certificate is None:
            for name in ("listen-tls", "tls-key", "tls-client-ca", "tls-client-name"):
                if getattr(self, name.replace("-", "_")):
                    yield (name, "tls-certificate"), f"--{name} needs --tls-certificate"
            return
        if not self.listen_tls:
            # An operator who configures a certificate expects the server to use it.
            reason = "--tls-certificate without --listen-tls: no address would use TLS"
            yield ("tls-certificate", "listen-tls"), reason
        if self.tls_client_name and self.tls_client_ca is None:
            reason = "--tls-client-name needs --tls-client-ca: without an authority any client can claim any name"
            yield ("tls-client-name", "tls-client-ca"), reason
        if find_spec("OpenSSL") is None or find_spec("cryptography") is None:
            yield ("tls-certificate",), "--tls-certificate needs the extra `tls`: pip install 'queueber[tls]'"

    def _console_conflicts(self) -> Iterator[Conflict]:
        try:
            if self.console is None and self.manhole_password_file is not None:
                yield ("manhole-password-file", "manhole"), "--manhole-password-file needs --manhole"
            if self.console is not None:
                usable_listen(self.console.listen.endpoint)
                if self.console.password_file is not None:
                    read_password(self.console.password_file)
        except PasswordFileError as why:
            yield ("manhole-password-file",), f"--manhole-password-file {why}"
        except ValueError as why:
            yield ("manhole", "manhole-password-file"), f"--manhole {why}"


_COMPRESSION = ValueKind(read_compression, "none, lz4, zstd or zstd:LEVEL")
_TUNING_KINDS = {"compression": _COMPRESSION, "prefix_extractor": YES_OR_NO}


def _tuning(tuned: TuningOption) -> Option:
    return Option(
        name=option_name(tuned.name, "storage"),
        kind=_TUNING_KINDS.get(tuned.name) or integer(tuned.low, tuned.high, tuned.unit or Unit.COUNT),
        default=tuned.default,
        help=tuned.says,
        default_help="the cores, at least 2" if tuned.name in ("parallelism", "background_jobs") else "",
        table="storage",
    )


def _limit(limit: PeerLimit) -> Option:
    kind = integer(limit.low, limit.high, limit.unit)
    return Option(
        name=option_name(limit.name, "limit"),
        kind=evolve(kind, accepts=f"{kind.accepts}, where 0 is {limit.zero}") if limit.zero else kind,
        default=limit.default,
        help=f"Limit: {limit.description}. When exceeded: {limit.consequence}",
        default_help="" if limit.default else "off",
        table="limit",
    )


def _queue_setting(attribute: str, setting: Setting) -> Option:
    return Option(
        name=option_name(attribute, "queue"),
        kind=YES_OR_NO if setting.high is None else integer(0, setting.high, setting.unit),
        default=getattr(DEFAULT_SETTINGS, attribute),
        help=f"Default of queues: {setting.description}",
        table="queue",
    )


CONFIG = Option(name="config", kind=PATH, default=None, help="A configuration file with these options")

SERVICE_OPTIONS = (CONFIG, *options_of(Settings))

OPTION_TABLES: dict[str, tuple[type[Any], tuple[Option, ...]]] = {
    "tuning": (Tuning, tuple(map(_tuning, TUNING_OPTIONS))),
    "limits": (Limits, tuple(map(_limit, PEER_LIMITS))),
    "queue_defaults": (
        QueueSettings,
        tuple([_queue_setting(name, setting) for name, setting in DEFINITIONS.items() if setting.description]),
    ),
}
"""The attributes of `Settings` that have a table of options of their own, each with its class and those options."""

OPTIONS = sum((options for _, options in OPTION_TABLES.values()), SERVICE_OPTIONS)
"""All options, in the order in which they are shown."""


def similar_option(*names: str) -> Option | None:
    """Return the option that one of *names* was probably meant to be.  The word of its table may be missing."""
    known = {option.key: option for option in OPTIONS} | {option.name: option for option in OPTIONS}
    for cutoff, name in product((1.0, 0.75), names):
        for close in get_close_matches(name.lower().replace("_", "-"), known, n=1, cutoff=cutoff):
            return known[close]
    return None
