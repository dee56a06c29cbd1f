"""
Define every option of the service in one table, and make a server's `Settings` from their values.

The table serves the command line and its help, the environment, the
configuration file, ``queueber config`` and the docs.
"""

import os
import re
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import frozen

from queueber.broker import ClaimBounds
from queueber.limits import PEER_LIMITS, Limits, PeerLimit
from queueber.server.config.sources import Setting
from queueber.server.config.spec import (
    Complaint,
    Complaints,
    Option,
    Read,
    amount,
    one_of,
    path,
    real,
    switch,
    text,
    whole,
)
from queueber.server.core.reserve import RESERVE_BYTES, SMALL_SHARE
from queueber.server.monitoring.options import NOWHERE, VIEWING, Views, views_from
from queueber.server.net.certificates import TlsFiles
from queueber.server.net.listeners import Listen, usable_listen
from queueber.store import Durability, Encoding
from queueber.store.tuning import DEFAULT_TUNING, TUNING_OPTIONS, Tuning, TuningOption, read_compression
from queueber.units import Unit, quantity


@frozen(kw_only=True)
class Settings:
    """The checked configuration of a server."""

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
    listen_tls: tuple[Listen, ...] = ()
    tls: TlsFiles | None = None
    log_format: str = "auto"
    log_level: str = "info"
    drain_seconds: float = 10.0
    tuning: Tuning = DEFAULT_TUNING
    free_space_reserve: int | None = None
    views: Views = NOWHERE

    @property
    def places(self) -> list[tuple[str, Listen]]:
        """All addresses to listen on, each with the name of its option."""
        found = [("listen", each) for each in self.listen] + [("listen-tls", each) for each in self.listen_tls]
        if self.views.pages is not None:
            found.append(("http", self.views.pages))
        if self.views.console is not None:
            found.append(("manhole", self.views.console.listen))
        return found


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _limit(limit: PeerLimit) -> Option:
    low, high = quantity(limit.low, limit.unit), quantity(limit.high, limit.unit)
    unit = {
        Unit.COUNT: "a number",
        Unit.BYTES: "bytes, or with KiB, MiB, GiB",
        Unit.MS: "milliseconds, or with s, h, d",
    }
    return Option(
        name=f"limit-{limit.name.replace('_', '-')}",
        table="limit",
        read=amount(limit.unit, limit.low, limit.high),
        default=limit.default,
        shown="off" if limit.default == 0 else limit.figure,
        says=f"Limit: {limit.says}. When exceeded: {limit.beyond}",
        accepts=f"{unit[limit.unit]}: {low} to {high}" + (f", where 0 is {limit.zero}" if limit.zero else ""),
        unit=None if limit.unit is Unit.COUNT else limit.unit,
    )


def _tuning(choice: TuningOption) -> Option:
    read: Read = switch if choice.unit is None else amount(choice.unit, choice.low, choice.high)
    accepts = "yes or no"
    if choice.unit is not None:
        accepts = f"{quantity(choice.low, choice.unit)} to {quantity(choice.high, choice.unit)}"
    if choice.name == "compression":
        read, accepts = read_compression, "none, lz4, zstd or zstd:LEVEL"
    cores = choice.name in ("parallelism", "background_jobs")
    return Option(
        name=f"storage-{choice.name.replace('_', '-')}",
        table="storage",
        read=read,
        default=choice.default,
        shown="the cores, at least 2" if cores else quantity(choice.default, choice.unit) if choice.unit else "",
        says=choice.says,
        accepts=accepts,
        unit=None if choice.unit is Unit.COUNT else choice.unit,
    )


DEFAULT_LISTEN = "127.0.0.1:9090"

SERVING = (
    Option(name="config", read=path, default=None, says="A configuration file with these options", shown="none"),
    Option(
        name="listen",
        short="l",
        read=usable_listen,
        default=(usable_listen(DEFAULT_LISTEN),),
        shown=f"{DEFAULT_LISTEN}, or nowhere with --listen-tls",
        many=True,
        may_be_none=True,
        replaced_by="listen-tls",
        says="Address to listen on without TLS",
        accepts="HOST:PORT, [v6]:PORT or an endpoint string; repeatable; '' for none",
    ),
    Option(
        name="listen-tls",
        read=usable_listen,
        default=(),
        shown="nowhere",
        many=True,
        may_be_none=True,
        says="Address to listen on with TLS; needs --tls-certificate",
        accepts="as for --listen",
    ),
    Option(
        name="tls-certificate",
        read=path,
        default=None,
        shown="none",
        says="The server's certificate, followed by intermediate certificates",
        accepts="a PEM file",
    ),
    Option(
        name="tls-key",
        read=path,
        default=None,
        shown="the certificate's file",
        says="The certificate's private key; must not be world-readable",
        accepts="a PEM file",
    ),
    Option(
        name="tls-client-ca",
        read=path,
        default=None,
        shown="any client",
        says="Authorities that sign the certificates of permitted clients",
        accepts="a PEM file",
    ),
    Option(
        name="tls-client-name",
        read=text,
        default=(),
        shown="any name",
        many=True,
        says="A name that a client's certificate must have",
        accepts="a name; repeatable, one match is enough",
    ),
    Option(
        name="insecure-plaintext",
        read=switch,
        default=False,
        flag=True,
        says="Allow plaintext on addresses that other machines can reach",
    ),
    Option(
        name="data-dir",
        short="d",
        read=path,
        default="./queueber-data",
        says="The data directory; created if it is missing",
    ),
    Option(
        name="wipe",
        read=switch,
        default=False,
        flag=True,
        command_line_only=True,
        says="Empty the data directory first; refused unless it is Queueber's and no server holds it",
    ),
    Option(
        name="workers",
        short="w",
        read=whole(1, 1024),
        default=max(2, usable_cores()),
        shown="the cores this process may use, at least 2",
        says="Threads of the storage pool",
        accepts="1 to 1,024",
    ),
    Option(
        name="durability",
        read=one_of("fsync", "os", "none"),
        default="fsync",
        says="What an acknowledged write survives: fsync (a power cut), os (a killed process), none (no crash)",
        accepts="fsync, os or none",
    ),
    Option(
        name="free-space-reserve",
        read=amount(Unit.BYTES, 0, 1 << 60),
        default=None,
        shown=f"{quantity(RESERVE_BYTES, Unit.BYTES)}, or 1/{SMALL_SHARE} of a smaller disk",
        says="Free space below which adds are refused; other calls go on; 0 for none",
        accepts="bytes, or with KiB, MiB, GiB",
        unit=Unit.BYTES,
    ),
    Option(
        name="storage-encoding",
        table="storage",
        read=one_of("unpacked", "packed"),
        default="unpacked",
        says="Encoding of new values: unpacked (faster) or packed (smaller)",
        accepts="unpacked or packed",
    ),
    Option(
        name="lease-sweep-interval",
        read=real(0.001, 60.0),
        default=0.1,
        says="Seconds between two checks for expired leases",
        accepts="0.001 to 60",
    ),
    Option(
        name="coalesce-max-batch-size",
        read=whole(1, 100_000),
        default=64,
        says="Most polls served by one claim",
        accepts="1 to 100,000",
    ),
    Option(
        name="coalesce-max-batch-items",
        read=whole(1, 1_000_000),
        default=512,
        says="Most items delivered by one claim, after one complete poll",
        accepts="1 to 1,000,000",
    ),
    Option(
        name="coalesce-batch-window-ms",
        read=whole(0, 10_000),
        default=0,
        says="How long an idle server waits for more calls before it cuts a commit",
        accepts="0 to 10,000",
    ),
    Option(
        name="drain-seconds",
        read=real(0, 3600),
        default=10.0,
        says="How long a stopping server waits for calls under way, and again for peers to receive their replies",
        accepts="0 to 3,600",
    ),
    Option(
        name="log-format",
        read=one_of("auto", "text", "json"),
        default="auto",
        says="Format of the log: text, json (one object a line), or auto (the default of twistd or twist)",
        accepts="auto, text or json",
    ),
    Option(
        name="log-level",
        read=one_of("debug", "info", "warn", "error", "critical"),
        default="info",
        says="Lowest level that is logged",
        accepts="debug, info, warn, error or critical",
    ),
    *VIEWING,
)

OPTIONS = (*SERVING, *map(_tuning, TUNING_OPTIONS), *map(_limit, PEER_LIMITS))
"""All options, in the order in which they are shown."""


class ConflictingOptions(ValueError):
    """Options that are valid each on its own but not together."""

    def __init__(self, complaints: Complaints) -> None:
        super().__init__("; ".join(reason for _, reason in complaints))
        self.complaints = complaints
        """A pair for each contradiction: the names of the options, and the reason."""


def settings_from(settings: Mapping[str, Setting]) -> Settings:
    """
    Make the `Settings` from the values of all options.

    Raises:
        Contradiction: names all options that contradict each other.
    """
    value: dict[str, Any] = {name: each.value for name, each in settings.items()}
    limits = Limits(**{limit.name: value[_limit(limit).name] for limit in PEER_LIMITS})
    complaints = [_of_limits(names, reason) for names, reason in limits.complaints()]
    tls = _tls(value, complaints)
    views = views_from(value, complaints)
    if not value["listen"] and not value["listen-tls"]:
        complaints.append((("listen", "listen-tls"), "there is no address to listen on, neither with TLS nor without"))
    for listen in value["listen"]:
        if listen.exposed and not value["insecure-plaintext"]:
            reason = f"--listen {listen.text}: plaintext beyond this machine needs --insecure-plaintext"
            complaints.append((("listen", "insecure-plaintext"), reason))
    if complaints:
        raise ConflictingOptions(complaints)
    return Settings(
        listen=value["listen"],
        data_dir=Path(value["data-dir"]),
        workers=value["workers"],
        durability=Durability(value["durability"]),
        encoding=Encoding(value["storage-encoding"]),
        sweep_seconds=value["lease-sweep-interval"],
        claim=ClaimBounds(polls=value["coalesce-max-batch-size"], items=value["coalesce-max-batch-items"]),
        window_ms=value["coalesce-batch-window-ms"],
        wipe=value["wipe"],
        limits=limits,
        listen_tls=value["listen-tls"],
        tls=tls,
        log_format=value["log-format"],
        log_level=value["log-level"],
        drain_seconds=value["drain-seconds"],
        tuning=Tuning(**{choice.name: value[_tuning(choice).name] for choice in TUNING_OPTIONS}),
        free_space_reserve=value["free-space-reserve"],
        views=views,
    )


def _of_limits(names: Collection[str], reason: str) -> Complaint:
    """Return a complaint about limits as one about their options."""
    options = {limit.name: _limit(limit).name for limit in PEER_LIMITS if limit.name in names}
    for limit, option in options.items():
        reason = re.sub(rf"\b{limit}\b", f"--{option}", reason)
    return tuple(options[name] for name in names), reason


def _tls(value: Mapping[str, Any], complaints: Complaints) -> TlsFiles | None:
    certificate = value["tls-certificate"]
    if certificate is None:
        for name in ("listen-tls", "tls-key", "tls-client-ca", "tls-client-name"):
            if value[name]:
                complaints.append(((name, "tls-certificate"), f"--{name} needs --tls-certificate"))
        return None
    if not value["listen-tls"]:
        # An operator who configures a certificate expects the server to use it.
        reason = "--tls-certificate without --listen-tls: no address would use TLS"
        complaints.append((("tls-certificate", "listen-tls"), reason))
    if value["tls-client-name"] and value["tls-client-ca"] is None:
        reason = "--tls-client-name needs --tls-client-ca: without an authority any client can claim any name"
        complaints.append((("tls-client-name", "tls-client-ca"), reason))
    if find_spec("OpenSSL") is None or find_spec("cryptography") is None:
        reason = "--tls-certificate needs the extra `tls`: pip install 'queueber[tls]'"
        complaints.append((("tls-certificate",), reason))
    return TlsFiles(
        certificate=Path(certificate),
        key=Path(value["tls-key"] or certificate),
        client_ca=Path(value["tls-client-ca"]) if value["tls-client-ca"] else None,
        client_names=value["tls-client-name"],
    )
