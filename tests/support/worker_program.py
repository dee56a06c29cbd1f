"""
A worker in a process of its own: `python worker_program.py URL HANDLER [OPTION=VALUE …]`.

With the option `session` it takes over the session of these hexadecimal digits.
Prints a line for each thing that happens.  Handlers are named by the contents of
the items too: `sleep 5`, `gil 3`, `regex`, `fork`, `block`, `never`.
"""

import asyncio
import ctypes
import json
import logging
import os
import re
import socket
import sys
import threading
import time
from pathlib import Path

from queueber.worker import Worker


def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def connections():
    """Return how many TCP connections this process has."""
    return sum(is_tcp(int(each.name)) for each in Path("/proc/self/fd").iterdir())


def is_tcp(descriptor):
    try:
        with socket.socket(fileno=os.dup(descriptor)) as found:
            return found.family == socket.AF_INET
    except OSError:
        return False


def work(item):
    """Do what the contents say, in a thread or in the loop, and block meanwhile."""
    verb, *arguments = item.contents.decode().split()
    say("begin", verb, item.attempt)
    match verb:
        case "sleep":
            time.sleep(float(arguments[0]))
        case "gil":
            # Unlike CDLL, PyDLL keeps the interpreter lock.
            ctypes.PyDLL(None).usleep(int(float(arguments[0]) * 1e6))
        case "regex":
            re.match(r"(a+)+$", "a" * int(arguments[0]) + "b")
        case "fork":
            say("parent has", connections(), "connections")
            if os.fork() == 0:
                # The child returns from the handler.
                say("child has", connections(), "connections")
                return
        case "child":
            import multiprocessing  # noqa: PLC0415

            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0.1,))
            child.start()
            child.join()
        case "never":
            threading.Event().wait()
        case "wait":
            say("asked to end", item.wait(0.1), item.lost, item.why)
    say("end", verb, item.attempt)


async def awork(item):
    verb, *arguments = item.contents.decode().split()
    if verb != "await":
        work(item)
        return
    say("begin", verb, item.attempt)
    try:
        await asyncio.sleep(float(arguments[0]))
    except asyncio.CancelledError:
        say("cancelled", item.lost, item.why)
        raise
    say("end", verb, item.attempt)


def main(url, handler, *options):
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="log %(message)s")
    given = {name: json.loads(value) for name, _, value in (each.partition("=") for each in options)}
    session = given.pop("session", None)
    worker = Worker(url, {"thread": work, "loop": awork}[handler], telemetry=False, **given)
    if session is None:
        worker.run()
    else:
        asyncio.run(worker.run_async(bytes.fromhex(session)))
    say("ended", json.dumps(worker.health.why))


if __name__ == "__main__":
    main(*sys.argv[1:])
