"""
The metrics in Prometheus format.

A scrape reads the counters that the parts of the server have anyway.  The values
of each label are bounded: limits, methods and levels are fixed, and queues are
the largest `queue_stats.TOP` plus one for the rest.

Only this module imports prometheus_client.  Each scrape has a registry of its
own, because the counters are not those of prometheus_client.
"""

from collections.abc import Iterator, Mapping, Sequence

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
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from queueber import __version__
from queueber.broker.deaths import COUNTED_QUEUES_MAX
from queueber.broker.stats import QueueState
from queueber.errors import Kind
from queueber.limits import PEER_LIMITS
from queueber.server.core.histogram import Histogram
from queueber.server.core.stats import ALL
from queueber.server.core.sweeper import ATTEMPT_STEPS
from queueber.server.monitoring.diagnostics import Check, Diagnostics, Disk, readiness
from queueber.server.monitoring.queue_stats import OTHER_QUEUES, QueueStats
from queueber.store.datadir.database import LEVELS
from queueber.units import MS_PER_SECOND

_STATES = ("ready", "delayed", "leased", "unread")

_ENGINE = {
    "table_bytes": "Size of the table files, including those to be deleted",
    "live_table_bytes": "Size of the table files that are part of the database",
    "blob_bytes": "Size of the blob files, including those to be deleted",
    "live_blob_bytes": "Size of the blob files that are part of the database",
    "write_buffer_bytes": "Size of the write buffers",
    "waiting_write_buffers": "Full write buffers that wait to be flushed to a table file",
    "block_cache_bytes": "Size of the block cache",
    "table_reader_bytes": "Memory for open table files",
    "pending_compaction_bytes": "Bytes to compact until all levels have their target sizes",
    "running_compactions": "Compactions under way",
    "running_flushes": "Flushes under way",
    "background_errors": "Errors of flushes and compactions",
    "write_stopped": "1 while writes are stopped until flushes or compactions catch up",
    "delayed_write_bytes_per_second": "The rate to which writes are slowed down; 0 if they are not",
    "rows": "Estimated number of rows",
}
"""The properties of the engine that are shown, in addition to the files of each level."""


@frozen
class ScrapeData:
    """The data that is collected asynchronously before a scrape is answered."""

    stats: QueueStats
    disk: Disk | None
    pool_busy: int
    """The number before the disk was queried, which keeps a thread busy."""

    pool_waiting: int


def exposition(diagnostics: Diagnostics, data: ScrapeData, accept: str) -> tuple[bytes, str]:
    """Return all metrics and their content type, which is one of *accept*."""
    encode, content_type = choose_encoder(accept)
    return encode(_registry(_Collected(diagnostics, data))), content_type


def not_serving_exposition(durability: str, checks: Sequence[Check], accept: str) -> tuple[bytes, str]:
    """Return the metrics of a server that starts or stops: its version, readiness and process."""
    encode, content_type = choose_encoder(accept)
    return encode(_registry(_NotServing(durability, checks))), content_type


def _registry(collector: Collector) -> CollectorRegistry:
    """Return a registry with the metrics of *collector*."""
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


@frozen(eq=False)
class _NotServing(Collector):
    """The metrics of a server that does not serve."""

    durability: str
    checks: Sequence[Check]

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield _info(self.durability)
        yield _ready(self.checks)
        yield from ProcessCollector(registry=None).collect()


@frozen(eq=False)
class _Collected(Collector):
    """The metrics of a server that serves."""

    diagnostics: Diagnostics
    data: ScrapeData

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        diagnostics = self.diagnostics
        yield _info(diagnostics.durability)
        yield from _queues(self.data.stats, diagnostics)
        yield from _calls(diagnostics)
        yield from _commits(diagnostics)
        yield from _peers(diagnostics)
        yield from _limits(diagnostics)
        yield from _process(diagnostics, self.data)
        if self.data.disk is not None:
            yield from _disk(self.data.disk)
        yield from ProcessCollector(registry=None).collect()


def _info(durability: str) -> Metric:
    return _gauge("queueber_info", "1, with version and durability", 1, version=__version__, durability=durability)


def _ready(checks: Sequence[Check]) -> Metric:
    family = GaugeMetricFamily("queueber_ready", "1 if a check of /readyz is passed", labels=["check"])
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


def _queues(stats: QueueStats, diagnostics: Diagnostics) -> Iterator[Metric]:
    named = [*stats.top, stats.rest] if stats.rest.items or stats.rest.waiting else list(stats.top)
    items = GaugeMetricFamily("queueber_items", "Items by queue and state", labels=["queue", "state"])
    waiting = GaugeMetricFamily("queueber_queue_waiting_polls", "Waiting polls by queue", labels=["queue"])
    oldest = GaugeMetricFamily(
        "queueber_oldest_ready_seconds", "The time since the first item of the queue became ready", labels=["queue"]
    )
    for state in named:
        for each in _STATES:
            items.add_metric([state.name, each], getattr(state, each))
        waiting.add_metric([state.name], state.waiting)
        if (age := _age(state, stats)) is not None:
            oldest.add_metric([state.name], age)
    yield from (items, waiting, oldest)
    says = "Queues whose first item has not been read, so that queueber_oldest_ready_seconds leaves them out"
    yield _gauge("queueber_unknown_age_queues", says, stats.unknown_age)
    yield _gauge("queueber_queues", "Queues that hold or held items", stats.queues)
    yield _count("queueber_items_added", "Items added since the data directory was created", stats.added)
    yield _count("queueber_items_removed", "Items removed since the data directory was created", stats.removed)
    yield _gauge("queueber_leases", "Leases", len(diagnostics.broker.leases))
    yield _gauge("queueber_leased_items", "Items under a lease", stats.total.leased)
    yield _count("queueber_leases_expired", "Leases that expired with items", diagnostics.sweeper.expired)
    says = "Items that could not be read, and were skipped or postponed"
    yield _count("queueber_unreadable", says, diagnostics.dispatcher.unreadable + diagnostics.sweeper.unreadable)
    yield _counts(
        "queueber_redeliveries",
        "Items returned because their lease expired, by the number of deliveries so far: at least so many",
        "attempts",
        {str(step): diagnostics.sweeper.redelivered[step] for step in ATTEMPT_STEPS},
    )
    says = f"Items that died, by queue and reason; {OTHER_QUEUES!r} for those after the first {COUNTED_QUEUES_MAX}"
    deaths = CounterMetricFamily("queueber_deaths", says, labels=["queue", "reason"])
    for (name, reason), count in diagnostics.broker.deaths.counts.items():
        deaths.add_metric([name or OTHER_QUEUES, reason.name.lower()], count)
    yield deaths
    says = "Items that were dropped because they had expired, or were dead for too long, by queue and reason"
    drops = CounterMetricFamily("queueber_drops", says, labels=["queue", "reason"])
    for (name, why), count in diagnostics.broker.deaths.drops.items():
        drops.add_metric([name or OTHER_QUEUES, why.value], count)
    yield drops
    yield _gauge("queueber_waiting_polls", "Waiting polls", diagnostics.broker.polls.waiting)
    yield _gauge(
        "queueber_window_bytes", "Memory for the windows of all queues", diagnostics.broker.queues.windows.bytes
    )
    yield _gauge("queueber_survey_seconds", "The reactor's time for the last statistics of all queues", stats.seconds)


def _age(state: QueueState, stats: QueueStats) -> float | None:
    if state.oldest is None:
        # One of the unread items may be older than all others.
        return None if state.unread else 0.0
    return max(0, stats.at - state.oldest) / MS_PER_SECOND


def _calls(diagnostics: Diagnostics) -> Iterator[Metric]:
    calls = diagnostics.handlers.stats
    yield _counts("queueber_calls", "Calls received, by method", "method", {each: calls.begun[each] for each in ALL})
    refused = CounterMetricFamily(
        "queueber_call_errors", "Calls refused, by method and kind of error", labels=["method", "kind"]
    )
    for method in ALL:
        for kind in Kind:
            refused.add_metric([method, kind.name.lower()], calls.refused[method, kind])
    yield refused
    says = "The time from reading a call to sending its reply, including the wait of a poll"
    yield _histograms("queueber_call_seconds", says, calls.seconds, "method")
    yield _gauge("queueber_outstanding_calls", "Calls that are not answered yet", diagnostics.handlers.outstanding)


def _commits(diagnostics: Diagnostics) -> Iterator[Metric]:
    committer, load = diagnostics.committer, diagnostics.committer.stats
    yield _histograms("queueber_commit_seconds", "The time from a commit's cut until it is durable", {"": load.seconds})
    yield _histograms("queueber_commit_rows", "Rows per commit", {"": load.rows})
    yield _histograms("queueber_commit_bytes", "Bytes of contents per commit", {"": load.bytes})
    yield _histograms("queueber_sync_seconds", "The time for syncing the log", {"": load.syncs})
    age = committer.commit_seconds(diagnostics.reactor.seconds())
    yield _gauge("queueber_commit_age_seconds", "The age of the commit under way; 0 without one", age)
    yield _count("queueber_commit_stalls", "Commits that were postponed until the engine caught up", load.stalls)
    yield _gauge("queueber_pending_bytes", "Memory for plans that wait for a commit", committer.pending_bytes)


def _peers(diagnostics: Diagnostics) -> Iterator[Metric]:
    connections = diagnostics.connections
    yield _gauge("queueber_connections", "Connections", len(connections))
    yield _count("queueber_connections_made", "Connections accepted", connections.accepted)
    yield _gauge("queueber_buffered_bytes", "Memory for partial messages and unsent replies", connections.memory.total)
    if diagnostics.certificates is not None:
        ends = diagnostics.certificates.expires.timestamp()
        yield _gauge("queueber_certificate_expiration_timestamp_seconds", "The end of the server's certificate", ends)
    yield _gauge("queueber_manhole_sessions", "Sessions of the debugging console", diagnostics.consoles.open)


def _limits(diagnostics: Diagnostics) -> Iterator[Metric]:
    names = [limit.name for limit in PEER_LIMITS]
    limits = GaugeMetricFamily("queueber_limit", "The value of each limit; 0 for none", labels=["limit"])
    for name in names:
        limits.add_metric([name], getattr(diagnostics.limits, name))
    yield limits
    hits = diagnostics.broker.limit_hits
    yield _counts(
        "queueber_limit_hits",
        "Hits of each limit",
        "limit",
        {each: hits[each] for each in sorted({*names, *hits})},
    )


def _process(diagnostics: Diagnostics, data: ScrapeData) -> Iterator[Metric]:
    yield _gauge("queueber_pool_threads", "Storage threads", diagnostics.pool.workers)
    yield _gauge("queueber_pool_busy_threads", "Storage threads at work", data.pool_busy)
    yield _gauge("queueber_pool_waiting", "Calls that wait for a storage thread", data.pool_waiting)
    says = "The delay of the reactor's timers, measured ten times a second"
    yield _histograms("queueber_reactor_lag_seconds", says, {"": diagnostics.lag.lateness})
    yield _ready(readiness(diagnostics))


def _disk(disk: Disk) -> Iterator[Metric]:
    yield _gauge("queueber_disk_free_bytes", "Free space on the file system of the data directory", disk.free_bytes)
    if disk.free_inodes is not None:
        yield _gauge("queueber_disk_free_inodes", "Files that can still be created there", disk.free_inodes)
    files = GaugeMetricFamily("queueber_engine_files", "RocksDB's table files, by level", labels=["level"])
    for level in range(LEVELS):
        if (count := disk.properties.get(f"level_{level}_files")) is not None:
            files.add_metric([str(level)], count)
    yield files
    for name, says in _ENGINE.items():
        if (value := disk.properties.get(name)) is not None:
            yield _gauge(f"queueber_engine_{name}", f"RocksDB: {says[0].lower()}{says[1:]}", value)
