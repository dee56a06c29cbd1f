"""The worker processes of a `Supervisor`: starts them, waits for them and for changed files, and passes signals on."""

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from queueber.cli.terminal import is_terminal
from queueber.cli.work_channel import ENDING, POLLED, READY, REFUSED, SupervisorEnd
from queueber.cli.work_command import ended
from queueber.cli.work_supervisor import End, Force, Say, Send, Spawn, Supervisor
from queueber.errors import reason
from queueber.fixed_limits import ID_BYTES

EXIT_NOT_STARTED: Final = 126
"""The status of shells for a program that cannot be run."""

LOOK_SECONDS: Final = 0.5
"""Time between two looks at the files."""

_LEFT_OUT: Final = {"__pycache__", "node_modules", "site-packages"}

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)


class SourceFiles:
    """The Python files under a folder, without hidden folders and virtual environments."""

    def __init__(self, folder: Path) -> None:
        """Begin with the files as they are."""
        self._folder = folder
        self._times = self._look()

    def changed(self) -> list[Path]:
        """Return the files that are new, other or gone since the last call, in order."""
        before, self._times = self._times, self._look()
        names = before.keys() | self._times.keys()
        return sorted(Path(name) for name in names if before.get(name) != self._times.get(name))

    def _look(self) -> dict[str, tuple[int, int]]:
        """Return the time of change and the size of each file."""
        found: dict[str, tuple[int, int]] = {}
        for folder, folders, names in os.walk(self._folder):
            if "pyvenv.cfg" in names:
                folders.clear()
                continue
            folders[:] = [each for each in folders if not each.startswith(".") and each not in _LEFT_OUT]
            for name in names:
                if name.endswith(".py"):
                    path = os.path.join(folder, name)  # noqa: PTH118  (thousands of them, twice a second)
                    try:
                        state = os.stat(path)  # noqa: PTH116
                    except OSError:
                        continue
                    found[path] = state.st_mtime_ns, state.st_size
        return found


class Processes:
    """Run the processes of a supervisor until it ends."""

    def __init__(
        self,
        supervisor: Supervisor,
        command: Sequence[str],
        say: Callable[[str, bool], None],
        files: SourceFiles | None = None,
    ) -> None:
        """
        Run *command* in each process.

        *say* prints a line; its second argument says that something went wrong.  A change of one of *files* replaces
        the processes.
        """
        self._supervisor = supervisor
        self._command = command
        self._say = say
        self._files = files
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._selector = selectors.DefaultSelector()
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._ends: dict[int, SupervisorEnd] = {}
        self._sessions = defaultdict[int, bytes](lambda: os.urandom(ID_BYTES))
        """The session of each slot, which the next process takes over from one that died."""

        self._status: int | None = None

    def run(self) -> int:
        """Return the exit status."""
        wakeup, theirs = socket.socketpair()
        for each in (wakeup, theirs):
            each.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno())
        # A shell or nohup that has it ignore a signal means that.
        numbers = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
        handlers = {number: signal.signal(number, lambda *_: None) for number in numbers}
        self._selector.register(wakeup, selectors.EVENT_READ)
        try:
            self._supervisor.start(time.monotonic())
            while self._status is None:
                self._act()
                self._wait(wakeup)
            return self._status
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            # Only after an error of ours: otherwise there are none left.
            for process in self._running.values():
                process.kill()
            self._selector.close()
            wakeup.close()
            theirs.close()
            for end in self._ends.values():
                end.close()

    def _wait(self, wakeup: socket.socket) -> None:
        """Wait for the next event, and pass it to the supervisor."""
        if self._status is not None:
            return
        now = time.monotonic()
        until = min(self._supervisor.wake_at(), self._look_at if self._files is not None else float("inf"))
        for key, _ in self._selector.select(max(0.0, until - now) if until != float("inf") else None):
            if key.fileobj is wakeup:
                self._take_signals(wakeup.recv(4_096))
            else:
                self._hear(key.data)
        self._reap()
        now = time.monotonic()
        if self._files is not None and now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            if changed := self._files.changed():
                self._supervisor.changed([os.path.relpath(each) for each in changed], now)
        self._supervisor.tick(now)

    def _take_signals(self, numbers: bytes) -> None:
        for each in numbers:
            number = signal.Signals(each)
            if number is signal.SIGHUP and is_terminal(sys.stdin):
                # The terminal is gone.
                number = signal.SIGTERM
            if number is not signal.SIGCHLD:
                self._supervisor.signalled(number, time.monotonic())

    def _hear(self, end: SupervisorEnd) -> None:
        words = end.read()
        if words is None:
            self._selector.unregister(end)
            return
        for word, text in words:
            if word == READY:
                self._supervisor.ready(end.slot, time.monotonic())
            elif word == POLLED:
                self._supervisor.polled()
            elif word == REFUSED:
                self._supervisor.refused(end.slot, text)
            elif word == ENDING:
                seconds, _, why = text.partition(" ")
                self._supervisor.ending(end.slot, why, float(seconds), time.monotonic())

    def _reap(self) -> None:
        for slot, process in list(self._running.items()):
            status = process.poll()
            if status is None:
                continue
            # Its last words may have arrived in the meantime.
            end = self._ends.pop(slot)
            if end in {key.fileobj for key in self._selector.get_map().values()}:
                self._hear(end)
            with suppress(KeyError):
                self._selector.unregister(end)
            end.close()
            del self._running[slot]
            self._supervisor.exited(slot, status, ended(status), time.monotonic())

    def _act(self) -> None:
        actions, self._supervisor.actions = self._supervisor.actions, []
        for action in actions:
            if isinstance(action, Spawn):
                self._spawn(action.slot)
            elif isinstance(action, Send):
                self._send(action)
            elif isinstance(action, Force):
                if action.slot in self._ends:
                    self._ends[action.slot].force()
            elif isinstance(action, Say):
                self._say(action.text, action.alarm)
            elif isinstance(action, End):
                self._status = action.status

    def _spawn(self, slot: int) -> None:
        end = SupervisorEnd(slot, self._sessions[slot])
        descriptor, environment = end.for_worker()
        try:
            process = subprocess.Popen(  # noqa: S603  (this very program)
                self._command,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
                pass_fds=[descriptor],
                # A Ctrl-C goes to the supervisor alone, which passes it on: a worker counts the signals that it gets.
                process_group=0,
            )
        except OSError as why:
            end.close()
            self._supervisor.exited(slot, EXIT_NOT_STARTED, f"it cannot be started: {reason(why)}", time.monotonic())
            return
        finally:
            end.passed_on()
        self._running[slot], self._ends[slot] = process, end
        self._selector.register(end, selectors.EVENT_READ, end)
        self._supervisor.started(slot, process.pid)

    def _send(self, action: Send) -> None:
        process = self._running.get(action.slot)
        if process is not None:
            process.send_signal(action.number)
