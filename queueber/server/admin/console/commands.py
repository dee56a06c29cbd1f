"""
The commands of the console.

A command changes nothing and takes milliseconds of the reactor's time, whatever the
size of the server's state: it shows the first rows and the total.
"""

import inspect
from collections.abc import Callable, Iterator
from itertools import islice
from reprlib import repr as shortened
from typing import Any
from uuid import UUID

from attrs import frozen
from twisted.internet.defer import Deferred

from queueber.broker.stats import QueueState, lease_line, queue_line
from queueber.limits import PEER_LIMITS
from queueber.server.admin.console.profiler import Sampler, thread_states
from queueber.server.admin.console.tables import PlainText, Table, printable_name
from queueber.server.admin.handlers import CHECKED_MAX, check, object_count
from queueber.server.monitoring.diagnostics import Diagnostics, Disk
from queueber.server.monitoring.queue_stats import QueueStats
from queueber.server.net.listeners import address_text
from queueber.server.net.states import ConnectionState
from queueber.units import GIB, MS_PER_SECOND, counted, quantity, rounded_span

SHOWN = 50
SHOWN_MAX = 1_000


def _limit_rows(number: int) -> int:
    return max(0, min(number, SHOWN_MAX))


def _note(shown: int, total: int, order: str) -> str:
    return f"{shown:,} of {total:,}, {order}" if shown < total else ""


def _peer(connection: Any) -> str:  # noqa: ANN401  (the connections of the control socket as well)
    """Return the address of the peer."""
    transport = getattr(connection, "transport", None)
    return address_text(transport.getPeer()) if transport is not None else "disconnected"


def _states(state: QueueState) -> str:
    return f"{state.ready:,} ready, {state.delayed:,} delayed, {state.leased:,} leased, {state.unread:,} unread"


_WANTED: dict[object, tuple[type | tuple[type, ...], str]] = {
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "a string"),
    bool: (bool, "True or False"),
}
"""For each annotation of a parameter, the accepted types and their name."""

_HELD = {ConnectionState.PAUSED: "not read", ConnectionState.THROTTLED: "waits for the disk"}
"""The words for connections that the server does not read."""

_SIGNATURES = {"dump": "dump(part)", "profile": "profile(seconds)"}
"""The signatures, for the help, of commands with arguments."""


@frozen(repr=False)
class Command:
    """A command, which explains in a line how it is called if it is called wrongly or typed without parentheses."""

    signature: str
    """The signature, for the help."""

    function: Callable[..., object]
    help: str
    bare: Callable[[], object] | None = None
    """The function that is called without parentheses; None to show the help."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Call the function."""
        wanted = inspect.signature(self.function)
        try:
            given = wanted.bind(*args, **kwargs).arguments
        except TypeError as why:
            return PlainText(f"{self.signature}: {why}.")
        for name, value in given.items():
            kind, words = _WANTED.get(wanted.parameters[name].annotation, (object, ""))
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool and kind is not object):
                return PlainText(f"{self.signature}: {name} is {shortened(value)}; it must be {words}.")
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self.bare()) if self.bare is not None else f"{self.signature}: {self.help}"


class Commands:
    """The commands.  Each public method except `all` is one."""

    def __init__(self, diagnostics: Diagnostics) -> None:
        self._diagnostics = diagnostics
        self._sampler = Sampler(diagnostics.reactor)

    def all(self) -> dict[str, Command]:
        """Return the commands by name."""
        first: tuple[Any, ...] = (
            self.help,
            self.queues,
            self.leases,
            self.waiters,
            self.connections,
            self.stats,
            self.threads,
        )
        more = (self.commits, self.limits, self.dump, self.check, self.profile)
        return {
            name: Command(
                _SIGNATURES.get(name, f"{name}()"),
                question,
                (question.__doc__ or "").strip().partition("\n")[0],
                bare=self.help if name == "help" else None,
            )
            for question in (*first, *more)
            for name in [question.__name__]
        }

    def help(self) -> Table:
        """List the commands."""
        rows = [(command.signature, command.help) for command in self.all().values()]
        return Table(
            ("command", "result"), rows, "They change nothing.  Other input is run by the server as Python code."
        )

    def queues(self, most: int = SHOWN) -> Deferred[Table]:
        """List the queues with the most items, up to 100."""
        return self._diagnostics.queue_stats().addCallback(self._queues, _limit_rows(most))

    def _queues(self, queue_stats: QueueStats, most: int) -> Table:
        def row(state: QueueState) -> tuple[object, ...]:
            age = "?" if state.unread else ""
            if state.oldest is not None:
                age = rounded_span(queue_stats.at - state.oldest)
            return (
                printable_name(state.name),
                state.ready,
                state.delayed,
                state.leased,
                state.unread,
                state.waiting,
                age,
            )

        shown = queue_stats.top[:most]
        columns = ("queue", "ready", "delayed", "leased", "unread", "polls", "oldest ready")
        return Table(
            columns, [row(state) for state in shown], _note(len(shown), queue_stats.queues, "most items first")
        )

    def leases(self, most: int = SHOWN) -> Table:
        """List the leases that end first."""
        diagnostics, now = self._diagnostics, self._diagnostics.clock.now()
        shown = diagnostics.broker.leases.soonest(_limit_rows(most))
        rows = [
            (
                UUID(bytes=lease.id),
                printable_name(diagnostics.broker.queues.by_number(lease.queue).name),
                len(lease.keys),
                lease.state.name.lower(),
                rounded_span(lease.deadline - now),
            )
            for lease in shown
        ]
        note = _note(len(rows), len(diagnostics.broker.leases), "by end")
        return Table(("lease", "queue", "items", "state", "ends in"), rows, note)

    def waiters(self, most: int = SHOWN) -> Table:
        """List the polls that have waited longest."""
        diagnostics, now, seconds = (
            self._diagnostics,
            self._diagnostics.clock.now(),
            self._diagnostics.reactor.seconds(),
        )
        peers = {connection.peer: connection for connection in diagnostics.connections}
        rows = [
            (
                printable_name(waiter.queue.name),
                waiter.wanted,
                rounded_span(waiter.lease_duration),
                waiter.state.name.lower(),
                rounded_span((seconds - arrived_at) * MS_PER_SECOND),
                "never" if waiter.wait_until is None else rounded_span(waiter.wait_until - now),
                _peer(peers.get(waiter.peer)),
            )
            for waiter, arrived_at in islice(diagnostics.dispatcher.unanswered(), _limit_rows(most))
        ]
        note = _note(len(rows), diagnostics.broker.polls.waiting, "longest waiting first")
        return Table(("queue", "wants", "lease", "state", "waited", "gives up in", "peer"), rows, note)

    def connections(self, most: int = SHOWN) -> Table:
        """List the oldest connections."""
        rows, request_bytes = [], self._diagnostics.handlers.request_bytes
        for connection in islice(self._diagnostics.connections, _limit_rows(most)):
            usage = connection.usage()
            state = _HELD.get(connection.state, "")
            held, adds = connection.held_bytes, request_bytes.get(connection.peer, 0)
            age = rounded_span(self._diagnostics.connections.age(connection) * MS_PER_SECOND)
            rows.append((_peer(connection), age, usage.unanswered, usage.exports, held, adds, state))
        note = _note(len(rows), len(self._diagnostics.connections), "oldest first")
        return Table(("peer", "age", "calls", "queues", "bytes held", "bytes in adds", "state"), rows, note)

    def stats(self) -> Deferred[Table]:
        """Show the totals of the server."""
        # Before the query of the disk, which keeps a thread of the pool busy.
        pool = self._pool()
        disk = self._diagnostics.disk()
        return self._diagnostics.queue_stats().addCallback(
            lambda queue_stats: disk.addCallback(self._stats, queue_stats, pool)
        )

    def _pool(self) -> str:
        pool = self._diagnostics.pool
        waiting = counted(pool.waiting, "call waits", "calls wait")
        return f"{pool.busy} of {counted(pool.workers, 'thread')} busy, {waiting}"

    def _stats(self, disk: Disk | None, queue_stats: QueueStats, pool: str) -> Table:
        diagnostics, total = self._diagnostics, queue_stats.total
        committer, load = diagnostics.committer, diagnostics.committer.stats
        now = diagnostics.reactor.seconds()
        recent, age = list(load.since(now - 10)), committer.commit_seconds(now)
        outstanding = counted(diagnostics.handlers.outstanding, "is", "are")
        free = "no answer in time" if disk is None else f"{disk.free_bytes / GIB:,.1f} GiB"
        rows = [
            ("queues", f"{queue_stats.queues:,}"),
            ("items", f"{total.items:,}: {_states(total)}"),
            (
                "leases",
                f"{len(diagnostics.broker.leases):,}; {counted(diagnostics.sweeper.expired, 'has', 'have')} expired",
            ),
            ("waiting polls", f"{diagnostics.broker.polls.waiting:,}"),
            (
                "connections",
                f"{len(diagnostics.connections):,}; {counted(diagnostics.connections.accepted, 'was', 'were')} made",
            ),
            ("calls", f"{diagnostics.handlers.stats.begun.total():,}; {outstanding} not answered"),
            ("refused", f"{diagnostics.handlers.stats.refused.total():,}"),
            ("commits", f"{load.seconds.count:,}; {len(recent) / 10:,.1f} a second lately"),
            ("commit under way", rounded_span(age * MS_PER_SECOND) if committer.committing else "none"),
            ("waits for a commit", counted(committer.pending_bytes, "byte")),
            ("windows in memory", counted(diagnostics.broker.queues.windows.bytes, "byte")),
            ("pool", pool),
            ("reactor lag", f"{rounded_span(diagnostics.lag.worst(60) * MS_PER_SECOND)} at worst in the last minute"),
            ("free space", free),
        ]
        return Table(("figure", "value"), rows)

    def threads(self) -> Table:
        """List all threads, with their CPU time and current function."""
        rows = [(str(each.number), each.name, each.cpu_seconds, each.at) for each in thread_states()]
        return Table(("thread", "name", "cpu s", "Python is at"), rows, f"pool: {self._pool()}")

    def commits(self, most: int = 20) -> Table:
        """List the latest commits, and summarise all."""
        load, now = self._diagnostics.committer.stats, self._diagnostics.reactor.seconds()
        rows = [
            (
                rounded_span((now - each.ended) * MS_PER_SECOND),
                each.seconds * MS_PER_SECOND,
                each.plans,
                each.rows,
                each.bytes,
            )
            for each in islice(reversed(load.last), _limit_rows(most))
        ]
        note = (
            f"all {load.seconds.count:,}: {load.rows.mean:,.1f} rows each,"
            f" {load.seconds.mean * MS_PER_SECOND:.1f} ms (99 % up to {load.seconds.quantile(0.99) * MS_PER_SECOND:g}),"
            f" syncing {load.syncs.mean * MS_PER_SECOND:.1f} ms; postponed {counted(load.stalls, 'time')}"
        )
        return Table(("ago", "took ms", "plans", "rows", "contents"), rows, note)

    def limits(self) -> Table:
        """List the limits and their hits."""
        diagnostics = self._diagnostics
        hits = diagnostics.broker.limit_hits
        rows: list[tuple[object, ...]] = []
        for limit in PEER_LIMITS:
            value = getattr(diagnostics.limits, limit.name)
            shown = limit.zero if value == 0 and limit.zero else quantity(value, limit.unit)
            rows.append((limit.name, shown, hits[limit.name], limit.description))
        known = {limit.name for limit in PEER_LIMITS}
        rows += [(name, "", hits[name], "") for name in sorted(hits) if name not in known]
        return Table(("limit", "value", "hits", "what"), rows)

    def dump(self, part: str = "queues", most: int = SHOWN) -> PlainText:
        """Show the raw state of "queues" or "leases", in a line each."""
        broker = self._diagnostics.broker
        parts: dict[str, tuple[Iterator[str], int]] = {
            "queues": (map(queue_line, broker.queues), len(broker.queues)),
            "leases": (map(lease_line, broker.leases), len(broker.leases)),
        }
        if part not in parts:
            known = " and ".join(f'"{each}"' for each in parts)
            return PlainText(f"There is no part {part!r}; there are {known}.")
        lines, total = parts[part]
        shown = list(islice(lines, _limit_rows(most)))
        return PlainText("\n".join(filter(None, [*shown, _note(len(shown), total, "oldest first")])))

    def check(self, *, force: bool = False) -> PlainText:
        """Check the consistency of the state in memory, which blocks the server meanwhile."""
        diagnostics = self._diagnostics
        size = object_count(diagnostics.broker, diagnostics.limits)
        if size > CHECKED_MAX and not force:
            return PlainText(f"There are {size:,} objects: check(force=True) checks them and blocks the server.")
        found = check(diagnostics.broker, diagnostics.clock.monotonic)
        if found.finding:
            return PlainText(f"NOT consistent: {found.finding}")
        return PlainText(f"Consistent: {counted(size, 'object')}, checked in {rounded_span(found.took_ms)}.")

    def profile(self, seconds: float = 5.0) -> Deferred[Table] | PlainText:
        """Sample all threads for some seconds, and list where they spend their time."""
        try:
            return self._sampler.profile(seconds)
        except ValueError as why:
            return PlainText(f"No profile: {why}.")
