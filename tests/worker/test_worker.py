"""Workers of a real server, in all three ways to run them."""

import asyncio
import logging
import math
import signal
import socket
import threading
from contextlib import suppress

import pytest
import pytest_twisted
from twisted.internet import defer

from queueber.client_core.errors import NotConnected
from queueber.client_core.items import new_item as item_of
from queueber.errors import InvalidRequest, Kind
from queueber.sync import connect
from queueber.testing import TestServer
from queueber.testing.faults import FaultyHandlers, FaultyProtocol
from queueber.values import AddTo
from queueber.worker import Defer, Done, Fail, Reject, Worker
from queueber.worker.attachment import Attachment
from queueber.worker.handling import LOG
from queueber.worker.keeper import Keeper
from tests.support.waiting import until
from tests.worker.conftest import TIMEOUT_SECONDS


def empty(server):
    return lambda: not server.items("work")


class TestThreads:
    def test_a_plain_return_removes_the_item(self, server, add, work):
        seen = []
        add(b"a", b"b", b"c")
        with work(lambda item: seen.append((item.contents, item.attempt, item.queue))):
            until(empty(server))
        assert sorted(seen) == [(b"a", 1, "work"), (b"b", 1, "work"), (b"c", 1, "work")]
        server.assert_empty("work")

    def test_an_exception_fails_the_item_with_its_text_and_place(self, server, add, work):
        def handler(item):
            raise ValueError(f"no picture: {item.contents.decode()}")

        add(b"cat.txt")
        with work(handler):
            (item,) = until(lambda: [each for each in server.items("work") if each.failures])
        assert item.last_error.startswith("ValueError: no picture: cat.txt\n\n")
        assert 'raise ValueError(f"no picture' in item.last_error
        assert (item.attempts, item.failures) == (1, 1)

    @pytest.mark.parametrize("raises", [True, False])
    def test_decisions_count_whether_they_are_raised_or_returned(self, server, add, work, raises):
        decisions = {
            b"reject": Reject("no picture"),
            b"defer": Defer(60),
            b"fail": Fail(90, "the disk is full"),
            b"done": Done([AddTo("next", [item_of(b"step two")])]),
        }

        def handler(item):
            if raises:
                raise decisions[item.contents]
            return decisions[item.contents]

        add(*decisions)
        with work(handler, concurrency=4):
            until(lambda: len(server.dead("work")) == 1 and len(server.items("work")) == 2 and server.items("next"))
            until(lambda: not any(each.lease for each in server.items("work")))
        (dead,) = server.dead("work")
        deferred, failed = server.items("work")
        assert (dead.contents, dead.death.reason.name, dead.last_error) == (b"reject", "REJECTED", "no picture")
        assert (deferred.contents, deferred.failures, deferred.last_error) == (b"defer", 0, "")
        assert (failed.contents, failed.failures, failed.last_error) == (b"fail", 1, "the disk is full")
        assert [round((each.due - server.now).total_seconds()) for each in (deferred, failed)] == [60, 90]
        assert [each.contents for each in server.items("next")] == [b"step two"]

    def test_decisions_that_are_raised_are_logged_in_words(self, server, add, work, caplog):
        caplog.set_level(logging.INFO)
        decisions = [Reject("no picture"), Defer(60), Fail(90, "the disk is full"), Fail(30), Fail()]
        decisions += [Done([AddTo("next", [item_of(b"step two")])])]

        def handler(item):
            raise decisions[int(item.contents)]

        add(*(b"%d" % each for each in range(len(decisions))))
        with work(handler, concurrency=1):
            until(lambda: server.items("next"))
        words = [each.partition("attempt 1: ")[2] for each in caplog.messages if "attempt 1: " in each]
        assert sorted(words) == ["defer 60", "done", "fail", "fail 30", "fail 90 the disk is full", "reject no picture"]

    def test_a_handler_that_ends_its_thread_fails(self, server, add, work):
        def handler(_):
            raise SystemExit(3)

        add(b"a")
        with work(handler):
            (item,) = until(lambda: [each for each in server.items("work") if each.failures])
        assert item.last_error.startswith("SystemExit: 3")

    def test_a_handler_that_returns_a_coroutine_fails_with_advice(self, server, add, work):
        async def later():
            pass

        add(b"a")
        with work(lambda _: later()):
            (item,) = until(lambda: [each for each in server.items("work") if each.failures])
        assert "make the handler a coroutine function, or pass threads=False" in item.last_error

    def test_facts_of_earlier_deliveries_and_headers_arrive(self, server, work):
        seen = []

        def handler(item):
            seen.append((item.attempt, item.failures, item.last_error, dict(item.headers)))
            if item.attempt == 1:
                return Fail(0, "once")
            return None

        with connect(server.url("work")) as client:
            client.queue().add_items(item_of(b"a", headers={"user": b"ann"}))
        with work(handler):
            until(empty(server))
        assert seen == [(1, 0, "", {"user": b"ann"}), (2, 1, "once", {"user": b"ann"})]

    def test_hooks_are_called_around_the_handler(self, server, add, work):
        calls = []
        hooks = {
            "before": [lambda item: calls.append(("before", item.contents))],
            "after": [lambda item, verdict, error: calls.append((item.contents, verdict.action.name, str(error)))],
        }

        def handler(item):
            calls.append("handler")
            if item.contents == b"bad":
                raise Reject("bad")

        add(b"good")
        with work(handler, **hooks):
            until(empty(server))
            add(b"bad")
            until(empty(server))
        good = [("before", b"good"), "handler", (b"good", "REMOVE", "None")]
        assert calls == [*good, ("before", b"bad"), "handler", (b"bad", "REJECT", "bad")]

    def test_a_hook_that_fails_before_the_handler_fails_the_item(self, server, add, work):
        called = []

        def before(_):
            raise LookupError("no database")

        add(b"a")
        with work(called.append, before=[before]):
            (item,) = until(lambda: [each for each in server.items("work") if each.failures])
        assert item.last_error.startswith("LookupError: no database")
        assert called == []

    @pytest.mark.parametrize("error", [LookupError("no database"), SystemExit(1)], ids=["error", "exit"])
    def test_a_hook_that_fails_after_the_handler_is_only_logged(self, server, add, work, caplog, error):
        def after(*_):
            raise error

        add(b"a")
        with work(lambda _: None, after=[after]):
            until(empty(server))
        assert "a hook failed after item" in caplog.text

    def test_a_hook_that_returns_a_coroutine_fails_the_item_too(self, server, add, work):
        async def hook(_):
            pass

        add(b"a")
        with work(lambda _: None, before=[hook]):
            (item,) = until(lambda: [each for each in server.items("work") if each.failures])
        assert "the handler or a hook returned coroutine" in item.last_error

    def test_a_queue_of_a_client_may_be_given(self, server, work):
        seen = []
        with connect(server.url()) as client:
            queue = client.queue("work")
            queue.add(b"a")
            with work(lambda item: seen.append((item.queue, item.contents)), queue=queue):
                until(empty(server))
        assert seen == [("work", b"a")]

    def test_dead_items_can_be_worked_on(self, server, add, work):
        def handler(item):
            raise Reject("no picture")

        add(b"a")
        with work(handler):
            until(lambda: server.dead("work"))
        seen = []
        with connect(server.url()) as client:
            dead = client.queue("work").dead_letters()
            with work(lambda item: seen.append((item.death.reason.name, item.last_error)), queue=dead):
                until(lambda: not server.dead("work"))
        assert seen == [("REJECTED", "no picture")]


class TestAsyncio:
    def test_coroutines_run_together_in_the_loop(self, server, add, work):
        gate, seen = threading.Barrier(1), []
        meeting = []

        async def handler(item):
            if not meeting:
                meeting.append(asyncio.Barrier(3))
            await meeting[0].wait()
            seen.append((item.contents, threading.current_thread().name))

        add(b"a", b"b", b"c")
        with work(handler, concurrency=3):
            until(empty(server))
        assert {contents for contents, _ in seen} == {b"a", b"b", b"c"}
        assert len({name for _, name in seen}) == 1
        assert gate.parties == 1

    def test_a_worker_runs_in_the_loop_of_a_program(self, server, add):
        add(b"a", b"b")

        async def main():
            seen = []

            async def handler(item):
                seen.append(item.contents)
                if len(seen) == 2:
                    worker.stop()

            worker = Worker(server.url("work"), handler, telemetry=False)
            await worker.run_async()
            return seen

        assert sorted(asyncio.run(main())) == [b"a", b"b"]
        server.assert_empty("work")

    def test_a_plain_function_of_an_asyncio_worker_runs_in_threads(self, server, add):
        add(b"a")

        async def main():
            seen = []

            def handler(_):
                seen.append(threading.current_thread() is threading.main_thread())
                worker.stop()

            worker = Worker(server.url("work"), handler, telemetry=False)
            await worker.run_async()
            return seen

        assert asyncio.run(main()) == [False]

    def test_cancelling_the_worker_defers_what_runs(self, server, add):
        add(b"a")

        async def main():
            started, cancelled = asyncio.Event(), []

            async def handler(_):
                started.set()
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    cancelled.append(True)
                    raise

            worker = Worker(server.url("work"), handler, telemetry=False)
            running = asyncio.create_task(worker.run_async())
            await started.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            return cancelled

        assert asyncio.run(main()) == [True]
        (item,) = server.items("work")
        assert (item.lease, item.attempts) == (b"", 0)

    def test_a_handler_that_its_own_program_cancels_is_deferred(self, server, add, work):
        async def handler(_):
            raise asyncio.CancelledError

        add(b"a")
        with work(handler):
            until(lambda: [each for each in server.items("work") if not each.lease and each.due > server.now])
        (item,) = server.items("work")
        assert (item.attempts, item.failures) == (0, 0)

    def test_max_runtime_cancels_a_coroutine_and_its_item_fails(self, server, add, work):
        cancelled = []

        async def handler(_):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError as why:
                cancelled.append(why.args)
                raise

        add(b"a")
        with work(handler, max_runtime=0.01):
            (item,) = until(lambda: [each for each in server.items("work") if each.failures])
        assert item.last_error == "its handler ran for more than 0.01 s (max_runtime)"
        assert cancelled == [(item.last_error,)]


class TestTwisted:
    @pytest.mark.parametrize("threads", [None, False])
    @pytest_twisted.ensureDeferred
    async def test_handlers_run_in_the_reactor(self, server, add, threads):
        from twisted.internet import reactor, task  # noqa: PLC0415

        add(b"a", b"b")
        seen = []

        async def coroutine(item):
            await task.deferLater(reactor, 0)
            seen.append((item.contents, threading.current_thread()))

        def deferred(item):
            return defer.ensureDeferred(coroutine(item))

        handler = coroutine if threads is None else deferred
        worker = Worker(server.url("work"), handler, telemetry=False, threads=threads)
        ended = worker.start(reactor)
        while server.items("work"):
            await task.deferLater(reactor, 0.005)
        worker.stop()
        await ended
        assert sorted(contents for contents, _ in seen) == [b"a", b"b"]
        assert {thread for _, thread in seen} == {threading.current_thread()}

    @pytest_twisted.ensureDeferred
    async def test_plain_functions_run_in_threads(self, server, add):
        from twisted.internet import reactor  # noqa: PLC0415

        add(b"a")
        seen = []

        def handler(_):
            seen.append(threading.current_thread() is threading.main_thread())
            worker.stop()

        worker = Worker(server.url("work"), handler, telemetry=False)
        await worker.start(reactor)
        assert seen == [False]

    @pytest_twisted.ensureDeferred
    async def test_cancelling_its_deferred_stops_the_worker(self, server, add):
        from twisted.internet import reactor, task  # noqa: PLC0415

        add(b"a")
        began, ends = defer.Deferred(), []

        async def handler(_):
            began.callback(None)
            try:
                await task.deferLater(reactor, 60)
            except defer.CancelledError:
                ends.append("cancelled")
                raise

        ended = Worker(server.url("work"), handler, telemetry=False, grace=0).start(reactor)
        await began
        ended.cancel()
        with pytest.raises(defer.CancelledError):
            await ended
        while server.items("work")[0].lease:
            await task.deferLater(reactor, 0.005)
        (item,) = server.items("work")
        assert (ends, item.attempts) == (["cancelled"], 0)

    @pytest_twisted.ensureDeferred
    async def test_a_refused_poll_fails_its_deferred(self, server):
        from twisted.internet import reactor  # noqa: PLC0415

        with pytest.raises(InvalidRequest, match="the limit is 604,800,000"):
            await Worker(server.url("work"), print, lease=8 * 86_400, telemetry=False).start(reactor)


class TestEnds:
    def test_a_stop_gives_prefetched_items_back_and_waits_for_handlers(self, server, add, work):
        gate, began = threading.Event(), threading.Event()

        def handler(_):
            began.set()
            gate.wait(30)

        add(b"a", b"b", b"c")
        with work(handler, concurrency=1, prefetch=2, grace=30) as worker:
            assert began.wait(30)
            until(lambda: len([each for each in server.items("work") if each.lease]) == 3)
            worker.stop()
            waiting = until(lambda: [each for each in server.items("work") if not each.lease])
            assert [(each.contents, each.attempts) for each in waiting] == [(b"b", 0), (b"c", 0)]
            gate.set()
            until(lambda: len(server.items("work")) == 2)

    def test_after_the_grace_a_handler_in_a_thread_is_asked_to_end(self, server, add, work):
        began, ends = threading.Event(), []

        def handler(item):
            began.set()
            ends.append((item.wait(30), item.stopping, item.lost, item.why))

        add(b"a")
        with work(handler, grace=0):
            assert began.wait(30)
        assert ends == [(True, True, False, "the worker stops")]
        # It returned without an error, so its work is done.
        server.assert_empty("work")

    def test_a_second_stop_ends_at_once_and_burns_no_attempt(self, server, add, work):
        began, gate = threading.Event(), threading.Event()

        def handler(_):
            began.set()
            gate.wait(30)

        add(b"a")
        with work(handler, grace=600) as worker:
            assert began.wait(30)
            worker.stop()
        (item,) = server.items("work")
        assert (item.lease, item.attempts) == (b"", 0)
        gate.set()

    def test_a_worker_that_is_stopped_before_it_runs_ends_at_once(self, server, add):
        add(b"a")
        worker = Worker(server.url("work"), print, telemetry=False)
        worker.stop()
        worker.run()
        assert server.items("work")[0].attempts == 0

    def test_a_worker_runs_once(self, server):
        worker = Worker(server.url("work"), print, telemetry=False)
        worker.stop()
        worker.run()
        with pytest.raises(InvalidRequest, match="has already run"):
            worker.run()

    @pytest.mark.parametrize("started", [0, 1], ids=["none", "one"])
    def test_a_worker_ends_though_the_system_has_no_thread_for_its_end(self, server, work, monkeypatch, started):
        """One thread closes the connection, and another waits for that."""
        start, closing = threading.Thread.start, []

        def no_more(thread):
            if thread.name == "queueber closing":
                closing.append(thread)
                if len(closing) > started:
                    raise RuntimeError("can't start new thread")
            start(thread)

        with work(print) as worker:
            until(lambda: worker.health.connected)
            monkeypatch.setattr(threading.Thread, "start", no_more)
        assert len(closing) == started + 1

    def test_a_worker_whose_first_poll_is_refused_raises_the_error(self, server):
        worker = Worker(server.url("work"), print, lease=8 * 86_400, telemetry=False)
        with pytest.raises(InvalidRequest, match="691,200,000 ms; the limit is 604,800,000"):
            worker.run()


class TestFaults:
    def test_a_lease_that_the_server_ends_cancels_a_coroutine(self, server, add, work, caplog):
        began, ends = threading.Event(), []

        async def handler(item):
            began.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ends.append((item.lost, item.attempt))
                raise

        add(b"a")
        with work(handler, concurrency=1, prefetch=0):
            assert began.wait(30)
            began.clear()
            server.end_lease(server.items("work")[0])
            until(lambda: ends)
            assert began.wait(30)
        assert ends[0] == (True, 1)
        assert "is lost: the server has ended it" in caplog.text

    def test_a_lease_that_the_server_ends_is_seen_by_a_thread(self, server, add, work):
        began, ends = threading.Event(), []

        def handler(item):
            began.set()
            if item.attempt == 1:
                ends.append((item.wait(30), item.lost))

        add(b"a")
        with work(handler):
            assert began.wait(30)
            server.end_lease(server.items("work")[0])
            until(lambda: ends)
        assert ends == [(True, True)]
        server.assert_empty("work")

    def test_leases_outlive_a_lost_connection(self, server, add, work):
        gate, began, attempts = threading.Event(), threading.Event(), []

        def handler(item):
            attempts.append(item.attempt)
            began.set()
            gate.wait(30)

        add(b"a")
        with work(handler) as worker:
            assert began.wait(30)
            server.drop_connections()
            until(lambda: not worker.health.connected)
            until(lambda: worker.health.connected)
            gate.set()
            until(empty(server))
        assert attempts == [1]

    def test_a_result_whose_reply_is_lost_is_settled_once(self, server, add, work):
        seen = []
        with work(lambda item: seen.append(item.contents)) as worker:
            fault = server.lose_next_reply("settle")
            add(b"a")
            until(lambda: fault.happened)
            add(b"b")
            until(lambda: not server.items("work") and worker.health.settling == 0)
        assert seen == [b"a", b"b"]

    def test_items_whose_delivery_is_lost_come_again(self, server, add, work):
        seen = []
        fault = server.lose_next_reply("poll")
        add(b"a")
        with work(lambda item: seen.append((item.contents, item.attempt))):
            until(empty(server))
        assert fault.happened == 1
        assert [contents for contents, _ in seen] == [b"a"]

    def test_a_server_that_is_overloaded_is_asked_again(self, server, add, work):
        add(b"a")
        with server.overloaded("settle", times=2), server.overloaded("poll", times=2), work(lambda _: None):
            until(empty(server))

    @pytest.mark.slow
    def test_a_server_that_is_away_is_waited_for_and_the_log_says_so(self, server, add, work, caplog, monkeypatch):
        monkeypatch.setattr("queueber.worker.connection_watch.ABSENT_SECONDS", 0.0)
        add(b"a")
        away = server.down()
        with work(lambda _: None):
            until(lambda: "there is no connection" in caplog.text)
            away.end()
            until(empty(server))

    @pytest.mark.parametrize("is_away", [True, False], ids=["the server was away", "the worker stood still"])
    def test_only_a_worker_that_had_a_connection_may_have_been_stopped_by_its_items(
        self, server, add, work, monkeypatch, is_away
    ):
        unsafe, seen, gate = threading.Event(), [], threading.Event()
        safe_until = Attachment.safe_until.fget
        monkeypatch.setattr(
            Attachment, "safe_until", property(lambda self: -math.inf if unsafe.is_set() else safe_until(self))
        )

        def handler(item):
            seen.append((item.attempt, item.losses))
            if len(seen) == 1:
                gate.wait(TIMEOUT_SECONDS)

        add(b"a")
        with work(handler, concurrency=2) as worker:
            until(lambda: seen)
            away = server.down() if is_away else None
            until(lambda: worker.health.connected is not is_away)
            unsafe.set()
            until(lambda: worker.health.lost == 1)
            unsafe.clear()
            if away is not None:
                away.end()
            until(lambda: server.advance(0.01) or len(seen) == 2)
            gate.set()
            until(empty(server))
        assert seen == [(1, 0), (1, 0) if is_away else (2, 1)]

    @pytest.mark.slow
    def test_timed_leases_are_kept_up(self, server, add, work):
        gate, began, attempts = threading.Event(), threading.Event(), []

        def handler(item):
            attempts.append(item.attempt)
            began.set()
            gate.wait(30)

        add(b"a")
        # A worker that does not run for so long, on a busy machine, gives the lease up.
        with work(handler, lease=4):
            assert began.wait(30)
            with connect(server.url()) as client:
                control = client.control("work")
                for _ in range(2):
                    # Each extension counts from the server's present time.
                    (lease,) = control.leases().found
                    server.advance(1.2)
                    until(lambda end=lease.deadline_ms: control.leases().found[0].deadline_ms > end)
            gate.set()
            until(empty(server))
        assert attempts == [1]

    @pytest.mark.parametrize("lease", ["session", 30])
    def test_a_server_that_knows_neither_sessions_nor_settle_will_do(
        self, server, add, work, lease, monkeypatch, caplog
    ):
        old = {"attach", "settle", "ping"}
        current = FaultyHandlers.call

        def call(self, sink, calls):
            from queueber.testing.faults import _OURS, METHODS  # noqa: PLC0415

            name = METHODS.get((calls.interface_id, calls.method_id), "")
            if _OURS.get(name, name) not in old:
                current(self, sink, calls)
                return
            sink.refuse(calls.answers, Kind.UNIMPLEMENTED, "no such method")

        monkeypatch.setattr(FaultyHandlers, "call", call)
        assert FaultyProtocol
        seen = []

        def handler(item):
            seen.append((item.contents, item.attempt))
            if item.contents == b"bad" and item.attempt == 1:
                raise ValueError("once")

            if item.contents == b"hand off" and item.attempt == 1:
                return Done([AddTo("next", [item_of(b"step")])])
            return None

        add(b"good", b"bad", b"hand off")
        with work(handler, lease=lease, concurrency=3):
            # The lease of an item that failed ends a millisecond after that.
            until(lambda: server.advance(0.01) or not server.items("work"))
        assert sorted(seen) == [(b"bad", 1), (b"bad", 2), (b"good", 1), (b"hand off", 1), (b"hand off", 2)]
        assert "too old for a hand-off" in caplog.text
        assert "too old for settle" in caplog.text
        assert ("too old for sessions" in caplog.text) == (lease == "session")


class TestSeveralQueues:
    def test_strict_order_serves_the_first_queue_first(self, server, add, work):
        seen = []
        for queue in ("low", "high", "middle"):
            add(b"1", b"2", queue=queue)

        def handler(item):
            seen.append(item.queue)

        queues = [server.url(name) for name in ("high", "middle", "low")]
        with work(handler, queue=queues, strict=True, concurrency=1, prefetch=0):
            until(lambda: len(seen) == 6)
        assert seen == ["high", "high", "middle", "middle", "low", "low"]
        server.assert_empty("high", "middle", "low")

    def test_weights_share_the_worker(self, server, add, work):
        seen = []
        for queue in ("a", "b"):
            add(*[b"x"] * 40, queue=queue)
        weights = {server.url("a"): 3, server.url("b"): 1}
        with work(lambda item: seen.append(item.queue), queue=weights, concurrency=1, prefetch=0):
            until(lambda: len(seen) == 80)
        assert 25 <= seen[:40].count("a") <= 35

    def test_names_on_one_server(self, server, add, work):
        seen = []
        add(b"x", queue="a")
        add(b"y", queue="default")
        with work(lambda item: seen.append((item.queue, item.contents)), queues=["a", "default"]):
            until(lambda: len(seen) == 2)
        assert sorted(seen) == [("a", b"x"), ("default", b"y")]


@pytest.mark.slow
def test_the_log_has_the_place_where_the_loop_stands(server, add, work, caplog, monkeypatch):
    monkeypatch.setattr("queueber.worker.loop_watch.SLOW_SECONDS", 0.6)
    caplog.set_level(logging.WARNING)
    gate = threading.Event()

    async def blocking_the_loop(_):
        gate.wait(30)

    add(b"a", b"b")
    with work(blocking_the_loop, concurrency=1, prefetch=1):
        until(lambda: "has been blocked for 1 s, in this code" in caplog.text)
        # The other one went back at once.
        until(lambda: [each.contents for each in server.items("work") if not each.lease] == [b"b"])
        gate.set()
        until(empty(server))
    assert "in blocking_the_loop" in caplog.text
    assert "runs again" in caplog.text


class TestResources:
    def test_a_bug_in_its_thread_ends_the_worker_instead_of_silencing_it(self, server, caplog, monkeypatch):
        def tick(*_):
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr("queueber.worker.rules.WorkerRules.tick", tick)
        with pytest.raises(ZeroDivisionError, match="a bug"):
            Worker(server.url("work"), print, telemetry=False).run()
        assert "a bug in Queueber ends the worker" in caplog.text

    def test_fewer_threads_than_wanted_do_the_work(self, server, add, work, caplog, monkeypatch):
        start = threading.Thread.start

        def limited(thread):
            if thread.name.startswith("queueber handler") and not thread.name.endswith(" 1"):
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", limited)
        add(b"a", b"b", b"c")
        with work(lambda _: None, concurrency=3):
            until(empty(server))
        assert "handlers share 1: can't start new thread" in caplog.text

    def test_without_any_thread_the_worker_ends(self, server, add, monkeypatch):
        start = threading.Thread.start

        def limited(thread):
            if thread.name.startswith("queueber handler"):
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", limited)
        add(b"a")
        with pytest.raises(RuntimeError, match="can't start new thread"):
            Worker(server.url("work"), print, telemetry=False).run()

    def test_a_stop_while_the_worker_starts_is_not_lost(self, server, monkeypatch):
        worker, start = Worker(server.url("work"), print, telemetry=False), Keeper.start

        def stop_first(keeper, runner):
            worker.stop()
            start(keeper, runner)

        monkeypatch.setattr(Keeper, "start", stop_first)
        worker.run()

    def test_a_log_that_raises_does_not_keep_a_signal_from_the_worker(self, server, add, monkeypatch):
        """The signal may have interrupted a write to the same stream, which then raises."""
        raised = []

        def fail(*_):
            raise RuntimeError("reentrant call")

        async def handler(_):
            monkeypatch.setattr(LOG, "info", fail)
            try:
                signal.raise_signal(signal.SIGTERM)
            except RuntimeError as why:
                raised.append(why)
                worker.stop()

        worker = Worker(server.url("work"), handler, telemetry=False)
        add(b"a")
        worker.run()
        assert raised == []
        assert not server.items("work")


class Port:
    """A port that passes connections on to a server, or answers as one that speaks HTTP."""

    def __init__(self, server=None):
        self.to = server
        self.answered = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self):
        return f"queueber://127.0.0.1:{self._listener.getsockname()[1]}/work"

    def _accept(self):
        with suppress(OSError):
            while True:
                peer = self._listener.accept()[0]
                self._open.append(peer)
                if self.to is None:
                    with peer:
                        peer.recv(65_536)
                        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                        self.answered += 1
                else:
                    far = socket.create_connection(("127.0.0.1", self.to))
                    self._open.append(far)
                    for ends in ((peer, far), (far, peer)):
                        self._threads.append(threading.Thread(target=self._pass, args=ends))
                        self._threads[-1].start()

    def _pass(self, source, sink):
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def speak_http(self):
        """End the connections, and answer those that follow."""
        self.to = None
        self._cut()

    def _cut(self):
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._cut()
        for each in self._threads:
            each.join()
        for each in (*self._open, self._listener):
            each.close()


@pytest.fixture
def port():
    made = []

    def listening(server=None):
        made.append(Port(server))
        return made[-1]

    yield listening
    for each in made:
        each.close()


@pytest.mark.parametrize("lease", ["session", 30])
def test_a_worker_whose_peer_is_no_server_ends_with_the_reason(port, lease):
    worker = Worker(port().url, print, telemetry=False, lease=lease)
    with pytest.raises(NotConnected, match="this port speaks HTTP"):
        worker.run()
    assert worker.health.polls == 0


def test_a_peer_that_has_become_something_else_is_named_once_a_minute(work, port, caplog):
    """A proxy that answers in place of a server, while that is away."""
    caplog.set_level(logging.INFO, "queueber.worker")
    with TestServer(tcp=True) as server:
        address = port(server.port)
        with work(print, queue=[address.url]) as worker:
            until(lambda: "connected; taking items" in caplog.text)
            address.speak_http()
            until(lambda: address.answered > 2)
            assert not worker.health.stopping
    lines = [each.getMessage() for each in caplog.records if each.name == "queueber.worker"]
    (line,) = [each for each in lines if each.startswith("cannot connect")]
    assert line.endswith("this port speaks HTTP")
