"""The life of a test server: threads, reactors, files and processes around it."""

import os
import socket
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import pytest

from queueber import sync
from queueber.broker import Broker
from queueber.errors import InvalidRequest, QueueberError
from queueber.limits import Limits
from queueber.testing import TestServer
from queueber.testing.reactor_thread import NAME
from tests.support.processes import completed


def test_a_server_begins_empty_each_time(client_of):
    server = TestServer()
    for _ in range(2):
        with server:
            client_of(server).queue("mail").add(b"x")
            assert server.queues() == ["mail"]


def test_a_server_that_does_not_run_says_so():
    server = TestServer()
    for use in (server.url, server.items, lambda: server.path, lambda: server.port):
        with pytest.raises(RuntimeError, match=r"does not run: use it as a context manager, or call start\(\)"):
            use()
    server.stop()
    server.start()
    with pytest.raises(RuntimeError, match="runs already"):
        server.start()
    server.stop()
    server.stop()


def test_nothing_is_left_of_servers_that_were_stopped():
    def left():
        return len(list(Path("/proc/self/fd").iterdir())), sum(each.name == NAME for each in threading.enumerate())

    def use(server):
        # A plain socket: a client closes its own descriptors in a thread, when it gets to that.
        with server, socket.socket(socket.AF_UNIX) as peer:
            peer.connect(server.path)
            server.queues()
            return Path(server.path)

    use(TestServer())
    before = left()
    paths = [use(TestServer(tcp=True)) for _ in range(5)]
    descriptors, threads = left()
    # Descriptors of an earlier test may be closed meanwhile.
    assert descriptors <= before[0]
    # A server that other tests share may run.
    assert threads == before[1]
    assert not any(path.parent.exists() for path in paths)


def test_a_server_that_cannot_listen_leaves_nothing(monkeypatch):
    before = [each for each in threading.enumerate() if each.name == NAME]
    monkeypatch.setattr("queueber.testing.core.Core.listen", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        TestServer().start()
    assert [each for each in threading.enumerate() if each.name == NAME] == before


def test_servers_are_independent(client_of):
    with TestServer() as first, TestServer() as second:
        client_of(first).queue("mail").add(b"x")
        first.advance(60)
        assert second.now < first.now
        second.assert_nothing_added()


def test_urls_name_the_queue(server):
    assert server.url() == f"queueber+unix://{server.path}"
    assert server.url("a/b c") == f"queueber+unix://{server.path}?queue=a%2Fb%20c"


def test_a_long_temporary_directory_is_no_place_for_a_socket(monkeypatch, tmp_path, client_of):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with TestServer() as server:
        client_of(server).queue("mail").add(b"x")


def test_limits_are_the_server_s(client_of):
    with TestServer(limits=Limits(contents_bytes=3)) as server, pytest.raises(InvalidRequest, match="the limit is 3"):
        client_of(server).queue("mail").add(b"long")


def test_calls_from_many_threads(server, client_of):
    def work(number):
        mail = client_of(server).queue(f"mail{number}")
        for _ in range(10):
            mail.add(b"x")
            server.assert_added(f"mail{number}")
            server.advance(0.01)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(server.added()) == 40


def test_a_bug_of_the_server_fails_the_test(server, monkeypatch):
    def decide(*_):
        raise KeyError("x")

    monkeypatch.setattr(Broker, "remove", decide)
    with sync.connect(server.url(), timeout_ms=1_000) as client, pytest.raises(QueueberError):
        client.queue().remove(bytes(16), bytes(16))
    with pytest.raises(AssertionError, match=r"a bug in Queueber would have ended the server: A decision failed.*'x'"):
        server.items()


def test_a_forked_child_can_connect_and_leaves_the_server_alone(server, client_of):
    with warnings.catch_warnings():
        # From Python 3.12 on: a fork of a process with threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        status = 1
        try:
            client_of(server).queue("mail").add(b"from the child")
            with pytest.raises(RuntimeError, match="forked"):
                server.items()
            server.stop()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    server.assert_added("mail", contents=b"from the child")


def run(program):
    done = completed([sys.executable, "-W", "error", "-c", textwrap.dedent(program)])
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


@pytest.mark.slow
def test_a_program_in_another_process_connects(server):
    run(
        f"""
        from queueber.sync import connect
        with connect({server.url("mail")!r}) as client:
            client.queue().add(b"from another process")
        print("fine")
        """
    )
    server.assert_added("mail", contents=b"from another process")


@pytest.mark.slow
def test_no_reactor_is_installed_and_no_signal_is_handled():
    run(
        """
        import signal, sys
        from queueber.testing import TestServer
        before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
        with TestServer() as server:
            server.advance(1)
            assert "twisted.internet.reactor" not in sys.modules
            assert before == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
        assert "twisted.internet.reactor" not in sys.modules
        TestServer().start()  # a program that forgets to stop the server ends all the same
        print("fine")
        """
    )


@pytest.mark.slow
def test_the_program_s_own_reactor_is_not_disturbed():
    """Neither its thread is taken for another one, nor does it wake up late."""
    run(
        """
        from queueber.client import connect
        from queueber.testing import TestServer
        from twisted.internet.asyncioreactor import install
        from twisted.internet.task import react
        from twisted.internet.threads import deferToThread
        from twisted.python import threadable

        install()

        async def main(reactor):
            with TestServer() as server:
                client = connect(reactor, f"unix:{server.path}")
                await client.queue("mail").add(b"x", delay_ms=60_000)
                poll = client.queue("mail").poll()
                await deferToThread(server.advance, 60)
                assert [item.contents for item in (await poll).items] == [b"x"]
                assert threadable.isInIOThread()
                await client.close()
            print("fine")

        react(main)
        """
    )


@pytest.mark.slow
def test_the_package_imports_nothing_before_it_is_used():
    run(
        """
        import sys
        import queueber.testing
        assert not {"twisted", "attrs", "queueber.server", "queueber.api"} & set(sys.modules)
        assert "TestServer" in dir(queueber.testing)
        assert not hasattr(queueber.testing, "Nonsense")
        print("fine")
        """
    )
