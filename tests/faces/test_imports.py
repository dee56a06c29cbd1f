"""The modules that importing a face imports: neither of the others, no reactor, and no more than needed."""

import json
import subprocess
import sys

import pytest

HEAVY = ("twisted", "rich", "click", "cryptography", "rocksdict", "capnp", "queueber.server", "queueber.store")

ALLOWED = {
    # The standard library's asyncio imports ssl, concurrent.futures and logging.
    "aio": (250, ("queueber.client.", "queueber.sync", "uvloop", *HEAVY)),
    "sync": (205, ("queueber.client.", "queueber.aio", "asyncio", "ssl", "logging", *HEAVY)),
    "client": (180, ("queueber.aio", "queueber.sync", "asyncio", "ssl", *HEAVY)),
}
"""The most modules of each face, and those that it does without."""

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
