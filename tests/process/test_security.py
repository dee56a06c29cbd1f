"""The security model with a real server and its files.  Other tests of the model are in other folders."""

import os
import pickle
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from queueber.rpc import encoder
from tests.process.test_maintenance import queueber
from tests.support.processes import completed

pytestmark = pytest.mark.slow

NO_USER = 65534

TRY = """
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
for path in sys.argv[2:]:
    try:
        if path.endswith(".sock"):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(path)
        else:
            os.listdir(path)
    except PermissionError:
        print("refused", path)
    else:
        print("allowed", path)
"""


class Planted:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.open, (str(self.path), os.O_CREAT)


def test_contents_are_bytes_and_run_nowhere(start, tmp_path):
    planted = tmp_path / "ran"
    (tmp_path / "item").write_bytes(pickle.dumps(Planted(planted)))
    server = start()
    assert queueber(f"--addr=127.0.0.1:{server.port}", "add", f"--file={tmp_path}/item")[0] == 0
    server.stop()
    # Nor after a restart, when the engine reads all files.
    server = start()
    assert queueber(f"--addr=127.0.0.1:{server.port}", "poll", "--no-wait")[0] == 0
    server.stop()
    assert queueber("verify", server.data_dir)[0] == 0
    assert not planted.exists()
    pickle.loads((tmp_path / "item").read_bytes())
    assert planted.exists()


def test_the_name_of_a_queue_is_no_path(start, tmp_path):
    server = start()
    address = f"--addr=127.0.0.1:{server.port}"
    for name in ("../outside", "/tmp/outside", "control.sock", ".."):
        assert queueber(address, f"--queue={name}", "add", "x")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert not [*tmp_path.rglob("*outside*"), *Path("/tmp").glob("outside")]
    assert server.stop() in (0, -15)
    start().line("Data in .*: 4 items in 4 queues")


def test_a_peer_forges_no_line_of_the_log_and_no_colour(start):
    server = start("--log-level=debug")
    forged = "2026-01-01T00:00:00+0000 [queueber#critical] forged"
    with socket.create_connection(("127.0.0.1", server.port)) as peer:
        peer.sendall(encoder.abort(f"first\n{forged}\r{forged}\x1b[31m"))
        peer.settimeout(20)
        while peer.recv(4096):
            pass
    server.line("has ended its connection")
    server.stop()
    assert not [line for line in server.lines if line.startswith(forged[:19])]
    assert not [line for line in server.lines if "\x1b" in line or "\r" in line]


def test_errors_tell_nothing_of_the_machine(start):
    server = start("--limit-contents-bytes=10")
    address = f"--addr=127.0.0.1:{server.port}"
    ended = [
        queueber(address, "add", "more than ten bytes"),
        queueber(address, "poll", "--lease=0"),
        queueber(address, "poll", "--lease=1e9"),
        queueber(address, "stats", f"--data-dir={server.data_dir}"),
    ]
    refused = [text for status, text in ended if status == 1]
    assert len(refused) == 3
    assert not [text for text in refused if str(server.data_dir.parent) in text or "/" in text or "Traceback" in text]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_gets_at_neither_the_data_nor_the_sockets(start):
    # Not in pytest's own directory, which other users may not enter.
    with tempfile.TemporaryDirectory(prefix="queueber-others-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = start(f"--listen=unix:{folder}/q.sock", f"--manhole=unix:{folder}/m.sock", data_dir=folder / "data")
        server.line("Listening on")
        server.line("onsole on")
        open_to_all = folder / "open"
        open_to_all.mkdir(mode=0o755)
        wanted = [folder / "data", folder / "data" / "control.sock", folder / "q.sock", folder / "m.sock", open_to_all]
        # The interpreter may be in a directory that the other user cannot enter.
        python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
        done = completed([python, "-I", "-c", TRY, str(NO_USER), *map(str, wanted)])
        server.stop()
    assert done.stdout.split() == [
        word for path in wanted for word in ("allowed" if path == open_to_all else "refused", str(path))
    ], done.stderr
