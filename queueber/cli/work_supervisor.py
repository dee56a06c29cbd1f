"""
The rules of the supervisor of ``queueber work``, without processes: events and the time go in, actions come out.

The first process starts alone, and the others when it is ready, so that an error in the user's module is printed once.
The states of a process:

| State | is ready | ends | a stop | files changed, or SIGHUP | time |
|---|---|---|---|---|---|
| WAITING | | | GONE | STARTING at once | STARTING when its wait is over |
| STARTING | RUNNING | WAITING; with status 1 BROKEN | ENDING, signalled | ENDING, signalled | |
| RUNNING | | WAITING; refused before any poll BROKEN | ENDING, signalled | ENDING, signalled | |
| ENDING | | STARTING, or after a stop GONE | ENDING, signalled | | forced when its time is over, then killed |
| BROKEN | | | GONE | STARTING | |

Status 1 before a process was ready means that it cannot start, for a reason that it has printed.  If no process was
ready before, everything ends with that status; with ``--reload`` the next change of a file tries again.  A process
whose health page cannot listen is treated likewise if none of its slot was ready before: its port is its own, and
others may be ready.  So is a process that the server refuses if no process has polled before: the server would refuse
the others, too.
A RUNNING process that says that it ends in order to be replaced is ENDING.  A second signal forces all, and a third
kills them.  A process takes two SIGTERM for one.
"""

import signal
from collections.abc import Iterable
from enum import Enum, auto
from typing import Final

from attrs import define, field, frozen

from queueber.cli.work_stop import SAME_SECONDS
from queueber.units import counted

BACKOFF_SECONDS: Final = (0.5, 30.0)
"""Least and most wait before a process that died is started again; it doubles with each death in a row."""

STEADY_SECONDS: Final = 60.0
"""Time after which a process that died counts as the first in a row."""

FORCED_SECONDS: Final = 10.0
"""
Time that a process has to end after it was forced.

It needs up to 2 s to return items, and a busy machine takes seconds to end an interpreter.
"""

EXIT_STOPPED: Final = 0
EXIT_ERROR: Final = 1
"""No process could start, or one had to be killed at the end."""

EXIT_REFUSED: Final = 78
"""
The server, or another program at its address, refuses the worker before its first poll: a restart rarely helps.

``EX_CONFIG`` of sysexits.
"""


class State(Enum):
    """The state of a process, as in the table of this module."""

    WAITING = auto()
    STARTING = auto()
    RUNNING = auto()
    ENDING = auto()
    BROKEN = auto()
    GONE = auto()


LIVE: Final = {State.STARTING, State.RUNNING, State.ENDING}
"""The states in which there is a process."""


@frozen
class Spawn:
    """Start the process of a slot; `Supervisor.started` takes its number."""

    slot: int


@frozen
class Send:
    """Send a signal to the process of a slot."""

    slot: int
    number: signal.Signals


@frozen
class Say:
    """Print a line.  *alarm*: something went wrong."""

    text: str
    alarm: bool = False


@frozen
class End:
    """End with a status."""

    status: int


@frozen
class Force:
    """Let the process of a slot end at once, and return its items without counting an attempt."""

    slot: int


Action = Spawn | Send | Force | Say | End


@define
class Slot:
    """One of the processes, and its successors."""

    number: int
    state: State = State.WAITING
    pid: int = 0
    since: float = 0.0
    """When it was started."""

    start_at: float = 0.0
    """When a WAITING one will be started."""

    kill_at: float = float("inf")
    """When an ENDING one is forced, or if that was done before killed."""

    forced: bool = False
    """Whether an ENDING one was asked to end at once."""

    deaths: int = 0
    """In a row."""

    was_ready: bool = False
    """Whether any process of it was ever ready."""

    refusal: str = ""
    """Why the process, which is about to end, cannot begin, or why the server refuses it."""

    @property
    def name(self) -> str:
        """Return the name in lines for the user."""
        return f"worker {self.number + 1} (process {self.pid})"


@define(eq=False)
class Supervisor:
    """The processes of ``queueber work``."""

    processes: int
    stop_seconds: float
    """Time that a process has to end after the first signal."""

    reload: bool = False
    slots: list[Slot] = field(init=False)
    actions: list[Action] = field(factory=list, init=False)
    """Taken, in order, by the caller."""

    has_polled: bool = field(default=False, init=False)
    """Whether a poll of any process was ever answered."""

    stops: int = field(default=0, init=False)
    """Signals to stop so far."""

    stopped_at: float = field(default=float("-inf"), init=False)
    """When the last of them came."""

    status: int = field(default=EXIT_STOPPED, init=False)
    reason: str = field(default="", init=False)
    """For the last line, if no process has printed it."""

    ended: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        """Make the slots."""
        self.slots = [Slot(number) for number in range(self.processes)]

    # Events

    def start(self, now: float) -> None:
        """Start the first process."""
        self._spawn(self.slots[0], now)

    def started(self, number: int, pid: int) -> None:
        """Note the number of a process that was started."""
        self.slots[number].pid = pid

    def ready(self, number: int, now: float) -> None:
        """Note that a process has connected, or will by itself: its module is imported and its handler found."""
        slot = self.slots[number]
        if slot.state is State.STARTING:
            slot.state = State.RUNNING
        slot.was_ready = True
        for other in self.slots:
            if other.state is State.WAITING and not other.deaths and not self.stops:
                self._spawn(other, now)

    def polled(self) -> None:
        """Note that a poll of some process was answered."""
        self.has_polled = True

    def refused(self, number: int, why: str) -> None:
        """Note why a process, which has never polled, ends: it cannot begin, or the server refuses it."""
        self.slots[number].refusal = why

    def ending(self, number: int, why: str, seconds: float, now: float) -> None:
        """Note that a process ends by itself within *seconds* in order to be replaced."""
        slot = self.slots[number]
        if slot.state is State.RUNNING:
            self._say(f"{slot.name} is replaced: {why}")
            slot.state, slot.kill_at = State.ENDING, now + seconds

    def exited(self, number: int, status: int, how: str, now: float) -> None:
        """Process the end of a process; *how* says it as text."""
        slot = self.slots[number]
        before, slot.state, slot.kill_at, slot.forced = slot.state, State.WAITING, float("inf"), False
        if self.stops or self.status:
            slot.state = State.GONE
        elif before is State.ENDING:
            self._spawn(slot, now)
        elif before is State.STARTING and status == EXIT_ERROR and self._is_mistake(slot):
            self._cannot_start(slot, EXIT_ERROR, slot.refusal, now)
        elif before is State.RUNNING and slot.refusal and not self.has_polled:
            self._cannot_start(slot, EXIT_REFUSED, f"no worker can poll: {slot.refusal}", now)
        else:
            self._died(slot, f"{slot.name} ended: {slot.refusal or how}", now)
        self._end_if_gone()

    def signalled(self, number: signal.Signals, now: float) -> None:
        """Process a signal to the supervisor."""
        if number is signal.SIGHUP:
            self._say("replacing all workers")
            self._replace(now)
        elif number in {signal.SIGUSR1, signal.SIGUSR2}:
            self._send_all({State.RUNNING}, number)
        else:
            self._stop(number, now)

    def changed(self, paths: Iterable[str], now: float) -> None:
        """Process a change of source files."""
        found = list(paths)
        more = f" and {counted(len(found) - 1, 'other')}" if len(found) > 1 else ""
        self._say(f"{found[0]}{more} changed; reloading")
        self._replace(now)

    def tick(self, now: float) -> None:
        """Do what is due."""
        for slot in self.slots:
            if slot.state is State.WAITING and slot.deaths and now >= slot.start_at and not self.stops:
                self._spawn(slot, now)
            elif slot.state is State.ENDING and now >= slot.kill_at:
                self._hurry(slot, now)

    def wake_at(self) -> float:
        """Return when `tick` has something to do."""
        starts = [slot.start_at for slot in self.slots if slot.state is State.WAITING and slot.deaths]
        return min([*starts, *(slot.kill_at for slot in self.slots)])

    # Consequences

    def _spawn(self, slot: Slot, now: float) -> None:
        slot.state, slot.since, slot.refusal = State.STARTING, now, ""
        self.actions.append(Spawn(slot.number))

    def _say(self, text: str, *, alarm: bool = False) -> None:
        self.actions.append(Say(text, alarm))

    def _send_all(self, states: set[State], number: signal.Signals) -> None:
        self.actions += [Send(slot.number, number) for slot in self.slots if slot.state in states]

    def _is_mistake(self, slot: Slot) -> bool:
        """Return whether a process that has ended before it was ready shows that no other attempt would do better."""
        if slot.refusal:
            # Another program may have taken the port of a process that died.
            return not slot.was_ready
        return self.reload or not any(each.was_ready for each in self.slots)

    def _cannot_start(self, slot: Slot, status: int, why: str, now: float) -> None:
        if not self.reload:
            self.status, self.reason, slot.state = status, why, State.GONE
            self._end_all(now)
            return
        if all(each.state is not State.BROKEN for each in self.slots):
            self._say(f"{why}; waiting for a change of a file".removeprefix("; "), alarm=True)
        slot.state = State.BROKEN

    def _died(self, slot: Slot, how: str, now: float) -> None:
        slot.deaths = slot.deaths + 1 if now - slot.since < STEADY_SECONDS else 1
        least, most = BACKOFF_SECONDS
        wait = min(most, least * 2 ** min(slot.deaths - 1, 16))
        slot.start_at = now + wait
        self._say(f"{how}; another starts in {wait:g} s", alarm=True)

    def _hurry(self, slot: Slot, now: float) -> None:
        """End a process whose time is over."""
        if slot.forced:
            slot.kill_at = float("inf")
            self._say(f"{slot.name} does not end; it is killed", alarm=True)
            if self.stops:
                self.status = EXIT_ERROR
            self.actions.append(Send(slot.number, signal.SIGKILL))
        else:
            slot.forced, slot.kill_at = True, now + FORCED_SECONDS
            self.actions.append(Force(slot.number))

    def _replace(self, now: float) -> None:
        """Replace all processes, the waiting and broken ones at once."""
        for slot in self.slots:
            if slot.state in {State.STARTING, State.RUNNING}:
                self._end(slot, now + self.stop_seconds)
            elif slot.state is State.BROKEN or (slot.state is State.WAITING and slot.deaths):
                slot.deaths = 0
                self._spawn(slot, now)

    def _end(self, slot: Slot, kill_at: float) -> None:
        slot.state, slot.kill_at = State.ENDING, kill_at
        self.actions.append(Send(slot.number, signal.SIGTERM))

    def _stop(self, number: signal.Signals, now: float) -> None:
        before, self.stopped_at = self.stopped_at, now
        if now - before < SAME_SECONDS:
            return
        self.stops += 1
        if self.stops == 1:
            self._say(f"{number.name}: no new items; running ones have time to end. Again: end at once")
            self._end_all(now)
        else:
            # The second signal ends a process, and the third kills it.
            for slot in [each for each in self.slots if each.state in LIVE]:
                self._hurry(slot, now)
        self._end_if_gone()

    def _end_all(self, now: float) -> None:
        """End all processes, and start no others."""
        for slot in self.slots:
            if slot.state in LIVE:
                self._end(slot, min(slot.kill_at, now + self.stop_seconds))
            else:
                slot.state = State.GONE

    def _end_if_gone(self) -> None:
        if not self.ended and all(slot.state is State.GONE for slot in self.slots):
            self.ended = True
            if self.reason:
                self._say(self.reason, alarm=True)
            self.actions.append(End(self.status))
