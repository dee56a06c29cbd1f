"""Small projects of each kind whose tests use the kit, run by pytest with their plugins, or by trial."""

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
addopts = -p no:cacheprovider
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

        def test_mail_is_sent_later(queueber_server, queueber_sync):
            queueber_sync.queue("mail").add(b"hello", delay_ms=60_000)
            queueber_server.assert_added("mail", contents=b"hello", delay=60)
            queueber_server.advance(60)
            assert len(queueber_sync.queue("mail").poll(wait_ms=0)) == 1

        def test_each_test_has_a_server_of_its_own(queueber_url, queueber_server):
            assert queueber_server.url() == queueber_url
            queueber_server.assert_nothing_added()
            assert "twisted.internet.reactor" not in sys.modules
        """,
        without=["twisted", "asyncio"],
    )
    assert "2 passed" in output


def test_a_project_on_asyncio(tmp_path):
    output = run_pytest(
        tmp_path,
        """
        import asyncio
        import sys

        import pytest

        @pytest.mark.asyncio
        async def test_a_poll_waits_for_a_delay(queueber_server, queueber_aio):
            mail = queueber_aio.queue("mail")
            await mail.add(b"hello", delay_ms=60_000)
            polling = asyncio.create_task(mail.poll())
            await asyncio.sleep(0)
            queueber_server.advance(60)
            async with await polling as item:
                assert item.contents == b"hello"
            queueber_server.assert_empty()
            assert "twisted.internet.reactor" not in sys.modules

        @pytest.mark.asyncio
        async def test_a_handler(queueber_server, queueber_aio):
            await queueber_aio.queue("mail").add(b"hello")

            async def handle(item):
                await queueber_aio.queue("sent").add(item.contents)

            await queueber_server.drain_async(handle, "mail")
            queueber_server.assert_added("sent", contents=b"hello")
        """,
        without=["twisted"],
    )
    assert "2 passed" in output


def test_a_project_on_twisted(tmp_path):
    output = run_pytest(
        tmp_path,
        """
        import pytest_twisted

        @pytest_twisted.ensureDeferred
        async def test_a_poll_waits_for_a_delay(queueber_server, queueber_twisted):
            mail = queueber_twisted.queue("mail")
            await mail.add(b"hello", delay_ms=60_000)
            polling = mail.poll()
            queueber_server.advance(60)
            batch = await polling
            assert [item.contents for item in batch.items] == [b"hello"]
            await mail.remove(batch.items[0].id, batch.lease)
            queueber_server.assert_empty()

        @pytest_twisted.ensureDeferred
        async def test_a_handler(queueber_server, queueber_twisted):
            await queueber_twisted.queue("mail").add(b"hello")
            await queueber_server.drain_async(lambda item: queueber_twisted.queue("sent").add(item.contents), "mail")
            queueber_server.assert_added("sent", contents=b"hello")
        """,
        without=["asyncio"],
    )
    assert "2 passed" in output


def test_a_project_without_the_plugins_for_coroutines_has_no_such_fixtures(tmp_path):
    plugin = [] if INSTALLED else ["-p", PLUGIN]
    output = run(tmp_path, ["pytest", *plugin, "-p", "no:asyncio", "-p", "no:twisted", "--fixtures"], files={})
    assert "queueber_server" in output
    assert "queueber_aio" not in output
    assert "queueber_twisted" not in output


def test_a_project_on_trial(tmp_path):
    """Trial complains of everything that a test leaves in the reactor, which the server never touches."""
    output = run(
        tmp_path,
        ["twisted.trial", "test_mail"],
        files={
            "test_mail.py": """
        from twisted.internet import reactor
        from twisted.trial.unittest import TestCase

        from queueber.client import connect
        from queueber.testing import TestServer

        class MailTests(TestCase):
            def setUp(self):
                self.server = TestServer().start()
                self.addCleanup(self.server.stop)
                self.client = connect(reactor, self.server.url(), resend_adds=True)
                self.addCleanup(self.client.close)

            async def test_delay(self):
                mail = self.client.queue("mail")
                await mail.add(b"hello", delay_ms=60_000)
                polling = mail.poll()
                self.server.advance(60)
                batch = await polling
                self.assertEqual([item.contents for item in batch.items], [b"hello"])

            async def test_lost_reply(self):
                fault = self.server.lose_next_reply("add")
                await self.client.queue("mail").add(b"hello")
                self.assertEqual(fault.happened, 1)
                self.server.assert_added("mail", count=1)
        """
        },
    )
    assert "PASSED (successes=2)" in output
