"""
The server's figures, as Prometheus wants them.

Nothing is kept for that: a scrape reads what the parts of the server count
anyway.  No label takes more values than a server has limits, methods and
levels, or `survey.TOP` queues and one for the rest.

This is the only module that knows prometheus_client, of which it takes the
format and not the registry: that is global.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from attrs import frozen
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.utils import floatToGoString

from queueber import __version__
from queueber.broker.stats import QueueState
from queueber.errors import Kind
from queueber.limits import PEER_LIMITS
from queueber.server.core.sweeper import ATTEMPTS
from queueber.server.monitoring.diagnostics import Check, Diagnostics, Disk, readiness
from queueber.server.monitoring.histogram import Histogram
from queueber.server.monitoring.queue_stats import QueueStats
from queueber.server.monitoring.stats import ALL
from queueber.store.properties import LEVELS
from queueber.units import MS_PER_SECOND

_STATES = ("ready", "delayed", "leased", "unread")

_ENGINE = {
    "table_bytes": "In table files, those that wait to be deleted included",
    "live_table_bytes": "In table files that are part of the database",
    "blob_bytes": "In files of large contents, those that wait to be deleted included",
    "live_blob_bytes": "In files of large contents that are part of the database",
    "write_buffer_bytes": "In memory, on the way to table files",
    "waiting_write_buffers": "Write buffers that are full and wait to be written to a table file",
    "block_cache_bytes": "In the block cache",
    "table_reader_bytes": "In memory for open table files",
    "pending_compaction_bytes": "To be rewritten before the levels have the sizes they should have",
    "running_compactions": "Compactions under way",
    "running_flushes": "Flushes under way",
    "background_errors": "Errors of flushes and compactions",
    "write_stopped": "1 while no write is taken because flushing or compacting has to catch up",
    "delayed_write_bytes_per_second": "To how much writes are slowed down; 0 if they are not",
    "rows": "Rows, about",
}
"""What is told of the engine, beside the files of each level."""


@frozen
class ScrapeData:
    """What had to be asked for before a scrape can be answered."""

    survey: QueueStats
    disk: Disk | None
    pool_busy: int
    """As it was before the disk was asked, which keeps a thread busy."""

    pool_waiting: int


def exposition(diagnostics: Diagnostics, facts: ScrapeData, accept: str) -> tuple[bytes, str]:
    """All metrics, and their content type, which is one that *accept* names."""
    encode, content_type = choose_encoder(accept)
    return encode(cast(CollectorRegistry, _Collected(diagnostics, facts))), content_type


def absent_exposition(durability: str, checks: Sequence[Check], accept: str) -> tuple[bytes, str]:
    """The same of a server that does not serve: what it is, that it is not ready, and its process."""
    encode, content_type = choose_encoder(accept)
    return encode(cast(CollectorRegistry, _Absent(durability, checks))), content_type


@frozen
class _Absent:
    durability: str
    checks: Sequence[Check]

    def collect(self) -> Iterator[Metric]:
        """All there are."""
        yield _info(self.durability)
        yield _ready(self.checks)
        yield from ProcessCollector(registry=None).collect()


@frozen
class _Collected:
    """Looks like a registry to an encoder, which asks for nothing else."""

    diagnostics: Diagnostics
    facts: ScrapeData

    def collect(self) -> Iterator[Metric]:
        """All there are."""
        diagnostics = self.diagnostics
        yield _info(diagnostics.durability)
        yield from _queues(self.facts.survey, diagnostics)
        yield from _calls(diagnostics)
        yield from _commits(diagnostics)
        yield from _peers(diagnostics)
        yield from _limits(diagnostics)
        yield from _process(diagnostics, self.facts)
        if self.facts.disk is not None:
            yield from _disk(self.facts.disk)
        yield from ProcessCollector(registry=None).collect()


def _info(durability: str) -> Metric:
    return _gauge("queueber_info", "1; the labels tell what it is", 1, version=__version__, durability=durability)


def _ready(checks: Sequence[Check]) -> Metric:
    family = GaugeMetricFamily("queueber_ready", "1 if the check is passed, of those of /readyz", labels=["check"])
    for check in checks:
        family.add_metric([check.name], check.passed)
    return family


def _gauge(name: str, says: str, value: float, **labels: str) -> Metric:
    family = GaugeMetricFamily(name, says, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _count(name: str, says: str, value: float) -> Metric:
    return CounterMetricFamily(name, says, value=value)


def _counts(name: str, says: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, says, labels=[label])
    for each, value in values.items():
        family.add_metric([each], value)
    return family


def _histograms(name: str, says: str, histograms: Mapping[str, Histogram], label: str | None = None) -> Metric:
    family = HistogramMetricFamily(name, says, labels=[label] if label else [])
    for each, histogram in histograms.items():
        buckets = [
            (str(floatToGoString(bound)), count)  # type: ignore[no-untyped-call]
            for bound, count in histogram.cumulative()
        ]
        family.add_metric([each] if label else [], buckets, histogram.total)
    return family


def _queues(survey: QueueStats, diagnostics: Diagnostics) -> Iterator[Metric]:
    named = [*survey.top, survey.rest] if survey.rest.items or survey.rest.waiting else list(survey.top)
    items = GaugeMetricFamily("queueber_items", "Items by queue and state", labels=["queue", "state"])
    waiting = GaugeMetricFamily("queueber_queue_waiting_polls", "Polls in line, by queue", labels=["queue"])
    oldest = GaugeMetricFamily(
        "queueber_oldest_ready_seconds", "For how long the first item in line has been ready", labels=["queue"]
    )
    for state in named:
        for each in _STATES:
            items.add_metric([state.name, each], getattr(state, each))
        waiting.add_metric([state.name], state.waiting)
        if (age := _age(state, survey)) is not None:
            oldest.add_metric([state.name], age)
    yield from (items, waiting, oldest)
    yield _gauge("queueber_queues", "Queues that hold or held items", survey.queues)
    yield _count("queueber_items_added", "Items added since the data directory was made", survey.added)
    yield _count("queueber_items_removed", "Items removed since the data directory was made", survey.removed)
    yield _gauge("queueber_leases", "Leases", len(diagnostics.broker.leases))
    yield _gauge("queueber_leased_items", "Items under a lease", survey.total.leased)
    yield _count("queueber_leases_expired", "Leases that ran out with items under them", diagnostics.sweeper.ended)
    says = "How often items could not be read, and were passed over or left for later"
    yield _count("queueber_unreadable", says, diagnostics.dispatcher.unreadable + diagnostics.sweeper.unreadable)
    yield _counts(
        "queueber_redeliveries",
        "Items put back because their lease ran out, by how often they had been handed out: at least so many times",
        "attempts",
        {str(step): diagnostics.sweeper.redelivered[step] for step in ATTEMPTS},
    )
    yield _gauge("queueber_waiting_polls", "Polls that wait", diagnostics.broker.polls.waiting)
    yield _gauge(
        "queueber_window_bytes", "In memory for the heads of all queues", diagnostics.broker.queues.window_bytes
    )
    yield _gauge("queueber_survey_seconds", "What looking at all queues cost the reactor the last time", survey.seconds)


def _age(state: QueueState, survey: QueueStats) -> float | None:
    if state.oldest is None:
        # If there are items that nobody has read, one of them may be older than any other.
        return None if state.unread else 0.0
    return max(0, survey.at - state.oldest) / MS_PER_SECOND


def _calls(diagnostics: Diagnostics) -> Iterator[Metric]:
    calls = diagnostics.methods.calls
    yield _counts("queueber_calls", "Calls that came, by method", "method", {each: calls.begun[each] for each in ALL})
    refused = CounterMetricFamily("queueber_call_errors", "Calls that were refused", labels=["method", "kind"])
    for method in ALL:
        for kind in Kind:
            refused.add_metric([method, kind.name.lower()], calls.refused[method, kind])
    yield refused
    says = "From reading a call to giving its reply; that of a poll includes its wait"
    yield _histograms("queueber_call_seconds", says, calls.seconds, "method")
    yield _gauge("queueber_outstanding_calls", "Calls that have not been answered", diagnostics.methods.outstanding)


def _commits(diagnostics: Diagnostics) -> Iterator[Metric]:
    committer, load = diagnostics.committer, diagnostics.committer.load
    yield _histograms("queueber_commit_seconds", "From a commit's cut until it is durable", {"": load.seconds})
    yield _histograms("queueber_commit_rows", "Rows that a commit writes", {"": load.rows})
    yield _histograms("queueber_commit_bytes", "Contents that a commit writes", {"": load.bytes})
    yield _histograms("queueber_sync_seconds", "What syncing the log takes", {"": load.syncs})
    age = load.age(diagnostics.reactor.seconds())
    yield _gauge("queueber_commit_age_seconds", "For how long the commit under way has been so; 0 if none is", age)
    yield _count("queueber_commit_stalls", "Attempts that the engine put off to catch up", load.stalls)
    yield _gauge("queueber_pending_bytes", "What waits for the disk", committer.pending_bytes)


def _peers(diagnostics: Diagnostics) -> Iterator[Metric]:
    connections = diagnostics.connections
    yield _gauge("queueber_connections", "Connections", len(connections))
    yield _count("queueber_connections_made", "Connections that were let in", connections.made)
    yield _gauge("queueber_buffered_bytes", "Messages begun and replies not taken", connections.buffers.total)
    if diagnostics.certificates is not None:
        ends = diagnostics.certificates.expires.timestamp()
        yield _gauge("queueber_certificate_expiration_timestamp_seconds", "When the server's certificate ends", ends)
    yield _gauge("queueber_manhole_sessions", "Sessions of the debugging console", diagnostics.consoles)


def _limits(diagnostics: Diagnostics) -> Iterator[Metric]:
    names = [limit.name for limit in PEER_LIMITS]
    limits = GaugeMetricFamily("queueber_limit", "Each limit; 0 is none", labels=["limit"])
    for name in names:
        limits.add_metric([name], getattr(diagnostics.limits, name))
    yield limits
    hits = diagnostics.broker.limit_hits
    yield _counts(
        "queueber_limit_hits",
        "How often each limit was hit",
        "limit",
        {each: hits[each] for each in sorted({*names, *hits})},
    )


def _process(diagnostics: Diagnostics, facts: ScrapeData) -> Iterator[Metric]:
    yield _gauge("queueber_pool_threads", "Storage threads", diagnostics.pool.workers)
    yield _gauge("queueber_pool_busy_threads", "Storage threads at work", facts.pool_busy)
    yield _gauge("queueber_pool_waiting", "Calls that wait for a storage thread", facts.pool_waiting)
    says = "How late the reactor comes to a timer, looked at ten times a second"
    yield _histograms("queueber_reactor_lag_seconds", says, {"": diagnostics.lag.lateness})
    yield _ready(readiness(diagnostics))


def _disk(disk: Disk) -> Iterator[Metric]:
    yield _gauge("queueber_disk_free_bytes", "Where the data directory is", disk.free_bytes)
    if disk.free_inodes is not None:
        yield _gauge("queueber_disk_free_inodes", "Files that may still be made there", disk.free_inodes)
    files = GaugeMetricFamily("queueber_engine_files", "RocksDB's table files, by level", labels=["level"])
    for level in range(LEVELS):
        if (count := disk.properties.get(f"level_{level}_files")) is not None:
            files.add_metric([str(level)], count)
    yield files
    for name, says in _ENGINE.items():
        if (value := disk.properties.get(name)) is not None:
            yield _gauge(f"queueber_engine_{name}", f"RocksDB: {says[0].lower()}{says[1:]}", value)
