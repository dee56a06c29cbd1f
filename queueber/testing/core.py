"""
The server that a `TestServer` runs: all that happens on the server's own thread.

It is the composition root of the real server on a store in memory and virtual
time, with real sockets.
"""

import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import evolve
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater

from queueber.broker import Waiter
from queueber.broker.leases import Lease
from queueber.broker.settings import DEFINITIONS
from queueber.broker.waiter import PollState
from queueber.client_core.control_calls import ControlCalls
from queueber.errors import QueueberError
from queueber.limits import Limits
from queueber.server.app.composition import assemble
from queueber.server.net.states import ENDED
from queueber.server.net.timeouts import SILENCE
from queueber.testing.faults import Faults, FaultyFactory, FaultyProtocol, Switch
from queueber.testing.inspection import Inspector, RecordingStore, moment
from queueber.testing.memory import SeededJitter, settings_in_memory
from queueber.testing.virtual_time import VirtualTime
from queueber.units import MS_PER_SECOND, SpanMs
from queueber.values import ItemState

STEPS: Final = 64
"""An `advance` looks at periodic work at least so often."""

STEP_SECONDS_MIN: Final = 0.25
"""The time between two such looks in a short `advance`: that of the server's own timers."""

ROUNDED_SECONDS: Final = 0.001
"""The server rounds durations up by this much, so a test that moves time by a duration has to go a little further."""

QUIET_TURNS: Final = 100
"""The most turns of the reactor that a call of a test waits for clients that go on sending."""

_TURN_SECONDS: Final = 0
_NO_LIMIT: Final = SpanMs(0)


class Core:
    """One server.  Belongs to the thread of *reactor*."""

    def __init__(self, reactor: Any, start: float, limits: Limits, directory: str, *, seed: int, tcp: bool) -> None:  # noqa: ANN401
        self._reactor = reactor
        self.time = VirtualTime(reactor, start)
        self.store = RecordingStore(self.time.creep)
        self.faults = Faults()
        self.deaths: list[tuple[str, BaseException]] = []
        # These bound hostile peers.  They would end the connections of a program whose test moves the time.
        limits = evolve(limits, first_message_ms=_NO_LIMIT, stalled_message_ms=_NO_LIMIT, stalled_replies_ms=_NO_LIMIT)
        self.parts = assemble(
            self.time.clock,
            settings_in_memory(limits, {"data_dir": Path(tempfile.gettempdir())}),
            self.store,
            self.time.pool,
            self.time.queue_clock,
            ids=SeededJitter(seed),
            end=lambda what, why: self.deaths.append((what, why)),
            defer_to_thread=self.time.pool.run,
        )
        self.broker = self.parts.broker
        self.broker.restore(self.store.recover())
        self.parts.sessions.started()
        self.inspector = Inspector(self.broker, self.store)
        self.factory = FaultyFactory(self.parts.factory.server, self.faults, self._limit_wait)
        self.path = f"{directory}/socket"
        self.port: int | None = None
        """The TCP port; None without one, 0 before it is chosen."""
        if tcp:
            self.port = 0
        self._ports: list[IListeningPort] = []
        self._refusing: list[Switch] = []
        self._decided = 0
        """The number of commits at the last `advance`."""

    # Connections

    def listen(self) -> None:
        """Accept connections."""
        reactor = self._reactor
        self._ports.append(reactor.listenUNIX(self.path, self.factory, mode=0o600))
        if self.port is not None:
            port = reactor.listenTCP(self.port, self.factory, interface="127.0.0.1")
            self.port = port.getHost().port
            self._ports.append(port)

    @inlineCallbacks
    def stop_listening(self) -> Generator[Deferred[Any], Any, None]:
        """Refuse connections."""
        ports, self._ports = self._ports, []
        for port in ports:
            stopped = port.stopListening()
            if stopped is not None:
                yield stopped

    @property
    def connections(self) -> list[FaultyProtocol]:
        """The open connections."""
        return [each for each in self.parts.connections if isinstance(each, FaultyProtocol)]

    @inlineCallbacks
    def drop_connections(self) -> Generator[Deferred[Any], Any, int]:
        """Abort all connections.  Return their number."""
        dropped = self.connections
        for each in dropped:
            each.abort()
        yield self._wait_for_ends()
        self.time.settle()
        return len(dropped)

    def quiet(self) -> Deferred[None]:
        """Return a Deferred that fires when everything that clients have sent before was received."""
        done: Deferred[None] = Deferred()

        def look(left: int) -> None:
            before = self.faults.activity

            def turned() -> None:
                if self.faults.activity != before and left:
                    look(left - 1)
                else:
                    self.time.settle()
                    done.callback(None)

            # A connection is accepted in one turn and read in the next.
            self._later(lambda: self._later(turned))

        look(QUIET_TURNS)
        return done

    def _later(self, function: Callable[[], None]) -> None:
        self._reactor.callLater(_TURN_SECONDS, function)

    @inlineCallbacks
    def _wait_for_ends(self) -> Generator[Deferred[Any], Any, None]:
        """Wait until connections that were closed are gone."""
        for _ in range(QUIET_TURNS):
            if not any(each.state in ENDED for each in self.connections):
                return
            yield deferLater(self._reactor, _TURN_SECONDS)

    # Time

    @inlineCallbacks
    def advance(self, seconds: float) -> Generator[Deferred[Any], Any, None]:
        """Move time on by *seconds*; everything that is due on the way happens at its moment."""
        time, commits = self.time, self.parts.committer.commits
        end = time.clock.seconds() + seconds
        if commits != self._decided:
            end += ROUNDED_SECONDS
        step = max(seconds / STEPS, STEP_SECONDS_MIN)
        while True:
            now = time.clock.seconds()
            time.move_to(min(end, now + step, max(self._next_event(), now + ROUNDED_SECONDS)))
            self._run_periodic()
            yield self._wait_for_ends()
            time.settle()
            if time.clock.seconds() >= end:
                break
        self._decided = self.parts.committer.commits

    def _limit_wait(self, waiter: Waiter) -> None:
        """End the wait of a poll by real time, too: a program that waits for a second would wait for ever."""
        if waiter.wait_until is not None:
            seconds = max(0, waiter.wait_until - self.time.queue_clock.now()) / MS_PER_SECOND
            self._reactor.callLater(seconds, self._end_wait, waiter)

    def _end_wait(self, waiter: Waiter) -> None:
        if waiter.state is PollState.WAITING:
            for queue in waiter.queues:
                queue.timed_out[waiter] = None
                self.broker.polls.mark_runnable(queue)
            self.parts.committer.wake()

    def seconds_to_due(self, queues: Sequence[str]) -> float:
        """Return the seconds until the next delayed item of *queues*, or of any, becomes due; 0 if there is none."""
        now = self.time.queue_clock.now()
        items = (item for name in queues or self.inspector.queues() for item in self.inspector.items(name, now))
        due = [item.due for item in items if item.state is ItemState.DELAYED]
        return (min(due) - moment(now)).total_seconds() if due else 0.0

    def _next_event(self) -> float:
        """Return when the next thing happens whose moment is known, in the clock's seconds."""
        moments = [lease.deadline for lease in self.broker.leases.soonest(1)]
        if self.broker.dedup.next_end:
            moments.append(self.broker.dedup.next_end)
        events = [self.time.seconds_of(each) for each in moments]
        call = self.time.next_call()
        if call is not None:
            events.append(call)
        return min(events, default=float("inf"))

    def _run_periodic(self) -> None:
        """Do what the timers of a real server do."""
        parts, timeouts = self.parts, self.parts.connections.timeouts
        for each in list(timeouts.running(SILENCE)):
            # Its client would have sent pings.
            if each not in self.faults.silenced:
                timeouts.start(each, SILENCE)
        timeouts.expire()
        self.time.settle()
        parts.sweeper.sweep()
        self.time.settle()
        parts.cleanup.run()
        self.time.settle()
        parts.first_due_reader.run()
        self.time.settle()

    # Faults

    def lose_reply(self, switch: Switch) -> None:
        """Lose replies as *switch* says."""
        self.faults.lose.append(switch)

    def hang(self, switch: Switch) -> None:
        """Read and send nothing, for as long as one such switch is on."""
        if not self.faults.hang:
            for each in self.connections:
                each.deaf()
        self.faults.hang.append(switch)

    def end_hang(self, switch: Switch) -> None:
        """Answer again, unless another switch is on."""
        if switch in self.faults.hang:
            self.faults.hang.remove(switch)
            if not self.faults.hang:
                for each in self.connections:
                    each.hear()

    def silence(self, switch: Switch) -> None:
        """Receive nothing more from the present connections."""
        for each in self.connections:
            if each not in self.faults.silenced:
                switch.happened += 1
                self.faults.silenced[each] = switch
                each.deaf()

    def end_silence(self, switch: Switch) -> None:
        """Receive what the connections of *switch* have sent."""
        for each in [each for each, cause in self.faults.silenced.items() if cause is switch]:
            del self.faults.silenced[each]
            each.hear()

    @inlineCallbacks
    def refuse(self, switch: Switch) -> Generator[Deferred[Any], Any, None]:
        """Refuse connections, for as long as one such switch is on."""
        self._refusing.append(switch)
        yield self.stop_listening()

    def end_refusal(self, switch: Switch) -> None:
        """Accept connections again, unless another switch is on."""
        if switch in self._refusing:
            self._refusing.remove(switch)
            if not self._refusing:
                self.listen()

    # Queues

    def configure(self, name: str, settings: Mapping[str, Any]) -> None:
        """
        Change settings of the queue *name*.

        Raises:
            QueueberError: a setting is unknown or out of range.
        """
        unknown = [each for each in settings if each not in DEFINITIONS]
        if unknown:
            raise TypeError(f"a queue has no setting {unknown[0]!r}; there are {', '.join(DEFINITIONS)}")
        ControlCalls(name).configure(**settings)  # checks the types, as for every client
        changes = {DEFINITIONS[each].wire: value for each, value in settings.items()}
        plan = self.broker.lifecycle.configure(self.broker.queue(name), changes)
        if isinstance(plan.reply, QueueberError):
            raise plan.reply
        self.parts.committer.submit(plan, lambda _: None)
        self.time.settle()

    def end_lease(self, wanted: Callable[[Lease], bool]) -> int:
        """End the leases that are *wanted* as if they had expired.  Return their number."""
        ended = 0
        for lease in [each for each in self.broker.leases if wanted(each)]:
            queue = self.broker.queues.by_number(lease.queue)
            plan = self.broker.control.end_lease(queue.owner or queue, lease, self.time.queue_clock.now())
            self.parts.committer.submit(plan, lambda _: None)
            ended += plan.reply
        self.time.settle()
        self.parts.sweeper.sweep()
        self.time.settle()
        return ended

    def queue_of(self, lease: Lease) -> str:
        """Return the name of the queue whose items *lease* holds."""
        return self.broker.queues.by_number(lease.queue).name

    @inlineCallbacks
    def close(self) -> Generator[Deferred[Any], Any, None]:
        """Close the sockets."""
        yield self.stop_listening()
        self.faults.hang.clear()
        yield self.drop_connections()
