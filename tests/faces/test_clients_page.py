"""Run every program of docs/clients.md."""

import re
import sys
from pathlib import Path

import pytest

from queueber.client_core.options import ConnectOptions
from queueber.testing import TestServer
from tests.support.processes import completed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
PROGRAMS = {re.match(r"# (\w+\.py)\n", block)[1]: block for _, block in BLOCKS}

pytestmark = pytest.mark.slow


def test_there_is_a_program_for_each_face():
    assert {language for language, _ in BLOCKS} == {"python"}
    assert list(PROGRAMS) == ["pictures_aio.py", "pictures_sync.py", "pictures_twisted.py", "session_sync.py"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_does_what_it_shows(name, tmp_path):
    with TestServer(tcp=True) as server:
        (tmp_path / name).write_text(PROGRAMS[name].replace("127.0.0.1:9090", f"127.0.0.1:{server.port}"))
        done = completed([sys.executable, name], cwd=tmp_path)
        server.assert_empty()
    shown = "cutting long.avi\n" if "session" in name else "resizing cat.jpg\nresizing dog.jpg\n"
    assert (done.stdout, done.stderr, done.returncode) == (shown, "", 0)


def test_every_parameter_of_a_url_is_in_the_table():
    rows = re.findall(r"^\| (`[^|]+`) \|", PAGE, flags=re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    options = vars(ConnectOptions()).keys() - {"tls", "limits", "retry_policy"}
    assert options | {"frame_bytes", "ca", "certificate", "key", "server_name"} <= names
