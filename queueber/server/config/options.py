"""Define every option of the service in one table, for all sources, the help, ``queueber config`` and the docs."""

import os
from importlib.util import find_spec

from queueber.limits import PEER_LIMITS, PeerLimit
from queueber.server.config.spec import Option, Parse, boolean, integer, one_of, path, quantity_of, real, text
from queueber.server.core.reserve import RESERVE_BYTES, SMALL_SHARE
from queueber.server.net.listeners import Listen, usable_listen
from queueber.store.tuning import TUNING_OPTIONS, TuningOption, read_compression
from queueber.units import Unit, quantity


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_name(limit: str) -> str:
    """Return the name of the option for *limit*."""
    return f"limit-{limit.replace('_', '-')}"


def tuning_name(choice: str) -> str:
    """Return the name of the option for *choice* of the storage engine's tuning."""
    return f"storage-{choice.replace('_', '-')}"


def _limit(limit: PeerLimit) -> Option:
    low, high = quantity(limit.low, limit.unit), quantity(limit.high, limit.unit)
    unit = {
        Unit.COUNT: "a number",
        Unit.BYTES: "bytes, or with KiB, MiB, GiB",
        Unit.MS: "milliseconds, or with s, h, d",
    }
    return Option(
        limit_name(limit.name),
        quantity_of(limit.unit, limit.low, limit.high),
        limit.default,
        f"Limit: {limit.description}. When exceeded: {limit.consequence}",
        f"{unit[limit.unit]}: {low} to {high}" + (f", where 0 is {limit.zero}" if limit.zero else ""),
        default_help="off" if limit.default == 0 else limit.figure,
        table="limit",
        unit=None if limit.unit is Unit.COUNT else limit.unit,
    )


def _tuning(choice: TuningOption) -> Option:
    parse: Parse = boolean
    accepts, default = "yes or no", ""
    if choice.unit is not None:
        parse = quantity_of(choice.unit, choice.low, choice.high)
        accepts = f"{quantity(choice.low, choice.unit)} to {quantity(choice.high, choice.unit)}"
        default = quantity(choice.default, choice.unit)
    if choice.name == "compression":
        parse, accepts = read_compression, "none, lz4, zstd or zstd:LEVEL"
    if choice.name in ("parallelism", "background_jobs"):
        default = "the cores, at least 2"
    return Option(
        tuning_name(choice.name),
        parse,
        choice.default,
        choice.says,
        accepts,
        default_help=default,
        table="storage",
        unit=None if choice.unit is Unit.COUNT else choice.unit,
    )


DEFAULT_LISTEN = "127.0.0.1:9090"

_PEM = "a PEM file"


def _pages(value: str) -> Listen:
    listen = usable_listen(value)
    if find_spec("prometheus_client") is None:
        raise ValueError("needs the extra `http`: pip install 'queueber[http]'")
    return listen


SERVICE_OPTIONS = (
    Option("config", path, None, "A configuration file with these options"),
    Option(
        "listen",
        usable_listen,
        (usable_listen(DEFAULT_LISTEN),),
        "Address to listen on without TLS",
        "HOST:PORT, [v6]:PORT or an endpoint string; repeatable; '' for none",
        f"{DEFAULT_LISTEN}, or nowhere with --listen-tls",
        short="l",
        many=True,
        may_be_none=True,
        replaced_by="listen-tls",
    ),
    Option(
        "listen-tls",
        usable_listen,
        (),
        "Address to listen on with TLS; needs --tls-certificate",
        "as for --listen",
        "nowhere",
        many=True,
        may_be_none=True,
    ),
    Option("tls-certificate", path, None, "The server's certificate, followed by intermediate certificates", _PEM),
    Option(
        "tls-key",
        path,
        None,
        "The certificate's private key; must not be world-readable",
        _PEM,
        "the certificate's file",
    ),
    Option(
        "tls-client-ca", path, None, "Authorities that sign the certificates of permitted clients", _PEM, "any client"
    ),
    Option(
        "tls-client-name",
        text,
        (),
        "A name that a client's certificate must have",
        "a name; repeatable, one match is enough",
        "any name",
        many=True,
    ),
    Option(
        "insecure-plaintext",
        boolean,
        default=False,
        help="Allow plaintext on addresses that other machines can reach",
        flag=True,
    ),
    Option("data-dir", path, "./queueber-data", "The data directory; created if it is missing", short="d"),
    Option(
        "wipe",
        boolean,
        default=False,
        help="Empty the data directory first; refused unless it is Queueber's and no other process has locked it",
        flag=True,
        command_line_only=True,
    ),
    Option(
        "workers",
        integer(1, 1024),
        max(2, usable_cores()),
        "Threads of the storage pool",
        default_help="the cores this process may use, at least 2",
        short="w",
    ),
    Option(
        "durability",
        one_of("fsync", "os", "none"),
        "fsync",
        "What an acknowledged write survives: fsync (a power cut), os (a killed process), none (no crash)",
    ),
    Option(
        "free-space-reserve",
        quantity_of(Unit.BYTES, 0, 1 << 60),
        None,
        "Free space below which adds are refused; other calls go on; 0 for none",
        "bytes, or with KiB, MiB, GiB",
        f"{quantity(RESERVE_BYTES, Unit.BYTES)}, or 1/{SMALL_SHARE} of a smaller disk",
        unit=Unit.BYTES,
    ),
    Option(
        "storage-encoding",
        one_of("unpacked", "packed"),
        "unpacked",
        "Encoding of new values: unpacked (faster) or packed (smaller)",
        table="storage",
    ),
    Option("lease-sweep-interval", real(0.001, 60), 0.1, "Seconds between two checks for expired leases"),
    Option("coalesce-max-batch-size", integer(1, 100_000), 64, "Most polls served by one claim"),
    Option(
        "coalesce-max-batch-items",
        integer(1, 1_000_000),
        512,
        "Most items delivered by one claim, after one complete poll",
    ),
    Option(
        "coalesce-batch-window-ms",
        integer(0, 10_000),
        0,
        "How long an idle server waits for more calls before it cuts a commit",
    ),
    Option(
        "drain-seconds",
        real(0, 3600),
        10.0,
        "How long a stopping server waits for calls under way, and again for peers to receive their replies",
    ),
    Option(
        "log-format",
        one_of("auto", "text", "json"),
        "auto",
        "Format of the log: text, json (one object a line), or auto (the default of twistd or twist)",
    ),
    Option("log-level", one_of("debug", "info", "warn", "error", "critical"), "info", "Lowest level that is logged"),
    Option(
        "http",
        _pages,
        None,
        "Address for /metrics, /livez and /readyz over HTTP",
        "HOST:PORT, [v6]:PORT or an endpoint string",
        "nowhere",
    ),
    Option(
        "manhole",
        text,
        None,
        "Address of a debugging console, a Python shell with the rights of the server's user",
        "unix:PATH, or a local address with a password file",
        "nowhere",
    ),
    Option(
        "manhole-password-file",
        path,
        None,
        "Login of a debugging console that is not on a Unix socket",
        "a file with one line, user:password, readable by the server's user only",
    ),
)

OPTIONS = (*SERVICE_OPTIONS, *map(_tuning, TUNING_OPTIONS), *map(_limit, PEER_LIMITS))
"""All options, in the order in which they are shown."""
