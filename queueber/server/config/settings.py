"""Make a server's `Settings` from the values of its options, and report options that conflict."""

import re
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import frozen

from queueber.broker import ClaimBounds
from queueber.limits import PEER_LIMITS, Limits
from queueber.server.config.console_access import ConsoleAccess, PasswordFileError, parse_access
from queueber.server.config.options import OPTIONS, limit_name, tuning_name
from queueber.server.config.sources import COMMAND_LINE, DEFAULT, Origin, Resolved, Setting, resolve
from queueber.server.config.spec import Complaint, Complaints
from queueber.server.net.certificates import TlsFiles
from queueber.server.net.listeners import Listen, usable_listen
from queueber.store import Durability, Encoding
from queueber.store.tuning import DEFAULT_TUNING, TUNING_OPTIONS, Tuning


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
    http: Listen | None = None
    """The address of the metrics and health pages."""

    manhole: ConsoleAccess | None = None
    """The address of the debugging console, and who may log in."""

    @property
    def places(self) -> list[tuple[str, Listen]]:
        """Return all addresses to listen on, each with the name of its option."""
        found = [("listen", each) for each in self.listen] + [("listen-tls", each) for each in self.listen_tls]
        if self.http is not None:
            found.append(("http", self.http))
        if self.manhole is not None:
            found.append(("manhole", self.manhole.listen))
        return found


@frozen
class ReloadedConfig:
    """The configuration as the environment and the file have it now."""

    settings: Settings
    changed: Mapping[str, Origin]
    """The options whose values have changed since the start, each with its source now."""


class ConflictingOptions(ValueError):
    """Options that are valid each on its own but not together."""

    def __init__(self, complaints: Complaints) -> None:
        super().__init__("; ".join(reason for _, reason in complaints))
        self.complaints = complaints
        """A pair for each conflict: the names of the options, and the reason."""


def load(
    arguments: Mapping[str, Sequence[str]],
    environment: Mapping[str, str],
    *,
    file: str | None = None,
    unknown: Sequence[str] = (),
) -> tuple[dict[str, Setting], Settings]:
    """
    Return the values of all options, and the `Settings` made from them.

    *unknown* are complaints about arguments that are not options.  *file* is as for `resolve`.

    Raises:
        ConfigError: names all mistakes.
    """
    found = resolve(OPTIONS, arguments=arguments, environment=environment, file=file)
    for complaint in unknown:
        found.complain(complaint, COMMAND_LINE)
    settings = None
    try:
        settings = settings_from(found.settings)
    except ConflictingOptions as why:
        for names, reason in why.complaints:
            # A value that is invalid or unknown might resolve the conflict.
            if not found.file_unreadable and found.invalid.isdisjoint(names):
                _complain_of_conflict(found, names, reason)
    found.check()
    assert settings is not None, "every conflict is a complaint"
    return found.settings, settings


def _complain_of_conflict(found: Resolved, names: Sequence[str], reason: str) -> None:
    """
    Record a conflict, with the options in *reason* spelled as in their sources.

    A default is spelled as in the source of the first option that was given, which is where it would be changed.
    """
    settings = [found.settings[name] for name in names]
    origins = [each.origin for each in settings if each.origin not in (COMMAND_LINE, DEFAULT)] or [COMMAND_LINE]
    for setting in settings:
        default = setting.origin == DEFAULT
        name = (origins[0] if default else setting.origin).spell(setting.option)
        reason = re.sub(rf"--{setting.option.name}(?![\w-])", name, reason)
        if default:
            reason = re.sub(rf"({re.escape(name)} \([^)]*)\)", r"\1, the default)", reason)
    found.complain(reason, *origins)


def settings_from(values: Mapping[str, Setting]) -> Settings:
    """
    Return the `Settings` with *values*, the values of all options.

    Raises:
        ConflictingOptions: names all options that conflict.
    """
    value: dict[str, Any] = {name: each.value for name, each in values.items()}
    limits = Limits(**{limit.name: value[limit_name(limit.name)] for limit in PEER_LIMITS})
    complaints = [_of_limits(names, reason) for names, reason in limits.violations()]
    tls = _tls(value, complaints)
    manhole = _manhole(value["manhole"], value["manhole-password-file"], complaints)
    if not value["listen"] and not value["listen-tls"]:
        complaints.append((("listen", "listen-tls"), "there is no address to listen on, neither with TLS nor without"))
    plaintext = [("listen", each) for each in value["listen"]] + [("http", each) for each in [value["http"]] if each]
    for name, listen in plaintext:
        if listen.exposed and not value["insecure-plaintext"]:
            reason = f"--{name} {listen.text}: plaintext beyond this machine needs --insecure-plaintext"
            complaints.append(((name, "insecure-plaintext"), reason))
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
        tuning=Tuning(**{choice.name: value[tuning_name(choice.name)] for choice in TUNING_OPTIONS}),
        free_space_reserve=value["free-space-reserve"],
        http=value["http"],
        manhole=manhole,
    )


def _of_limits(names: Collection[str], reason: str) -> Complaint:
    """Return a complaint about limits as one about their options."""
    for name in names:
        reason = re.sub(rf"\b{name}\b", f"--{limit_name(name)}", reason)
    return tuple(map(limit_name, names)), reason


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


def _manhole(address: str | None, password_file: str | None, complaints: Complaints) -> ConsoleAccess | None:
    if address is None:
        if password_file is not None:
            complaints.append((("manhole-password-file", "manhole"), "--manhole-password-file needs --manhole"))
        return None
    try:
        access = parse_access(address, password_file)
        usable_listen(access.listen.endpoint)
    except PasswordFileError as why:
        complaints.append((("manhole-password-file",), f"--manhole-password-file {why}"))
    except ValueError as why:
        complaints.append((("manhole", "manhole-password-file"), f"--manhole {why}"))
    else:
        return access
    return None
