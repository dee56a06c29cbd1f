"""The modules that a call of the command imports, because importing them is most of what a call costs."""

import json
import socket
import sys

import pytest

from tests.support.processes import completed

pytestmark = pytest.mark.slow

MODULES_MAX = 192
"""A few more than a call needs.  With Twisted and the engine there were 640."""

ADMIN_MODULES_MAX = 217
"""A few more than a call with administrative values needs, which are attrs classes."""

FORBIDDEN = {
    "twisted": "a reactor is more than everything else together",
    "capnp": "the schemas are compiled beforehand",
    "rocksdict": "only a server reads data",
    "OpenSSL": "the connection has no TLS",
    "cryptography": "the connection has no TLS",
    "rich": "there are no bars and tables",
    "asyncio": "comes with Twisted",
    "queueber.server": "",
    "queueber.store": "",
    "queueber.broker": "",
    "queueber.loadgen": "",
    "queueber.api.admin": "the call is not administrative",
    "queueber.api.control_types": "the call is not an operator's",
    "queueber.transport.pem": "the connection has no TLS",
    "attr": "the values of a call are named tuples",
    "stringprep": "an ASCII name needs no encoding for the DNS",
}
"""Modules by name, with the reason."""

SCRIPT = """
import json, sys
from queueber.cli.__main__ import queueber
sys.argv = sys.argv[1:]
try:
    queueber.main(prog_name="queueber")
finally:
    print(json.dumps(sorted(sys.modules)))
"""


def imported(*arguments):
    """Return the modules imported by a call with *arguments* to a server that refuses the connection."""
    done = completed([sys.executable, "-c", SCRIPT, "queueber", *map(str, arguments)])
    assert "Connection refused" in done.stderr
    return json.loads(done.stdout)


def check(modules, *, most=MODULES_MAX, allowed=()):
    forbidden = FORBIDDEN.keys() - set(allowed)
    strays = [name for name in modules for each in forbidden if name == each or name.startswith(f"{each}.")]
    assert strays == []
    assert len(modules) <= most


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "x"),
        ("poll",),
        ("remove", "0" * 32, "0" * 32),
        ("extend", "0" * 32),
        ("fail", "0" * 32, "0" * 32),
        ("defer", "all", "0" * 32),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_call_imports_only_what_it_uses(arguments):
    """Nothing is imported after the connection, which is refused here."""
    check(imported(*arguments, "--addr", refusing_address()))


def refusing_address():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        return f"127.0.0.1:{gone.getsockname()[1]}"


def test_a_health_check_imports_only_what_it_uses(tmp_path):
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(tmp_path / "control.sock"))
    for server in (("--addr", refusing_address()), ("--data-dir", tmp_path)):
        check(imported("health", *server), most=ADMIN_MODULES_MAX, allowed=["attr"])
