"""Real servers with the data, failpoints and clocks of a test, started by `tests.support.warm_start`."""

import asyncio
import os
import re
import select
import signal
import time
from pathlib import Path

from tenure import RESTART_GRACE_SECONDS

from tests.support.warm_start import WarmProcess

PREPARED = Path(__file__).resolve().with_name("prepared.py")
GRACE = f"--lease-restart-grace={RESTART_GRACE_SECONDS}"
TIMEOUT_SECONDS = 60.0
LOOK_SECONDS = 0.003


class Failed(Exception):
    """A server behaved as no server may."""


class Server:
    """One process that serves or starts."""

    def __init__(self, process, log, begin):
        self.process = process
        self.pid = process.pid
        self.log = log
        self.begin = begin

    @property
    def status(self):
        """The exit status once `end` has seen it: negative for a signal."""
        return self.process.returncode

    def lines(self):
        """Return the server's log."""
        return self.log.read_bytes()[self.begin :].decode(errors="replace")

    def port(self, timeout=TIMEOUT_SECONDS):
        """Return its port as soon as it listens, None if it ends before."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = re.search(r"Listening on .*:(\d+)\n", self.lines())
            if found:
                return int(found[1])
            if self.ended(LOOK_SECONDS):
                return None
        raise self.failed("the server does not come up")

    def port_or_fail(self, why="the server does not come up again"):
        """Return its port as soon as it listens; raise `Failed` if it ends before."""
        port = self.port()
        if port is None:
            raise self.failed(why)
        return port

    def failed(self, why):
        """Return the error *why*, with the end of the server's log."""
        return Failed(f"{why}:\n{self.lines()[-3_000:]}")

    def ended(self, timeout=0.0):
        """Return whether the process has ended and was waited for."""
        return self.status is not None or bool(select.select([self.process.ending], [], [], timeout)[0])

    async def gone(self, seconds):
        """Return whether the process ends within *seconds*, while other tasks run."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.process.ending, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), seconds)
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self.process.ending)
        return True

    def kill(self):
        """End it with SIGKILL; return its status."""
        return self.end(signal.SIGKILL)

    def stop(self):
        """Stop it as an operator does; return its status."""
        return self.end(signal.SIGTERM)

    def end(self, number=None):
        """Wait for the end of the process and return its status."""
        if self.status is None:
            if number is not None:
                os.kill(self.pid, number)
            if not self.ended(TIMEOUT_SECONDS):
                self.process.kill()
                self.process.wait()
                raise self.failed("the server does not end")
            self.process.wait()
        return self.status


class Host:
    """Starts servers, and ends them; use it in a `with`."""

    def __init__(self):
        self.servers = []

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        for server in self.servers:
            if server.status is None:
                server.kill()

    def start(self, data, log, *options, limits=None, traced=False, **words):
        """
        Start a server on *data* with these options, and with *limits*: values of `queueber.limits.Limits`.

        Among the *words*: the server dies at the `failpoint` (point, count), or notes in the file `passes` which points
        it passes.  The file `boot` contains the boot id, if it is to be another one; the file `clocks` how the clocks
        are set, as `shifted` reads it.  A server that is to be *traced* waits for the tracer.
        """
        log.touch()
        begin = log.stat().st_size
        words = {name: str(each) if isinstance(each, Path) else each for name, each in words.items()}
        prepare = (str(PREPARED), "prepare", {"limits": limits, "traced": traced, **words})
        arguments = [
            "--nodaemon",
            "--pidfile=",
            "queueber",
            f"--data-dir={data}",
            "--listen=127.0.0.1:0",
            GRACE,
            *options,
        ]
        with log.open("ab") as out:
            process = WarmProcess(
                arguments, {**os.environ, "PYTHONUNBUFFERED": "1"}, output=out.fileno(), prepare=prepare
            )
        self.servers.append(Server(process, log, begin))
        return self.servers[-1]
