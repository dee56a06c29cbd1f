"""Servers as processes of their own, on free ports and in directories that go away with them; and loads on them."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from load_connection import Unexpected
from measures import family
from peers import PEERS
from peers.peer import free_port

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

STOP_SECONDS = 30
SPARE_SECONDS = 90
"""A load generator that takes so much longer than its duration hangs."""

NOT_A_DISK = {"tmpfs", "ramfs", "devtmpfs"}

PRELOAD_SHARE = 1.5


class Failed(Exception):
    """A server did not start, or did not answer as it should."""


class Missing(Failed):
    """A server is not installed."""


def log_of(process, log, what):
    return Failed(f"{what} (status {process.poll()}): {log.read_text(errors='replace')[-1500:]}")


@contextlib.contextmanager
def running(name, scratch):
    """A fresh server of the peer called *name*: its port and its process's id."""
    peer, port = PEERS[name], free_port()
    if peer.found() is None:
        raise Missing(f"{peer.program} is not installed")
    directory = scratch / f"{name}-{port}"
    directory.mkdir()
    if peer.account():
        directory.chmod(0o700)
        scratch.chmod(0o755)
        shutil.chown(directory, peer.account())
    peer.prepare(port, directory)
    try:
        with started(name, directory, port) as (log, process):
            try:
                peer.ready(port)
            except (Unexpected, OSError) as why:
                raise log_of(process, log, f"the server did not get ready: {why}") from None
            yield port, process.pid
    finally:
        peer.cleanup(port, directory)
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def started(name, directory, port):
    """A server with what is in *directory*: its log and its process, once it listens."""
    peer, log = PEERS[name], directory / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            peer.command(port, directory),
            stdout=out,
            stderr=out,
            cwd=peer.folder(directory),
            env={**os.environ, **peer.environment(port, directory)},
            user=peer.account(),
        )
    try:
        wait_for(port, process, log, peer.start_seconds)
        yield log, process
    finally:
        stop(process)


def stop(process):
    """End a server and what it started: politely, then not."""
    started = family(process.pid)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for pid in started:
            with contextlib.suppress(OSError):
                os.kill(pid, 9)
        process.wait()


def wait_for(port, process, log, seconds):
    """Return when a process listens on *port*."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.05)
    raise log_of(process, log, "the server did not start")


def load(name, port, pid, scenario, *, seconds, warmup, **more):
    """Return the figures of `load.py` for *scenario* on a server that runs."""
    wanted = {
        "peer": name,
        "port": port,
        "pid": pid,
        **scenario.load(),
        "warmup": warmup,
        "seconds": seconds,
        "preload": scenario.preload(seconds + warmup),
        "preload_seconds": PRELOAD_SHARE * (seconds + warmup),
        **more,
    }
    generator = [sys.executable, str(HERE / "load.py"), json.dumps(wanted)]
    path = os.pathsep.join((str(ROOT), str(HERE)))
    try:
        client = subprocess.run(
            generator,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
            timeout=SPARE_SECONDS + 4 * (seconds + warmup),
        )
    except subprocess.TimeoutExpired:
        raise Failed("the load generator hung") from None
    if client.returncode:
        raise Failed(f"the load generator ended with status {client.returncode}")
    answer = json.loads(client.stdout)
    if "error" in answer:
        raise Failed(answer["error"])
    return answer


def filesystem(path):
    """The type of the file system that *path* is on; empty where that cannot be known."""
    try:
        mounts = [each.split() for each in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    holds = [(len(mount[1]), mount[2]) for mount in mounts if path.is_relative_to(mount[1])]
    return max(holds, default=(0, ""))[1]
