"""The context of a trace travels in the headers of items, if OpenTelemetry is installed."""

import asyncio
from contextlib import nullcontext

import pytest

from queueber.errors import InvalidRequest
from queueber.tasks import Next, connections
from tests.tasks.stand_ins import Adds, AioAdds, TxAdds, app_with_adds, delivered

trace = pytest.importorskip("opentelemetry.trace")
sdk = pytest.importorskip("opentelemetry.sdk.trace")


@pytest.fixture
def tracer(monkeypatch):
    """The tracer of the program, which is that of the client as well."""
    made = sdk.TracerProvider(shutdown_on_exit=False).get_tracer("tests")
    monkeypatch.setattr("queueber.worker.telemetry.tracer", lambda: made)
    monkeypatch.setattr("queueber.worker.telemetry.is_recorded", lambda: True)
    return made


def trace_id(item):
    return int(dict(item.options.headers)["traceparent"].split(b"-")[1], 16)


def span_id(item):
    return int(dict(item.options.headers)["traceparent"].split(b"-")[2], 16)


def test_an_add_of_each_face_is_a_span_of_the_present_trace(tracer):
    app, blocking = app_with_adds()
    twisted, aio = TxAdds(), AioAdds()
    app.connections.use(twisted=twisted)

    @app.task
    def note() -> None: ...

    async def add():
        app.connections.use(aio=aio)
        await note.aio.add()

    with tracer.start_as_current_span("request") as span:
        note.add()
        note.tx.add()
        asyncio.run(add())
    for adds in (blocking, twisted, aio):
        ((_, item),) = adds.added
        assert trace_id(item) == span.get_span_context().trace_id
        assert dict(item.options.headers)["task"] == b"note"
        parent = dict(item.options.headers)["traceparent"].split(b"-")[2]
        assert int(parent, 16) != span.get_span_context().span_id


@pytest.mark.parametrize("within", [True, False], ids=["in a trace", "alone"])
def test_each_item_of_an_add_of_many_carries_the_span_that_sends_it(tracer, within):
    spans = []

    def noting(kind):
        class Noted(kind):
            def answer(self, *args, **kwargs):
                spans.append(trace.get_current_span())
                return super().answer(*args, **kwargs)

        return Noted()

    app, _ = app_with_adds()
    blocking, twisted, aio = noting(Adds), noting(TxAdds), noting(AioAdds)
    app.connections.use(sync=blocking, twisted=twisted)

    @app.task
    def note() -> None: ...

    async def add_many():
        app.connections.use(aio=aio)
        await app.aio.add_many(calls)

    with tracer.start_as_current_span("request") if within else nullcontext():
        # In a span of its own, which has ended when the calls are added.
        with tracer.start_as_current_span("prepare"):
            calls = [note.call(), note.options(headers={"user": "ann"}, key="a").call()]
        app.add_many(calls)
        app.tx.add_many(calls)
        asyncio.run(add_many())
    assert [span.name for span in spans] == ["send mail"] * 3
    for adds, span in zip((blocking, twisted, aio), spans, strict=True):
        assert span.attributes["messaging.batch.message_count"] == 2
        assert [span_id(item) for _, item in adds.added] == [span.get_span_context().span_id] * 2
        assert [trace_id(item) for _, item in adds.added] == [span.get_span_context().trace_id] * 2
        options = adds.added[1][1].options
        assert (dict(options.headers)["user"], options.dedup_key) == (b"ann", b"note\0a")


def test_a_header_of_the_program_goes_before_that_of_the_trace(tracer):
    app, adds = app_with_adds()
    task = app.task(name="note")(lambda: None).options(headers={"traceparent": "own"})
    task.add()
    app.add_many([task.call()])
    assert [dict(item.options.headers)["traceparent"] for _, item in adds.added] == [b"own"] * 2


def test_an_add_of_many_with_too_many_headers_adds_nothing(tracer):
    app, adds = app_with_adds()
    call = app.task(name="note")(lambda: None).options(headers={f"h{at}": "" for at in range(62)}).call()
    with pytest.raises(InvalidRequest, match="headers"):
        app.add_many([call])
    assert adds.added == []


def test_the_span_of_an_add_names_queue_and_server(tracer):
    spans = []

    class Noted(Adds):
        def answer(self, *args, **kwargs):
            spans.append(trace.get_current_span())
            return super().answer(*args, **kwargs)

    app, _ = app_with_adds()
    app.connections.use(sync=Noted())
    app.task(name="note")(print)
    app.tasks["note"].options(queue="other").add()
    app.url = "queueber+unix:///run/q.sock?queue=mail"
    app.connections.use(sync=Noted())
    app.tasks["note"].add()
    first, second = spans
    assert (first.name, first.attributes["server.address"], first.attributes["server.port"]) == (
        "send other",
        "127.0.0.1",
        9090,
    )
    assert second.name == "send mail"
    assert "server.address" not in second.attributes


def test_a_next_step_carries_the_trace_of_the_task_that_hands_over(tracer):
    app, _ = app_with_adds()

    @app.task
    def note() -> Next:
        return Next(note)

    with tracer.start_as_current_span("process") as span:
        decision = app.handler(delivered(note.prepare((), {}).item))
    assert trace_id(decision.verdict.adds[0].items[0]) == span.get_span_context().trace_id


def test_without_a_package_there_are_no_headers_and_it_is_looked_for_once(monkeypatch):
    looks = []
    monkeypatch.setattr("queueber.worker.telemetry.installed", lambda: looks.append(None))
    connections.is_traced.cache_clear()
    app, adds = app_with_adds()

    @app.task
    def note() -> None: ...

    for _ in range(3):
        note.add()
    connections.is_traced.cache_clear()
    assert [len(item.options.headers) for _, item in adds.added] == [2, 2, 2]
    assert len(looks) == 1
