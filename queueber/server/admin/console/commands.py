"""
What the console can be asked.

Each question reads, changes nothing and costs the reactor milliseconds at
most, however much there is: it shows the first rows, and how many there are.
"""

from collections.abc import Callable, Iterator
from inspect import signature
from itertools import islice
from reprlib import repr as shortened
from typing import Any
from uuid import UUID

from attrs import frozen
from twisted.internet.defer import Deferred

from queueber.broker.stats import QueueState, lease_line, queue_line
from queueber.limits import PEER_LIMITS
from queueber.server.admin.console.profiler import Sampler, thread_states
from queueber.server.admin.console.tables import Message, Table, named
from queueber.server.admin.handlers import CHECKED_MAX, check, size_of
from queueber.server.monitoring.diagnostics import Diagnostics, Disk
from queueber.server.monitoring.queue_stats import QueueStats
from queueber.server.net.listeners import address_text
from queueber.units import GIB, MS_PER_SECOND, counted, quantity, rounded_span

SHOWN = 50
SHOWN_MAX = 1_000


def _few(number: int) -> int:
    return max(0, min(number, SHOWN_MAX))


def _note(shown: int, total: int, order: str) -> str:
    return f"{shown:,} of {total:,}, {order}" if shown < total else ""


def _peer(connection: Any) -> str:  # noqa: ANN401  (whoever the server speaks to)
    """Who is at the other end."""
    transport = getattr(connection, "transport", None)
    return address_text(transport.getPeer()) if transport is not None else "nobody any more"


def _states(state: QueueState) -> str:
    return f"{state.ready:,} ready, {state.delayed:,} delayed, {state.leased:,} leased, {state.unread:,} unread"


_WANTED: dict[object, tuple[type | tuple[type, ...], str]] = {
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "a text"),
    bool: (bool, "True or False"),
}
"""What an argument of each kind may be."""

_ARGUED = {"dump": "dump(part)", "profile": "profile(seconds)"}
"""How those are asked that want to be told something."""


@frozen(repr=False)
class Command:
    """A question as people type it: one that is typed wrongly, or without its parentheses, is answered in a line."""

    sign: str
    """How it is asked."""

    ask: Callable[..., object]
    says: str
    bare: Callable[[], object] | None = None
    """What it shows without its parentheses; None for a line about it."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Ask."""
        wanted = signature(self.ask)
        try:
            given = wanted.bind(*args, **kwargs).arguments
        except TypeError as why:
            return Message(f"{self.sign}: {why}.")
        for name, value in given.items():
            kind, words = _WANTED.get(wanted.parameters[name].annotation, (object, ""))
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool and kind is not object):
                return Message(f"{self.sign}: {name} is {shortened(value)}; it must be {words}.")
        return self.ask(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self.bare()) if self.bare is not None else f"{self.sign}: {self.says}"


class Commands:
    """The questions, by the names of the methods."""

    def __init__(self, diagnostics: Diagnostics) -> None:
        self._diagnostics = diagnostics
        self._sampler = Sampler(diagnostics.reactor)

    def all(self) -> dict[str, Command]:
        """Each by its name."""
        asked: tuple[Any, ...] = (
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
                _ARGUED.get(name, f"{name}()"),
                question,
                (question.__doc__ or "").strip().partition("\n")[0],
                bare=self.help if name == "help" else None,
            )
            for question in (*asked, *more)
            for name in [question.__name__]
        }

    def help(self) -> Table:
        """What can be asked."""
        rows = [(question.sign, question.says) for question in self.all().values()]
        return Table(("question", "answer"), rows, "They change nothing.  Anything else is Python, run by the server.")

    def queues(self, most: int = SHOWN) -> Deferred[Table]:
        """The queues with the most items, up to 100."""
        return self._diagnostics.queue_stats().addCallback(self._queues, _few(most))

    def _queues(self, survey: QueueStats, most: int) -> Table:
        def row(state: QueueState) -> tuple[object, ...]:
            age = "?" if state.unread else ""
            if state.oldest is not None:
                age = rounded_span(survey.at - state.oldest)
            return (named(state.name), state.ready, state.delayed, state.leased, state.unread, state.waiting, age)

        shown = survey.top[:most]
        columns = ("queue", "ready", "delayed", "leased", "unread", "polls", "oldest ready")
        return Table(columns, [row(state) for state in shown], _note(len(shown), survey.queues, "most items first"))

    def leases(self, most: int = SHOWN) -> Table:
        """The leases that end first."""
        diagnostics, now = self._diagnostics, self._diagnostics.clock.now()
        shown = diagnostics.broker.leases.soonest(_few(most))
        rows = [
            (
                UUID(bytes=lease.id),
                named(diagnostics.broker.queues.by_number(lease.queue).name),
                len(lease.keys),
                lease.state.value,
                rounded_span(lease.deadline - now),
            )
            for lease in shown
        ]
        note = _note(len(rows), len(diagnostics.broker.leases), "those that end first")
        return Table(("lease", "queue", "items", "state", "ends in"), rows, note)

    def waiters(self, most: int = SHOWN) -> Table:
        """The polls that have waited longest."""
        diagnostics, now, seconds = (
            self._diagnostics,
            self._diagnostics.clock.now(),
            self._diagnostics.reactor.seconds(),
        )
        peers = {connection.peer: connection for connection in diagnostics.connections}
        rows = [
            (
                named(waiter.queue.name),
                waiter.wanted,
                rounded_span(waiter.lease_duration),
                waiter.state.name.lower(),
                rounded_span((seconds - waiter.arrived_at) * MS_PER_SECOND),
                "never" if waiter.wait_until is None else rounded_span(waiter.wait_until - now),
                _peer(peers.get(waiter.peer)),
            )
            for waiter in islice(diagnostics.dispatcher.unanswered(), _few(most))
        ]
        note = _note(len(rows), diagnostics.broker.polls.waiting, "longest waiting first")
        return Table(("queue", "wants", "lease", "state", "waited", "gives up in", "peer"), rows, note)

    def connections(self, most: int = SHOWN) -> Table:
        """The oldest connections."""
        rows = []
        for connection in islice(self._diagnostics.connections, _few(most)):
            usage = connection.usage()
            state = "not read" if connection.paused else ""
            held, adds = connection.held_bytes, connection.request_bytes
            age = rounded_span(self._diagnostics.connections.age(connection) * MS_PER_SECOND)
            rows.append((_peer(connection), age, usage.unanswered, usage.exports, held, adds, state))
        note = _note(len(rows), len(self._diagnostics.connections), "oldest first")
        return Table(("peer", "age", "calls", "queues", "bytes held", "bytes in adds", "state"), rows, note)

    def stats(self) -> Deferred[Table]:
        """How much there is of everything."""
        # Before the disk is asked, which keeps one of its threads busy.
        pool = self._pool()
        asked = self._diagnostics.disk()
        return self._diagnostics.queue_stats().addCallback(lambda survey: asked.addCallback(self._stats, survey, pool))

    def _pool(self) -> str:
        pool = self._diagnostics.pool
        waiting = counted(pool.waiting, "call waits", "calls wait")
        return f"{pool.busy} of {counted(pool.workers, 'thread')} busy, {waiting}"

    def _stats(self, disk: Disk | None, survey: QueueStats, pool: str) -> Table:
        diagnostics, total = self._diagnostics, survey.total
        committer, load = diagnostics.committer, diagnostics.committer.stats
        now = diagnostics.reactor.seconds()
        recent, age = list(load.since(now - 10)), committer.commit_seconds(now)
        outstanding = counted(diagnostics.methods.outstanding, "is", "are")
        free = "not told in time" if disk is None else f"{disk.free_bytes / GIB:,.1f} GiB"
        rows = [
            ("queues", f"{survey.queues:,}"),
            ("items", f"{total.items:,}: {_states(total)}"),
            (
                "leases",
                f"{len(diagnostics.broker.leases):,}; {counted(diagnostics.sweeper.ended, 'has', 'have')} run out",
            ),
            ("waiting polls", f"{diagnostics.broker.polls.waiting:,}"),
            (
                "connections",
                f"{len(diagnostics.connections):,}; {counted(diagnostics.connections.made, 'was', 'were')} made",
            ),
            ("calls", f"{diagnostics.methods.stats.begun.total():,}; {outstanding} not answered"),
            ("refused", f"{diagnostics.methods.stats.refused.total():,}"),
            ("commits", f"{load.seconds.count:,}; {len(recent) / 10:,.1f} a second of late"),
            ("commit under way", rounded_span(age * MS_PER_SECOND) if committer.committing else "none"),
            ("waits for the disk", counted(committer.pending_bytes, "byte")),
            ("heads in memory", counted(diagnostics.broker.queues.window_bytes, "byte")),
            ("pool", pool),
            ("reactor lag", f"{rounded_span(diagnostics.lag.worst(60) * MS_PER_SECOND)} at worst in the last minute"),
            ("free space", free),
        ]
        return Table(("what", "how much"), rows)

    def threads(self) -> Table:
        """All threads, what they have used, and where they are."""
        rows = [(str(each.number), each.name, each.cpu_seconds, each.at) for each in thread_states()]
        return Table(("thread", "name", "cpu s", "Python is at"), rows, f"pool: {self._pool()}")

    def commits(self, most: int = 20) -> Table:
        """The latest commits, and what all of them were like."""
        load, now = self._diagnostics.committer.stats, self._diagnostics.reactor.seconds()
        rows = [
            (
                rounded_span((now - each.ended) * MS_PER_SECOND),
                each.seconds * MS_PER_SECOND,
                each.plans,
                each.rows,
                each.bytes,
            )
            for each in islice(reversed(load.last), _few(most))
        ]
        note = (
            f"all {load.seconds.count:,}: {load.rows.mean:,.1f} rows each,"
            f" {load.seconds.mean * MS_PER_SECOND:.1f} ms (99 % up to {load.seconds.quantile(0.99) * MS_PER_SECOND:g}),"
            f" of which syncing {load.syncs.mean * MS_PER_SECOND:.1f} ms; put off {counted(load.stalls, 'time')}"
        )
        return Table(("ago", "took ms", "plans", "rows", "contents"), rows, note)

    def limits(self) -> Table:
        """Each limit, and how often it was hit."""
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

    def dump(self, part: str = "queues", most: int = SHOWN) -> Message:
        """The bare state of "queues" or "leases", a line each."""
        broker = self._diagnostics.broker
        parts: dict[str, tuple[Iterator[str], int]] = {
            "queues": (map(queue_line, broker.queues), len(broker.queues)),
            "leases": (map(lease_line, broker.leases), len(broker.leases)),
        }
        if part not in parts:
            known = " and ".join(f'"{each}"' for each in parts)
            return Message(f"There is no part {part!r}; there are {known}.")
        lines, total = parts[part]
        shown = list(islice(lines, _few(most)))
        return Message("\n".join(filter(None, [*shown, _note(len(shown), total, "oldest first")])))

    def check(self, *, force: bool = False) -> Message:
        """Whether what is in memory agrees with itself; the server stands still meanwhile."""
        diagnostics = self._diagnostics
        size = size_of(diagnostics.broker, diagnostics.limits)
        if size > CHECKED_MAX and not force:
            return Message(f"There are {size:,} things: check(force=True) looks at them while the server stands still.")
        found = check(diagnostics.broker, diagnostics.clock.monotonic)
        if found.finding:
            return Message(f"NOT consistent: {found.finding}")
        return Message(f"Consistent: {counted(size, 'thing')}, looked at in {rounded_span(found.took_ms)}.")

    def profile(self, seconds: float = 5.0) -> Deferred[Table] | Message:
        """Where the time goes, of all threads, for some seconds."""
        try:
            return self._sampler.profile(seconds)
        except ValueError as why:
            return Message(f"No profile: {why}.")
