"""The context of a trace travels in the headers of items, if OpenTelemetry is installed."""

import asyncio

import pytest

from queueber.tasks import Next, connections
from tests.tasks.stand_ins import Adds, AioAdds, TxAdds, app_with_adds, delivered

trace = pytest.importorskip("opentelemetry.trace")
sdk = pytest.importorskip("opentelemetry.sdk.trace")


@pytest.fixture
def tracer(monkeypatch):
    """The tracer of the program, which is that of the client as well."""
    made = sdk.TracerProvider(shutdown_on_exit=False).get_tracer("tests")
    monkeypatch.setattr("queueber.worker.telemetry.tracer", lambda: made)
    return made


def trace_id(item):
    return int(dict(item.options.headers)["traceparent"].split(b"-")[1], 16)


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
