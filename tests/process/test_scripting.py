"""Run the scripts of the guide in a shell, against a server."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.processes import completed

pytestmark = pytest.mark.slow

GUIDE = (Path(__file__).parents[2] / "docs" / "scripting.md").read_text()

QUEUEBER = f'queueber() {{ {sys.executable} -m queueber.cli "$@"; }}\n'
LP = 'lp() { od -An -c "$1"; }\n'


def test_a_worker_takes_every_item_byte_for_byte_and_ends_when_there_is_none(start, tmp_path):
    script, _ = re.findall(r"^```sh\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
    server = start()

    def sh(text):
        return completed(
            ["sh", "-c", QUEUEBER + LP + text],
            cwd=tmp_path,
            env={**os.environ, "QUEUEBER_ADDR": f"127.0.0.1:{server.port}"},
        )

    added = sh("printf 'a\\n\\000\\n' | queueber add --queue letters && queueber add --queue letters -- -5")
    assert (added.returncode, added.stderr) == (0, "")
    done = sh(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["a", "\\n", "\\0", "\\n"],
        ["removed"],
        ["-", "5"],
        ["removed"],
    ]
    server.kill()
    failed = sh(script)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "cannot connect" in failed.stderr
