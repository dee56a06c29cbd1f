"""Forked processes, and the end of a process."""

import gc
import os
import signal
import sys
import textwrap
import threading
import time
from uuid import UUID

import pytest

from queueber import sync
from queueber.client_core.errors import OutcomeUnknown
from queueber.errors import InvalidRequest
from tests.support.forks import in_child
from tests.support.processes import completed
from tests.support.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def contents(server, queue):
    return [item.contents for item in server.items(queue.name)]


def test_connecting_starts_no_thread(url):
    before = threading.active_count()
    with sync.connect(url):
        assert threading.active_count() == before


def test_a_child_connects_anew_and_leaves_the_parent_alone(server, queue):
    queue.add(b"parent")

    def child():
        ids = queue.add(b"child")
        batch = queue.poll(5)
        return [len(ids), [item.contents.decode() for item in batch]]

    assert in_child(child) == [1, ["parent", "child"]]
    queue.add(b"parent again")
    assert contents(server, queue) == [b"parent", b"child", b"parent again"]


def test_a_child_of_a_process_that_polls_does_not_touch_its_poll(queue):
    batches = []
    polling = threading.Thread(target=lambda: batches.append(queue.poll(timeout_ms=30_000)))
    polling.start()
    queue.extend(b"l" * 16, 1)  # the poll was sent before

    def child():
        return len(queue.poll(wait_ms=0))

    assert in_child(child) == 0
    queue.add(b"x")
    polling.join()
    assert [item.contents for item in batches[0]] == [b"x"]


def test_a_child_that_closes_the_client_leaves_the_parent_s_open(client, queue):
    queue.add(b"x")

    def child():
        client.close()
        return True

    assert in_child(child)
    assert len(queue.poll(wait_ms=0)) == 1


def test_a_child_of_a_child(queue):
    queue.add(b"1")

    def child():
        queue.add(b"2")
        return in_child(lambda: len(queue.poll(5)))

    assert in_child(child) == 2


def test_a_session_is_of_one_process(client, queue):
    with client.session() as session:
        queue.add(b"1")
        batch = queue.poll(session=session)

        def child():
            try:
                queue.poll(session=session)
            except InvalidRequest as why:
                said = str(why)
            session.close()
            return said

        assert "belongs to the process from which this one was forked" in in_child(child)
        assert client.ping() == []
        assert batch.items[0].remove()


def test_a_child_cannot_enter_its_parent_s_session(client):
    session = client.session()

    def child():
        with pytest.raises(InvalidRequest, match="belongs to the process from which this one was forked"), session:
            pass
        return True

    assert in_child(child)
    with session:
        assert session.state is sync.SessionState.ATTACHED


def states(server, queue):
    return [item.state.name for item in server.items(queue.name)]


@pytest.mark.parametrize("error", [None, OSError("no disk"), SystemExit(0)], ids=repr)
def test_a_child_that_leaves_the_block_of_an_item_leaves_it_to_its_parent(server, queue, error):
    queue.add(b"x")
    batch = queue.poll()
    with batch as item:

        def child():
            left = [each.__exit__(type(error) if error else None, error, None) for each in (item, batch)]
            return [left, getattr(error, "__notes__", [])]

        assert in_child(child) == [[None, None], []]
        assert states(server, queue) == ["LEASED"]
    assert states(server, queue) == []


def test_a_child_cannot_settle_an_item_of_its_parent_unless_it_is_handed_over(server, queue):
    queue.add(b"1", b"2")
    first, second = queue.poll(2)

    def child():
        said = []
        for settle in (first.remove, first.fail, first.defer, first.reject, lambda: first.extend(1)):
            try:
                settle()
            except InvalidRequest as why:
                said.append(str(why))
        return [said, os.getpid(), queue.remove(second.id, second.lease)]

    said, process, removed = in_child(child)
    item, here = UUID(bytes=first.id), os.getpid()
    assert set(said) == {
        f"item {item} belongs to process {here}, which polled it, and this is process {process}: settle it there"
    }
    assert (len(said), removed) == (5, True)
    assert states(server, queue) == ["LEASED"]
    assert first.remove()


def test_a_child_does_not_give_back_the_items_in_stock(server, queue):
    queue.add(b"1", b"2")
    with queue.items(2) as items:
        assert next(items).contents == b"1"

        def child():
            items.close()
            return True

        assert in_child(child)
        assert [item.state.name for item in server.items(queue.name)] == ["LEASED"] * 2
        assert next(items).contents == b"2"


def test_a_fork_within_a_call_ends_it_in_the_child(queue):
    """A signal handler may fork while the call waits."""
    children = []

    def fork(*_):
        child = os.fork()
        if child:
            children.append(child)

    before = signal.signal(signal.SIGUSR1, fork)
    parent = os.getpid()
    try:
        threading.Timer(0.05, os.kill, [parent, signal.SIGUSR1]).start()
        threading.Timer(0.3, queue.add, [b"x"]).start()
        try:
            batch = queue.poll(timeout_ms=30_000)
        except OutcomeUnknown as why:
            os._exit(7 if "forked" in str(why) and os.getpid() != parent else 8)
        if os.getpid() != parent:
            os._exit(9)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(batch) == 1
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 7


def thread_count():
    return sum(1 for each in threading.enumerate() if each.name == "queueber")


def test_a_client_that_is_not_referenced_ends_its_thread(url):
    before = thread_count()
    client = sync.connect(url)
    client.queue().add(b"x")
    assert thread_count() == before + 1
    del client
    gc.collect()
    until(lambda: thread_count() <= before)


def run(url, program):
    done = completed([sys.executable, "-c", textwrap.dedent(program), url])
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [
        """
        import sys, threading
        from queueber import sync
        from queueber.errors import QueueberError
        client = sync.connect(sys.argv[1])
        queue = client.queue()
        queue.add(b"x")
        def poll():
            try:
                queue.dead_letters().poll()
            except QueueberError:
                # Which one depends on how far the thread has got when the process ends.
                pass
        threading.Thread(target=poll, daemon=True).start()
        """,
        """
        import os, sys
        from queueber import sync
        client = sync.connect(sys.argv[1])
        client.queue().add(b"x")
        if not os.fork():
            client.limits()
            sys.exit()
        os.wait()
        client.limits()
        """,
        """
        import atexit, sys
        from queueber import sync
        client = sync.connect(sys.argv[1])
        atexit.register(lambda: client.queue().add(b"x"))
        """,
        """
        import multiprocessing, sys
        from queueber import sync
        client = sync.connect(sys.argv[1])
        def add(contents):
            return len(client.queue().add(contents))
        if __name__ == "__main__":
            client.limits()
            with multiprocessing.get_context("fork").Pool(2) as pool:
                assert pool.map(add, [b"x"]) == [1]
        """,
    ],
    ids=["a poll in a daemon thread", "a fork", "a call at exit", "a pool"],
)
def test_a_process_ends_at_once_and_quietly(server, url, program, request):
    started = time.monotonic()
    assert run(url, program) == (0, "", "")
    assert time.monotonic() - started < 20
    assert len(server.items(request.node.name)) == 1


def test_a_call_in_the_client_s_own_thread_is_refused(server, client, queue):
    """The thread would wait for itself."""
    said = []

    def lost(lease):
        try:
            queue.extend(lease, 1)
        except InvalidRequest as why:
            said.append(str(why))

    with client.session(on_lost=lost) as session:
        queue.add(b"x")
        server.end_lease(queue.poll(session=session))
        server.drop_connections()
        until(lambda: said)
    assert said == ["a call that blocks in the client's own thread would wait for ever"]


def test_a_client_that_was_not_made_is_dropped_quietly(monkeypatch):
    """The client's finalizer runs all the same."""
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with pytest.raises(InvalidRequest, match="is not an address for this client"):
        sync.connect("tls:localhost:1")
    gc.collect()
    assert unraisable == []


def test_a_system_without_threads_is_one_clear_error(client, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(sync.NotConnected, match="the call was not sent: can't start new thread"):
            client.limits()
    assert client.limits().items_per_add == 1_000
