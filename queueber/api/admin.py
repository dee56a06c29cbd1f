"""
The methods of ``admin.capnp``: their numbers, and their parameters and results as values.

None of these calls is frequent, so all go through the layouts.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import asdict, field, frozen

from queueber.api.fields import values_of
from queueber.capnp.layout import field_name, layout
from queueber.capnp.schema import schema
from queueber.rpc.messages import Params, Results

_ADMIN = schema().interfaces["Admin"]

ADMIN_INTERFACE_ID: Final = _ADMIN.id

SERVER_STATS: Final = _ADMIN.methods.index("stats")
CHECK: Final = _ADMIN.methods.index("check")
BACKUP: Final = _ADMIN.methods.index("backup")
BACKUP_PROGRESS: Final = _ADMIN.methods.index("backupProgress")
"""The methods of `ADMIN_INTERFACE_ID`."""


@frozen(kw_only=True)
class ServerStats:
    """The statistics of a server; the schema explains each."""

    version: str = ""
    uptime_ms: int = 0
    queues: int = 0
    items: int = 0
    leases: int = 0
    leased_items: int = 0
    waiting_polls: int = 0
    connections: int = 0
    window_bytes: int = 0
    pending_bytes: int = 0
    commits: int = 0
    free_bytes: int = 0
    reserve_bytes: int = 0
    refusing_adds: bool = False
    limit_hits: Mapping[str, int] = field(factory=dict)
    """The number of hits of each limit, by its name."""


@frozen
class Checked:
    """The findings of a server's self-check."""

    findings: Sequence[str]
    took_ms: int


def write_no_params(method: int) -> bytes:
    """Write the empty parameters of *method*."""
    return layout(_ADMIN.params[method]).build()


@frozen
class BackupRequest:
    """The target directory of a backup."""

    path: bytes
    """The path as bytes, in any encoding."""

    device: int = 0
    inode: int = 0
    """With the device, the client's identity of the path, or of its last existing directory; both 0 if unknown."""


@frozen
class BackupMade:
    """The outcome of a backup."""

    device: int = 0
    inode: int = 0
    """With the device, the identity of the directory with the backup; both 0 from a server without this field."""

    elsewhere: bool = False
    """Whether the path leads to another directory for the server, which then made no backup."""


def write_backup_request(request: BackupRequest) -> bytes:
    """Write the parameters of `backup`."""
    return layout(_ADMIN.params[BACKUP]).build(path=request.path, device=request.device, inode=request.inode)


def read_backup_request(params: Params) -> BackupRequest:
    """
    Read the parameters of `backup`.

    Raises:
        RemoteProtocolError: the parameters are malformed.
    """
    return BackupRequest(**values_of(params, _ADMIN.params[BACKUP]))


def write_check_request(*, force: bool) -> bytes:
    """Write the parameter of `check`."""
    return layout(_ADMIN.params[CHECK]).build(force=force)


def read_check_request(params: Params) -> bool:
    """
    Read the parameter of `check`; False from a client without this field.

    Raises:
        RemoteProtocolError: the parameter is malformed.
    """
    force: bool = values_of(params, _ADMIN.params[CHECK])["force"]
    return force


def write_stats_response(stats: ServerStats) -> bytes:
    """Write the results of `stats`."""
    fields: dict[str, Any] = {field_name(name): value for name, value in asdict(stats).items()}
    fields["limitHits"] = [{"limit": limit, "count": count} for limit, count in stats.limit_hits.items()]
    return layout(_ADMIN.results[SERVER_STATS]).build(stats=fields)


def read_stats_response(results: Results) -> ServerStats:
    """Read the results of `stats`."""
    found = values_of(results.content, _ADMIN.results[SERVER_STATS])["stats"] or {}
    fields = {name: found[field_name(name)] for name in asdict(ServerStats()) if field_name(name) in found}
    fields["limit_hits"] = {each["limit"]: each["count"] for each in fields.get("limit_hits", ())}
    return ServerStats(**fields)


def write_check_response(checked: Checked) -> bytes:
    """Write the results of `check`."""
    findings = [{"text": text} for text in checked.findings]
    return layout(_ADMIN.results[CHECK]).build(findings=findings, tookMs=checked.took_ms)


def read_check_response(results: Results) -> Checked:
    """Read the results of `check`."""
    found = values_of(results.content, _ADMIN.results[CHECK])
    return Checked([each["text"] for each in found["findings"]], found["tookMs"])


def write_backup_response(made: BackupMade) -> bytes:
    """Write the results of `backup`."""
    return layout(_ADMIN.results[BACKUP]).build(**asdict(made))


def read_backup_response(results: Results) -> BackupMade:
    """Read the results of `backup`."""
    return BackupMade(**values_of(results.content, _ADMIN.results[BACKUP]))


def write_progress_response(done: int, total: int) -> bytes:
    """Write the results of `backupProgress`."""
    return layout(_ADMIN.results[BACKUP_PROGRESS]).build(doneBytes=done, totalBytes=total)


def read_progress_response(results: Results) -> tuple[int, int]:
    """Read the results of `backupProgress`."""
    found = values_of(results.content, _ADMIN.results[BACKUP_PROGRESS])
    return found["doneBytes"], found["totalBytes"]
