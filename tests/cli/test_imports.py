"""What a call of the command costs: the modules it imports, because those are most of it."""

import json
import socket
import subprocess
import sys

import pytest

MODULES_MAX = 210
"""As many as a call takes today and a few more; with Twisted and the engine there were 640."""

FORBIDDEN = {
    "twisted": "a reactor is more than everything else together",
    "capnp": "the schemas are compiled beforehand",
    "rocksdict": "the data is the server's",
    "OpenSSL": "there is no TLS",
    "rich": "there is nothing to draw",
    "asyncio": "comes with Twisted",
    "queueber.server": "",
    "queueber.store": "",
    "queueber.broker": "",
    "stringprep": "the DNS has no need of it for a name in ASCII",
}

SCRIPT = """
import json, sys
from queueber.cli.__main__ import queueber
sys.argv = sys.argv[1:]
try:
    queueber.main(prog_name="queueber")
finally:
    print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize(
    "arguments",
    [("add", "x"), ("poll",), ("remove", "0" * 32, "0" * 32), ("extend", "0" * 32), ("health",)],
    ids=lambda arguments: arguments[0],
)
def test_a_call_imports_what_it_uses(arguments):
    """Up to the connection, which is refused: nothing is imported after it."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "queueber", *arguments, "--addr", address],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Connection refused" in done.stderr
    modules = json.loads(done.stdout)
    assert [name for name in modules for taboo in FORBIDDEN if name == taboo or name.startswith(f"{taboo}.")] == []
    assert len(modules) <= MODULES_MAX
