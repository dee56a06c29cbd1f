"""The modules that importing a face, workers or tasks imports: no other face, no reactor, and no more than needed."""

import json
import subprocess
import sys

import pytest

from queueber.testing import TestServer

HEAVY = ("twisted", "rich", "click", "cryptography", "rocksdict", "capnp", "queueber.server", "queueber.store")

LOOPS = ("asyncio", "ssl", "concurrent")

PARTS = ("http", "opentelemetry")
"""For a page, and for traces: parts of workers and tasks that are imported when they are used."""

SLOW = ("hashlib", "ipaddress", "pathlib", "random", "urllib", "zoneinfo", "fractions", "dataclasses")
"""Modules of the standard library that take milliseconds, and that few programs need."""

REFLECTION = ("inspect", "platform", "logging", "email", "tempfile", "uuid", "subprocess", "datetime")
"""Others, which come with asyncio, attrs or UUIDs."""

SERVERS = ("queueber.api.templates", "queueber.capnp.packing")
"""Modules below the faces that are for servers alone."""

GENERATED = ("attr", "queueber.limits")
"""attrs, whose import and classes together take as long as all of `queueber.sync`, and the limits of servers."""

LEAN = (*HEAVY, *SLOW, *SERVERS)

ALLOWED = {
    # The standard library's asyncio imports ssl, concurrent.futures and logging.
    "aio": (212, ("queueber.client.", "queueber.sync", "uvloop", "uuid", *GENERATED, *LEAN)),
    "sync": (152, ("queueber.client.", "queueber.aio", *LOOPS, *REFLECTION, *GENERATED, *LEAN)),
    "client": (130, ("queueber.aio", "queueber.sync", *LOOPS, *REFLECTION, *GENERATED, *LEAN)),
    # Workers have the I/O thread of `sync`.
    "worker": (222, ("queueber.client.", "queueber.aio", *LOOPS, *PARTS, "uuid", *LEAN)),
    # Programs that only add tasks need no worker.  UUIDs are among the arguments that tasks convert.
    "tasks": (
        176,
        (
            *("queueber.client.", "queueber.aio", "queueber.sync", "queueber.worker.worker"),
            *(*LOOPS, *PARTS, *GENERATED, *LEAN),
        ),
    ),
}
"""The most modules of each, and those that it does without."""

NAMES = {"worker": "Worker", "tasks": "Tasks"}
"""The names that programs import, if it is not `connect`."""

SCRIPT = "import json, sys; from queueber.{} import {}; print(json.dumps(sorted(sys.modules)))"


def imported(package):
    script = SCRIPT.format(package, NAMES.get(package, "connect"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_it_uses(package):
    most, others = ALLOWED[package]
    modules = imported(package)
    assert [name for name in modules if name.startswith(others)] == []
    assert len(modules) <= most, len(modules)


FIRST_ADDS = {
    "sync": """
from queueber.sync import connect
before = set(sys.modules)
with connect(url) as client:
    client.queue().add(b"x")
""",
    "aio": """
import asyncio
from queueber.aio import connect
before = set(sys.modules)
async def main():
    async with connect(url) as client:
        await client.queue().add(b"x")
asyncio.run(main())
""",
}


@pytest.mark.parametrize("package", FIRST_ADDS)
def test_the_first_add_imports_nothing_more(package):
    with TestServer(tcp=True) as server:
        script = f"import sys\nurl = {server.url()!r}\n{FIRST_ADDS[package]}\nprint(*set(sys.modules) - before)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert len(server.items()) == 1
    assert done.stdout == "\n"
