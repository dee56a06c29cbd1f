"""The modules that importing a face, workers or tasks imports: no other face, no reactor, and no more than needed."""

import json
import subprocess
import sys

import pytest

HEAVY = ("twisted", "rich", "click", "cryptography", "rocksdict", "capnp", "queueber.server", "queueber.store")

LOOPS = ("asyncio", "ssl", "concurrent")

ALLOWED = {
    # The standard library's asyncio imports ssl, concurrent.futures and logging.
    "aio": (250, ("queueber.client.", "queueber.sync", "uvloop", *HEAVY)),
    "sync": (205, ("queueber.client.", "queueber.aio", "asyncio", "ssl", "logging", *HEAVY)),
    "client": (180, ("queueber.aio", "queueber.sync", "asyncio", "ssl", *HEAVY)),
    # Workers have the I/O thread of `sync`.  A loop, a page and OpenTelemetry are imported when they are used.
    "worker": (235, ("queueber.client.", "queueber.aio", *LOOPS, "http", "opentelemetry", *HEAVY)),
    "tasks": (270, ("queueber.client.", "queueber.aio", *LOOPS, "http", "opentelemetry", *HEAVY)),
}
"""The most modules of each, and those that it does without."""

SCRIPT = "import json, sys; import queueber.{}; print(json.dumps(sorted(sys.modules)))"


def imported(face):
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(face)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("face", ALLOWED)
def test_a_face_imports_only_what_it_uses(face):
    most, others = ALLOWED[face]
    modules = imported(face)
    assert [name for name in modules if name.startswith(others)] == []
    assert len(modules) <= most, len(modules)
