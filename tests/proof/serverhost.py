"""
Starts servers that are ready in a tenth of a second: real processes, forked from one that has imported everything.

As a program it takes lines of JSON and answers each with one; `Host` is the
other end.  A server's log goes to a file.
"""

import asyncio
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.003


class Failed(Exception):
    """A server did not do what a server must."""


class Server:
    """One process that serves, or will."""

    def __init__(self, host, pid, log, begin):
        self.host = host
        self.pid = pid
        self.log = log
        self.begin = begin
        self.descriptor = os.pidfd_open(pid)
        self.status = None

    def lines(self):
        """Return the server's log."""
        return self.log.read_bytes()[self.begin :].decode(errors="replace")

    def port(self, patience=PATIENCE_SECONDS):
        """Where it listens, once it does; None if it is gone before."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            found = re.search(r"Listening on .*:(\d+)\n", self.lines())
            if found:
                return int(found[1])
            if self.ended(LOOK_SECONDS):
                return None
        raise Failed("the server does not come up:\n" + self.lines()[-3_000:])

    def ended(self, patience=0.0):
        """Whether it is gone, waited for."""
        return bool(select.select([self.descriptor], [], [], patience)[0])

    async def gone(self, patience):
        """Whether it ends in so many seconds, while others get on."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.descriptor, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), patience)
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self.descriptor)
        return True

    def kill(self):
        """End it with SIGKILL; return its status."""
        return self.end(signal.SIGKILL)

    def stop(self):
        """End it as an operator does; its status."""
        return self.end(signal.SIGTERM)

    def end(self, number=None):
        """Its status once it is gone: negative for a signal's."""
        if self.status is None:
            if number is not None:
                os.kill(self.pid, number)
            if not self.ended(PATIENCE_SECONDS):
                os.kill(self.pid, signal.SIGKILL)
                self.host.ask(wait=self.pid)
                raise Failed("the server does not end:\n" + self.lines()[-3_000:])
            self.status = self.host.ask(wait=self.pid)["status"]
            os.close(self.descriptor)
        return self.status


class Host:
    """The process that servers are forked from; use it in a `with`."""

    def __init__(self):
        self.process = None
        self.servers = []

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "serverhost.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE,
            # By its end, not by its path: the repository's root would hide Twisted.
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        return self

    def __exit__(self, *exc_info):
        for server in self.servers:
            if server.status is None:
                server.kill()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def ask(self, **words):
        """One question, one answer."""
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, data, log, *options, limits=None, traced=False, **words):
        """
        A server on *data* with these options, and bounds of `queueber.limits.Limits` that are none.

        Among the *words*: it dies at the `failpoint` (point, count), or notes in the file `passes` what it passes.  The
        file `boot` says which boot of the machine this is, if it is to be another; the file `clocks`, how its clocks
        are set, as `shifted` reads it.  One that is to be *traced* waits until it is.
        """
        log.touch()
        begin = log.stat().st_size
        options = [f"--data-dir={data}", "--listen=127.0.0.1:0", *options]
        answer = self.ask(
            options=options,
            log=str(log),
            limits=limits,
            traced=traced,
            **{name: str(each) if isinstance(each, Path) else each for name, each in words.items()},
        )
        self.servers.append(Server(self, answer["pid"], log, begin))
        return self.servers[-1]


def wait_for_tracer():
    """Wait until this process is traced."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while re.search(r"^TracerPid:\t0$", Path("/proc/self/status").read_text(), re.MULTILINE):
        assert time.monotonic() < deadline, "no process traces this one"
        time.sleep(LOOK_SECONDS)


def serve(options, log, limits, traced, failpoint=None, passes=None, boot=None, clocks=None):
    """In the child: become a server."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (1, 2):
        os.dup2(out, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    import failpoints  # noqa: PLC0415
    import shifted  # noqa: PLC0415
    from twisted.scripts.twistd import run  # noqa: PLC0415

    from queueber.server.config import settings  # noqa: PLC0415
    from queueber.server.core import clock  # noqa: PLC0415

    if traced:
        wait_for_tracer()
    if limits is not None:
        settings.Limits = partial(settings.Limits, **limits)
    if boot is not None:
        clock._BOOT_ID = Path(boot)
    if clocks is not None:
        shifted.follow(Path(clocks))
    if failpoint is not None:
        failpoints.kill_at(*failpoint)
    elif passes is not None:
        failpoints.count_into(Path(passes))
    sys.argv = ["twistd", "--nodaemon", "--pidfile=", "queueber", *options]
    run()


def main():
    """Fork for each line."""
    import failpoints  # noqa: F401, PLC0415
    import shifted  # noqa: F401, PLC0415
    import twisted.application.reactors  # noqa: PLC0415
    import twisted.internet.epollreactor  # noqa: PLC0415
    import twisted.scripts.twistd  # noqa: F401, PLC0415

    import queueber.server.app.service  # noqa: F401, PLC0415

    for line in sys.stdin:
        words = json.loads(line)
        if "wait" in words:
            print(json.dumps({"status": os.waitstatus_to_exitcode(os.waitpid(words["wait"], 0)[1])}), flush=True)
            continue
        pid = os.fork()
        if not pid:
            try:
                serve(**words)
                sys.stdout.flush()
            except SystemExit as end:
                os._exit(end.code if isinstance(end.code, int) else int(bool(end.code)))
            finally:
                os._exit(70)
        print(json.dumps({"pid": pid}), flush=True)


if __name__ == "__main__":
    main()
