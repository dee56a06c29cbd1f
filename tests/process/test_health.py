"""``queueber health`` with servers that are healthy, hang or are gone, and with peers that are not servers."""

import signal
import socket

import pytest

from tests.process.certificates import Authority
from tests.support.processes import run_command

pytestmark = pytest.mark.slow


def health(*arguments):
    done = run_command(*arguments)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout or done.stderr


def contents_of(folder):
    """Return the content of each file with items, leases or marks."""
    kinds = (".log", ".sst", "MANIFEST*")
    return {path: path.read_bytes() for kind in kinds for path in folder.rglob(f"*{kind}")}


def test_a_server_is_healthy_at_any_of_its_addresses(start):
    server = start()
    server.control()
    before = contents_of(server.data_dir)
    assert before
    for where in ([f"--addr=127.0.0.1:{server.port}", "health"], ["health", f"--data-dir={server.data_dir}"]):
        status, said = health(*where, "--timeout=60")
        assert (status, said.split(":")[0]) == (0, "serving")
    assert contents_of(server.data_dir) == before


def test_a_hanging_server_is_unhealthy_within_the_time_limit(start):
    server = start()
    server.control()
    server.process.send_signal(signal.SIGSTOP)
    found = health("health", f"--data-dir={server.data_dir}", "--timeout=0.5")
    server.process.send_signal(signal.SIGCONT)
    assert found == (1, "queueber: no answer within 0.5 s\n")
    assert health("health", f"--data-dir={server.data_dir}", "--timeout=60")[0] == 0


def test_a_stopped_server_is_unhealthy(start):
    server = start()
    address = f"--addr=127.0.0.1:{server.port}"
    server.kill()
    assert health(address, "health")[0] == 1
    # The socket file is still there.
    assert health("health", f"--data-dir={server.data_dir}")[0] == 1


def test_a_peer_that_never_says_anything_is_given_up_also_under_tls(tmp_path):
    authority = Authority(tmp_path / "authority")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"--addr=127.0.0.1:{mute.getsockname()[1]}"
        found = health(address, f"--tls-ca={authority.pem}", "health", "--timeout=0.5")
    assert found == (1, "queueber: no answer within 0.5 s\n")
