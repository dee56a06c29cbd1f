"""Spans and metrics by OpenTelemetry's conventions for messaging, as its own SDK sees them."""

import asyncio
import threading
from uuid import UUID

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from queueber.client_core.items import new_item
from queueber.errors import InvalidRequest
from queueber.sync import connect
from queueber.worker import Defer, Reject, Worker, context_headers, publishing, telemetry
from tests.support.waiting import until
from tests.worker.conftest import Running


class Recorded:
    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    def spans(self, name):
        return [each for each in self.exporter.get_finished_spans() if each.name == name]

    def metrics(self):
        """Return all data points by the metric's name."""
        data = self.reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def recorded(monkeypatch):
    """Providers of this test, although a process has only one of each in its life."""
    made = Recorded()
    monkeypatch.setattr(telemetry, "is_recorded", lambda: True)
    monkeypatch.setattr(telemetry, "tracer", lambda: made.tracers.get_tracer("queueber"))
    monkeypatch.setattr("opentelemetry.metrics.get_meter", made.meters.get_meter)
    telemetry.meters.cache_clear()
    yield made
    telemetry.meters.cache_clear()
    made.tracers.shutdown()
    made.meters.shutdown()


def publish(server, contents=b"a"):
    with connect(server.url("work")) as client, publishing("work", headers={"user": b"ann"}) as headers:
        client.queue().add_items(new_item(contents, headers=headers))
        return headers


def test_an_item_carries_the_context_of_the_span_that_sent_it(server, recorded):
    headers = publish(server)
    (span,) = recorded.spans("send work")
    assert span.kind is SpanKind.PRODUCER
    assert headers["user"] == b"ann"
    assert headers["traceparent"].split(b"-")[1:3] == [
        f"{span.context.trace_id:032x}".encode(),
        f"{span.context.span_id:016x}".encode(),
    ]
    assert dict(span.attributes) == {
        "messaging.system": "queueber",
        "messaging.destination.name": "work",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
    }


def test_a_handler_runs_in_a_span_that_is_linked_with_the_sender(server, recorded, work):
    current = []
    publish(server)
    with work(lambda item: current.append((trace.get_current_span().get_span_context(), item.id)), telemetry=True):
        until(lambda: recorded.spans("remove work"))
    (sent,), (processed,), (received,), (settled,) = (
        recorded.spans(f"{name} work") for name in ("send", "process", "receive", "remove")
    )
    assert processed.kind is SpanKind.CONSUMER
    assert processed.parent is None
    assert [each.context.span_id for each in processed.links] == [sent.context.span_id]
    assert current == [(processed.context, UUID(processed.attributes["messaging.message.id"]).bytes)]
    assert processed.attributes["messaging.queueber.attempt"] == 1
    assert processed.attributes["messaging.queueber.outcome"] == "remove"
    assert processed.status.status_code is StatusCode.UNSET
    assert (received.kind, settled.kind) == (SpanKind.CLIENT, SpanKind.CLIENT)
    assert received.attributes["messaging.batch.message_count"] == 1
    assert settled.attributes["messaging.operation.type"] == "settle"
    assert [each.context.span_id for each in settled.links] == [processed.context.span_id]


def test_a_handler_may_be_a_child_of_the_sender(server, recorded, work):
    publish(server)
    with work(lambda _: None, telemetry=True, trace_parent=True):
        until(lambda: recorded.spans("process work"))
    (sent,), (processed,) = recorded.spans("send work"), recorded.spans("process work")
    assert processed.parent.span_id == sent.context.span_id
    assert processed.links == ()


def test_an_item_without_a_context_begins_a_trace(server, recorded, add, work):
    add(b"a")
    with work(lambda _: None, telemetry=True):
        until(lambda: recorded.spans("process work"))
    (processed,) = recorded.spans("process work")
    assert (processed.parent, processed.links) == (None, ())


@pytest.mark.parametrize(
    ("raises", "outcome", "kind"),
    [
        (ValueError("no"), "fail", "ValueError"),
        (Reject("no"), "reject", "queueber.worker.verdicts.Reject"),
        (Defer(60), "defer", None),
    ],
)
def test_the_span_has_the_outcome_and_the_type_of_an_error(server, recorded, add, work, raises, outcome, kind):
    async def handler(_):
        raise raises

    add(b"a")
    with work(handler, telemetry=True):
        (processed,) = until(lambda: recorded.spans("process work"))
    assert processed.attributes["messaging.queueber.outcome"] == outcome
    assert processed.attributes.get("error.type") == kind
    assert processed.status.status_code is (StatusCode.UNSET if kind is None else StatusCode.ERROR)
    assert [each.name for each in processed.events] == (["exception"] if outcome == "fail" else [])


def test_a_cancelled_handler_is_deferred(server, recorded, add, work):
    began = threading.Event()

    async def handler(_):
        began.set()
        await asyncio.sleep(60)

    add(b"a")
    with work(handler, telemetry=True, grace=0):
        assert began.wait(30)
    (processed,) = until(lambda: recorded.spans("process work"))
    assert processed.attributes["messaging.queueber.outcome"] == "defer"


def test_metrics_count_and_time_what_is_done(server, recorded, add, work):
    publish(server)
    with work(lambda _: None, telemetry=True):
        until(lambda: recorded.spans("remove work"))
    metrics = recorded.metrics()
    assert [each.value for each in metrics["messaging.client.sent.messages"]] == [1]
    assert [each.value for each in metrics["messaging.client.consumed.messages"]] == [1]
    assert [each.count for each in metrics["messaging.process.duration"]] == [1]
    names = {each.attributes["messaging.operation.name"] for each in metrics["messaging.client.operation.duration"]}
    assert names == {"send", "receive", "remove"}


def test_an_add_that_fails_says_so(recorded):
    with pytest.raises(OSError, match="gone"), publishing("work", 3):
        raise OSError("gone")
    (span,) = recorded.spans("send work")
    assert (span.attributes["error.type"], span.attributes["messaging.batch.message_count"]) == ("OSError", 3)


def test_a_settle_of_items_of_several_queues_names_none(server, recorded, add):
    gate = threading.Event()
    add(b"a", queue="one")
    add(b"b", queue="two")
    worker = Worker(server.url(), lambda _: gate.wait(30), queues=["one", "two"], telemetry=True, grace=30)
    running = Running(worker)
    until(lambda: worker.health.running == 2)
    # What a stop settles goes in one call.
    worker.stop()
    worker.stop()
    running.ended()
    gate.set()
    (settled,) = until(lambda: recorded.spans("defer"))
    assert "messaging.destination.name" not in settled.attributes
    assert settled.attributes["messaging.batch.message_count"] == 2


class Broken(SpanProcessor):
    """A processor of the program, with a fault."""

    def on_start(self, span, parent_context=None):
        if "start" in self.faults:
            raise ZeroDivisionError

    def on_end(self, span):
        if "end" in self.faults:
            raise ZeroDivisionError


@pytest.mark.parametrize("faults", [["start"], ["end"]])
@pytest.mark.parametrize("coroutine", [False, True])
def test_a_fault_of_a_span_processor_harms_no_item(server, recorded, add, work, caplog, faults, coroutine):
    broken = Broken()
    broken.faults = faults
    recorded.tracers.add_span_processor(broken)
    seen = []

    async def handle_soon(item):
        seen.append(item.contents)

    add(b"a", b"b")
    with work(handle_soon if coroutine else lambda item: seen.append(item.contents), telemetry=True):
        until(lambda: not server.items("work"))
    assert sorted(seen) == [b"a", b"b"]
    assert "traces or metrics failed" in caplog.text


@pytest.mark.parametrize("coroutine", [False, True])
def test_a_provider_that_cannot_be_loaded_harms_no_item(server, add, work, caplog, monkeypatch, coroutine):
    def load():
        raise RuntimeError("OTEL_PYTHON_TRACER_PROVIDER names no provider")

    async def handle_soon(item):
        pass

    for name in ("is_recorded", "tracer", "meters"):
        monkeypatch.setattr(telemetry, name, load)
    add(b"a")
    with work(handle_soon if coroutine else lambda item: None, telemetry=True):
        until(lambda: not server.items("work"))
    assert "names no provider" in caplog.text


class TestWithoutProviders:
    """Only the API is installed, as by a dependency, and nothing records."""

    @pytest.fixture(autouse=True)
    def untraced(self, monkeypatch):
        self.meters, self.tracer = telemetry.meters, telemetry.tracer
        monkeypatch.setattr(telemetry, "tracer", lambda: pytest.fail("a span was made"))
        monkeypatch.setattr(telemetry, "meters", lambda: pytest.fail("a metric was made"))

    def test_no_span_is_made(self, server, work):
        assert publish(server) == {"user": b"ann"}
        with work(print, telemetry=True):
            until(lambda: not server.items("work"))

    def test_a_context_is_passed_on(self, server):
        passed = trace.SpanContext(7, 8, is_remote=True, trace_flags=trace.TraceFlags(1))
        with trace.use_span(trace.NonRecordingSpan(passed)):
            headers = publish(server)
        assert headers["traceparent"] == f"00-{7:032x}-{8:016x}-01".encode()

    def test_a_handler_passes_the_context_of_its_parent_on(self, server, work, monkeypatch):
        monkeypatch.setattr(telemetry, "tracer", self.tracer)
        monkeypatch.setattr(telemetry, "meters", self.meters)
        seen = []
        passed = trace.SpanContext(7, 8, is_remote=True, trace_flags=trace.TraceFlags(1))
        with trace.use_span(trace.NonRecordingSpan(passed)):
            sent = publish(server)["traceparent"]
        with work(lambda _: seen.append(context_headers().get("traceparent")), telemetry=True, trace_parent=True):
            until(lambda: not server.items("work"))
        assert seen == [sent]

    def test_providers_that_are_configured_later_are_found(self, server, add, work, monkeypatch):
        add(b"a")
        with work(print, telemetry=True):
            until(lambda: not server.items("work"))
            spans = Recorded()
            monkeypatch.setattr(telemetry, "is_recorded", lambda: True)
            monkeypatch.setattr(telemetry, "tracer", lambda: spans.tracers.get_tracer("queueber"))
            monkeypatch.setattr(telemetry, "meters", self.meters)
            add(b"b")
            until(lambda: spans.spans("process work"))


class TestWithoutOpenTelemetry:
    @pytest.fixture(autouse=True)
    def absent(self, monkeypatch):
        monkeypatch.setattr(telemetry, "installed", lambda: False)
        monkeypatch.setattr("queueber.worker.worker.installed", lambda: False)

    def test_publishing_adds_nothing(self):
        with publishing("work", headers={"user": b"ann"}) as headers:
            assert headers == {"user": b"ann"}
        assert context_headers() == {}

    def test_a_worker_is_not_traced_unless_it_is_asked_to_be(self):
        Worker("queueber://h/work", print)
        with pytest.raises(InvalidRequest, match=r"pip install 'queueber\[otel\]'"):
            Worker("queueber://h/work", print, telemetry=True)
