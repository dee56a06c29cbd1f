"""
A command per item: the handler of ``queueber work -- CMD ARG…``.

The command gets the item's contents on standard input and its facts in the environment.

| The command | The item |
|---|---|
| exits with 0 | is removed |
| exits with 75 | is deferred |
| exits with another status | fails, with the last lines of its standard error |
| is killed by a signal | fails, with the signal's name |
| runs too long | fails; the command gets SIGTERM, and after `KILL_SECONDS` SIGKILL |
| is cancelled: its lease is lost, or the worker stops | goes to another worker; the command is ended likewise |

A command has a process group of its own, so that Ctrl-C reaches the worker alone, and the signals that end a command
reach its children too.
"""

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from queueber.cli.output import encoded
from queueber.errors import reason
from queueber.fixed_limits import ERROR_BYTES_MAX
from queueber.values import id_text
from queueber.worker import Defer, Fail, WorkItem

LOG = logging.getLogger("queueber.work")

STATUS_DEFER: Final = 75
"""``EX_TEMPFAIL`` of sysexits: try again later."""

KILL_SECONDS: Final = 3.0
"""Time between SIGTERM and SIGKILL: less than a worker gives a cancelled handler."""

LINGER_SECONDS: Final = 0.5
"""Time for the rest of standard error, if a descendant of the command keeps it open."""

ERROR_LINES: Final = 20
"""Last lines of standard error that are kept with the item."""

_PREFIX: Final = "QUEUEBER_"


def environment(item: WorkItem, base: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """
    Return the environment of a command: *base* with the facts of *item*.

    A header is ``QUEUEBER_HEADER_`` with its name in capitals, other characters as underscores, unless its value has a
    zero byte; ``QUEUEBER_HEADERS`` has all of them as JSON, like those of ``queueber get --json``.
    """
    facts: dict[str, str | bytes] = {
        "ITEM_ID": id_text(item.id),
        "QUEUE": item.queue,
        "ATTEMPT": str(item.attempt),
        "FAILURES": str(item.facts.failures),
        "LOSSES": str(item.facts.losses),
        "ADDED_AT_MS": str(item.added_at),
        "LAST_ERROR": item.facts.last_error.replace("\0", ""),
        "HEADERS": json.dumps([{"name": name, "value": encoded(value)} for name, value in item.facts.headers]),
    }
    for name, value in reversed(item.facts.headers):
        # Of two names that differ only here, the first counts.
        facts[f"HEADER_{re.sub('[^A-Z0-9]', '_', name.upper())}"] = value
    found = {key: value for key, value in base.items() if not key.startswith(b"QUEUEBER_HEADER_")}
    for key, fact in facts.items():
        value = fact.encode(errors="surrogateescape") if isinstance(fact, str) else bytes(fact)
        if b"\0" not in value:
            found[(_PREFIX + key).encode()] = value
    return found


class Tail:
    """The last bytes of a stream."""

    def __init__(self) -> None:
        self._data = b""

    def add(self, data: bytes) -> None:
        """Take *data*; keep the end."""
        self._data = (self._data + data)[-ERROR_BYTES_MAX:]

    @property
    def text(self) -> str:
        """Return the last lines."""
        lines = self._data.decode(errors="replace").rstrip().splitlines()
        return "\n".join(lines[-ERROR_LINES:])


def command_error(how: str, tail: str) -> str:
    """Return the error of an item: *how* its command ended, and the last lines of standard error that fit."""
    room = ERROR_BYTES_MAX - len(how.encode()) - 1
    kept = tail.encode()[-room:].decode(errors="ignore")
    return f"{how}\n{kept}" if kept else how


def judge(status: int, tail: str, defer_seconds: float) -> Defer | Fail | None:
    """Return the decision about an item whose command ended with *status*, minus the signal's number; None: remove."""
    if status == 0:
        return None
    if status == STATUS_DEFER:
        return Defer(defer_seconds)
    return Fail(text=command_error(ended(status), tail))


def ended(status: int) -> str:
    """Return how a process ended, as text."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


class _Running(asyncio.SubprocessProtocol):
    """A command that runs."""

    def __init__(self, *, quiet: bool) -> None:
        self.tail = Tail()
        self.exited = asyncio.Event()
        self.silent = asyncio.Event()
        """Set when standard error has ended."""

        self._quiet = quiet

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Keep the end of standard error, and pass it on."""
        if fd == 2:  # noqa: PLR2004  (standard error)
            self.tail.add(data)
            if not self._quiet:
                with suppress(OSError):
                    os.write(2, data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """Note the end of standard error.  A command may close its input unread."""
        if fd == 2:  # noqa: PLR2004  (standard error)
            self.silent.set()

    def process_exited(self) -> None:
        """Note the end."""
        self.exited.set()


class CommandHandler:
    """Run a command for each item.  Its method `handle` is the handler for a worker."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        max_runtime: float | None = None,
        defer_seconds: float = 10.0,
        quiet: bool = False,
    ) -> None:
        """
        Run *command* for at most *max_runtime* seconds per item.

        A deferred item is redelivered after *defer_seconds*.  With *quiet* the output is dropped, but for the last
        lines of standard error of a command that fails.
        """
        self._command = list(command)
        self._max_runtime = max_runtime
        self._defer_seconds = defer_seconds
        self._quiet = quiet

    async def handle(self, item: WorkItem) -> Defer | Fail | None:
        """Run the command for *item*; return the decision about the item."""
        starting = asyncio.ensure_future(self._start(item))
        try:
            # Cancelled while it starts a process, asyncio waits until all descendants of that have ended.
            transport, running = await asyncio.shield(starting)
        except OSError as why:
            return _failed(item, f"{self._command[0]} cannot be run: {reason(why)}")
        except asyncio.CancelledError:
            with suppress(OSError):
                transport, running = await asyncio.shield(starting)
                await _end(transport, running)
                transport.close()
            raise
        try:
            decision = await self._attend(transport, running, bytes(item.contents))
        finally:
            _signal(transport, signal.SIGKILL)
            transport.close()
        return _failed(item, decision.verdict.error) if isinstance(decision, Fail) else decision

    async def _start(self, item: WorkItem) -> tuple[asyncio.SubprocessTransport, _Running]:
        """
        Start the command for *item*.

        Raises:
            OSError: it cannot be run.
        """
        return await asyncio.get_running_loop().subprocess_exec(
            lambda: _Running(quiet=self._quiet),
            *self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL if self._quiet else None,
            stderr=subprocess.PIPE,
            env=environment(item, os.environb),
            start_new_session=True,
        )

    async def _attend(
        self, transport: asyncio.SubprocessTransport, running: _Running, contents: bytes
    ) -> Defer | Fail | None:
        stdin = transport.get_pipe_transport(0)
        stdin.write(contents)  # type: ignore[union-attr]  # a write pipe
        stdin.write_eof()  # type: ignore[union-attr]
        try:
            async with asyncio.timeout(self._max_runtime):
                await running.exited.wait()
        except TimeoutError:
            await _end(transport, running)
            return Fail(
                text=command_error(f"ended after {self._max_runtime:g} s, its longest run time", running.tail.text)
            )
        except asyncio.CancelledError:
            await _end(transport, running)
            raise
        # It has ended: a cancellation now changes nothing.
        with suppress(TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(running.silent.wait(), LINGER_SECONDS)
        status = transport.get_returncode()
        assert status is not None, "it has ended"
        return judge(status, running.tail.text, self._defer_seconds)


def _failed(item: WorkItem, error: str) -> Fail:
    """Log a failure, and return it."""
    LOG.warning("item %s of %s failed, attempt %d: %s", id_text(item.id), item.queue, item.attempt, error)
    return Fail(text=error)


async def _end(transport: asyncio.SubprocessTransport, running: _Running) -> None:
    """End a command and its children: SIGTERM, and SIGKILL for those that go on."""
    group = transport.get_pid()
    _signal(transport, signal.SIGTERM)
    with suppress(TimeoutError):
        await asyncio.wait_for(running.exited.wait(), KILL_SECONDS)
    # Children may have outlived the command, whose number no other process has as long as they live.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    await running.exited.wait()


def _signal(transport: asyncio.SubprocessTransport, number: signal.Signals) -> None:
    """Send a signal to the process group of a command that runs."""
    if transport.get_returncode() is None:
        with suppress(ProcessLookupError):
            os.killpg(transport.get_pid(), number)
