"""Projects of users whose tests have the fixtures; `test_guide` has those on asyncio, Twisted and trial."""

import os
import subprocess
import sys
import textwrap
from importlib.metadata import entry_points

import pytest

pytestmark = pytest.mark.slow

PLUGIN = "queueber.testing.pytest_plugin"
INSTALLED = any(each.value == PLUGIN for each in entry_points(group="pytest11"))
"""Whether pytest finds the plugin by itself: an environment may be older than the entry point."""


INI = """[pytest]
filterwarnings = error
addopts = -p no:cacheprovider --strict-markers
"""


def run(tmp_path, command, *, ini=INI, files):
    """Run *command* in a project of these files; return its output."""
    for name, text in files.items():
        (tmp_path / name).write_text(textwrap.dedent(text))
    (tmp_path / "pytest.ini").write_text(ini)
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path[1:]])},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def run_pytest(tmp_path, text, *, without):
    plugin = [] if INSTALLED else ["-p", PLUGIN]
    disabled = [option for each in without for option in ("-p", f"no:{each}")]
    ini = INI if "asyncio" in without else f"{INI}asyncio_default_fixture_loop_scope = function\n"
    return run(tmp_path, ["pytest", "-q", *plugin, *disabled], ini=ini, files={"test_mail.py": text})


def test_a_project_that_blocks(tmp_path):
    output = run_pytest(
        tmp_path,
        """
        import sys
        from datetime import UTC, datetime

        import pytest

        def test_mail_is_sent_later(queueber_server, queueber_sync):
            queueber_sync.queue("mail").add(b"hello", delay_ms=60_000)
            queueber_server.assert_added("mail", contents=b"hello", delay=60)
            queueber_server.advance(60)
            assert len(queueber_sync.queue("mail").poll(wait_ms=0)) == 1

        def test_each_test_has_a_server_of_its_own(queueber_url, queueber_server):
            assert queueber_server.url() == queueber_url
            queueber_server.assert_nothing_added()
            assert "twisted.internet.reactor" not in sys.modules

        @pytest.mark.queueber(tcp=True, start=datetime(2030, 1, 1, tzinfo=UTC))
        def test_a_marker_has_options(queueber_url, queueber_server):
            assert queueber_url == f"queueber://127.0.0.1:{queueber_server.port}"
            assert queueber_server.now.year == 2030
        """,
        without=["twisted", "asyncio"],
    )
    assert "3 passed" in output


def test_a_project_without_the_plugins_for_coroutines_has_no_such_fixtures(tmp_path):
    plugin = [] if INSTALLED else ["-p", PLUGIN]
    output = run(tmp_path, ["pytest", *plugin, "-p", "no:asyncio", "-p", "no:twisted", "--fixtures"], files={})
    assert "queueber_server" in output
    assert "queueber_aio" not in output
    assert "queueber_twisted" not in output
