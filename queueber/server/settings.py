"""
Every option of the service in one table, and what their values make: the `Settings` of a server.

The table feeds the command line and its help, the environment, the
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
from queueber.server.certificates import TlsFiles
from queueber.server.configuration import Setting
from queueber.server.listening import Listen, usable_listen
from queueber.server.option import Complaint, Complaints, Option, Read, amount, one_of, path, real, switch, text, whole
from queueber.server.reserve import RESERVE_BYTES, SMALL_SHARE
from queueber.server.viewing import NOWHERE, VIEWING, Views, views_from
from queueber.store import Durability, Encoding
from queueber.store.tuning import DEFAULT_TUNING, TUNING_OPTIONS, Tuning, TuningOption, read_compression
from queueber.units import Unit, quantity


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
        """Everywhere the server is to listen, with the option that says so."""
        found = [("listen", each) for each in self.listen] + [("listen-tls", each) for each in self.listen_tls]
        if self.views.pages is not None:
            found.append(("http", self.views.pages))
        if self.views.console is not None:
            found.append(("manhole", self.views.console.listen))
        return found


def usable_cores() -> int:
    """The cores this process may use."""
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
        says=f"Limit: {limit.says}. Beyond it: {limit.beyond}",
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
        says="Where to listen without TLS",
        accepts="HOST:PORT, [v6]:PORT or an endpoint string; may be given more than once; '' for nowhere",
    ),
    Option(
        name="listen-tls",
        read=usable_listen,
        default=(),
        shown="nowhere",
        many=True,
        may_be_none=True,
        says="Where to listen with TLS, for which --tls-certificate is needed",
        accepts="as for --listen",
    ),
    Option(
        name="tls-certificate",
        read=path,
        default=None,
        shown="none",
        says="The server's certificate, followed by those between it and its authority",
        accepts="a PEM file",
    ),
    Option(
        name="tls-key",
        read=path,
        default=None,
        shown="the certificate's file",
        says="Its private key, which not everybody may be able to read",
        accepts="a PEM file",
    ),
    Option(
        name="tls-client-ca",
        read=path,
        default=None,
        shown="any client",
        says="The authorities whose clients may connect",
        accepts="a PEM file",
    ),
    Option(
        name="tls-client-name",
        read=text,
        default=(),
        shown="any of theirs",
        many=True,
        says="A name that a client's certificate must have",
        accepts="a name; may be given more than once, and one is enough",
    ),
    Option(
        name="insecure-plaintext", read=switch, default=False, flag=True, says="Allow plaintext beyond this machine"
    ),
    Option(
        name="data-dir",
        short="d",
        read=path,
        default="./queueber-data",
        says="The directory with the data; made if it is not there",
    ),
    Option(
        name="wipe",
        read=switch,
        default=False,
        flag=True,
        command_line_only=True,
        says="Empty the data directory first: one of Queueber's that no server holds, or refuse",
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
        says="What an acknowledged write survives: fsync (a power cut), os (a kill), none (nothing; for measuring)",
        accepts="fsync, os or none",
    ),
    Option(
        name="free-space-reserve",
        read=amount(Unit.BYTES, 0, 1 << 60),
        default=None,
        shown=f"{quantity(RESERVE_BYTES, Unit.BYTES)}, or 1/{SMALL_SHARE} of a smaller disk",
        says="Free space below which adds are refused, while all else goes on; 0 for none",
        accepts="bytes, or with KiB, MiB, GiB",
        unit=Unit.BYTES,
    ),
    Option(
        name="storage-encoding",
        table="storage",
        read=one_of("unpacked", "packed"),
        default="unpacked",
        says="How values are written from now on: unpacked (faster) or packed (smaller)",
        accepts="unpacked or packed",
    ),
    Option(
        name="lease-sweep-interval",
        read=real(0.001, 60.0),
        default=0.1,
        says="Seconds between two looks for leases that have run out",
        accepts="0.001 to 60",
    ),
    Option(
        name="coalesce-max-batch-size",
        read=whole(1, 100_000),
        default=64,
        says="Polls served by one claim, at most",
        accepts="1 to 100,000",
    ),
    Option(
        name="coalesce-max-batch-items",
        read=whole(1, 1_000_000),
        default=512,
        says="Items handed out by one claim, at most, after one whole poll",
        accepts="1 to 1,000,000",
    ),
    Option(
        name="coalesce-batch-window-ms",
        read=whole(0, 10_000),
        default=0,
        says="How long an idle server waits for more before it cuts a commit",
        accepts="0 to 10,000",
    ),
    Option(
        name="drain-seconds",
        read=real(0, 3600),
        default=10.0,
        says="How long a server that stops waits for the calls under way, and then for its peers to take their replies",
        accepts="0 to 3,600",
    ),
    Option(
        name="log-format",
        read=one_of("auto", "text", "json"),
        default="auto",
        says="How the log is written: text, json (one object a line), or as twistd and twist do by themselves",
        accepts="auto, text or json",
    ),
    Option(
        name="log-level",
        read=one_of("debug", "info", "warn", "error", "critical"),
        default="info",
        says="The least that is logged",
        accepts="debug, info, warn, error or critical",
    ),
    *VIEWING,
)

OPTIONS = (*SERVING, *map(_tuning, TUNING_OPTIONS), *map(_limit, PEER_LIMITS))
"""All of them, in the order in which they are shown."""


class Contradiction(ValueError):
    """Options that are right by themselves and not together."""

    def __init__(self, complaints: Complaints) -> None:
        super().__init__("; ".join(reason for _, reason in complaints))
        self.complaints = complaints
        """Of each contradiction the names of the options, and the reason."""


def settings_from(settings: Mapping[str, Setting]) -> Settings:
    """
    What all options make together.

    Raises:
        Contradiction: naming all that contradict each other.
    """
    value: dict[str, Any] = {name: each.value for name, each in settings.items()}
    limits = Limits(**{limit.name: value[_limit(limit).name] for limit in PEER_LIMITS})
    complaints = [_of_limits(names, reason) for names, reason in limits.complaints()]
    tls = _tls(value, complaints)
    views = views_from(value, complaints)
    if not value["listen"] and not value["listen-tls"]:
        complaints.append((("listen", "listen-tls"), "there is no place to listen, neither with TLS nor without"))
    for listen in value["listen"]:
        if listen.exposed and not value["insecure-plaintext"]:
            reason = f"--listen {listen.text}: plaintext beyond this machine needs --insecure-plaintext"
            complaints.append((("listen", "insecure-plaintext"), reason))
    if complaints:
        raise Contradiction(complaints)
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
    """A complaint about limits as one about the options for them."""
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
        # Whoever has put a certificate there believes that it is shown.
        reason = "--tls-certificate without --listen-tls: nobody would be served with TLS"
        complaints.append((("tls-certificate", "listen-tls"), reason))
    if value["tls-client-name"] and value["tls-client-ca"] is None:
        reason = "--tls-client-name needs --tls-client-ca: names mean nothing unless somebody vouches for them"
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
